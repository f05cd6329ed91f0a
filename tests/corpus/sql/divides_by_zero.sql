/* foldd
# when   = "folded"
# place  = 13
# says   = 'division by zero'
# remedy = "the event's data"
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
values (1 / event.stream_version - 1 / (event.stream_version - 1));
