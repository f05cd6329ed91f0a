/* foldd
# when   = "folded"
# place  = 13
# says   = 'null value in column "n"'
# remedy = 'what it takes from the event'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint not null);

-- @on A
insert into own values ((event.data->>'absent')::bigint);
