/* foldd
# when   = "planned"
# place  = 13
# says   = 'the statement writes neighbour.tally'
# remedy = 'write only tables of this file'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
with aside as (delete from neighbour.tally returning 1)
insert into own select 1 from aside;
