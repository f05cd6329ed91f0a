/* foldd
# when   = "planned"
# place  = 13
# says   = 'type "money_of_ours" does not exist'
# remedy = 'create it under `@tables`'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (event.data::money_of_ours);
