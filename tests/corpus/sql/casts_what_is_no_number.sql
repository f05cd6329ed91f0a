/* foldd
# when   = "folded"
# place  = 13
# says   = 'invalid input syntax for type bigint'
# remedy = "the event's data"
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
values ((event.data->>'word')::bigint);
