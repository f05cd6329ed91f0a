/* foldd
# when   = "planned"
# place  = 13
# says   = 'function undefined(jsonb) does not exist'
# remedy = 'create it under `@tables`'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (undefined(event.data));
