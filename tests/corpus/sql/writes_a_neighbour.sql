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
insert into neighbour.tally values (1);
