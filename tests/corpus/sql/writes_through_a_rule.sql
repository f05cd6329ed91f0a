/* foldd
# when   = "planned"
# place  = 14
# says   = 'the statement writes neighbour.tally'
# remedy = 'write only tables of this file'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create rule r as on insert to own do also delete from neighbour.tally;

-- @on A
insert into own values (1);
