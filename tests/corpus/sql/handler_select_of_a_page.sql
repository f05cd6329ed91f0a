/* foldd
# when   = "read"
# place  = 13
# says   = '`select` does not belong in a handler'
# remedy = 'insert into … select'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @batch
select count(*) from batch;
