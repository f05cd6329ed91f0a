/* foldd
# when   = "read"
# place  = 13
# says   = '`rollback` does not belong in a handler'
# remedy = 'remove it'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
rollback;
