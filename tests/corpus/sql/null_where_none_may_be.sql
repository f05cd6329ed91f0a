/* foldd
# when   = "folded"
# place  = 13
# says   = 'null value in column "n"'
# remedy = 'a constraint of the read model'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint not null);

-- @on A
insert into own values ((event.data->>'absent')::bigint);
