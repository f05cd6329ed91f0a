/* foldd
# when   = "planned"
# place  = 13
# says   = 'is of type bigint but expression is of type text'
# remedy = 'cast'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (event.stream_id);
