/* foldd
# when   = "planned"
# place  = 13
# says   = 'the statement reads `batch`'
# remedy = 'make it a `-- @batch` statement'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own select global_position from batch;
