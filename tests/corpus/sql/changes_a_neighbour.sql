/* foldd
# when   = "planned"
# place  = 11
# says   = 'makes or changes neighbour.tally'
# remedy = 'name things without a schema'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
alter table neighbour.tally add m bigint;

-- @on A
insert into own values (1);
