/* foldd
# when   = "planned"
# place  = 13
# says   = 'cannot insert into view "batch"'
# remedy = 'is only read'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @batch
insert into batch select * from batch;
