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

-- @batch
merge into neighbour.tally using batch on false when not matched then do nothing;
