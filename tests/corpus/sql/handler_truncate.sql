/* foldd
# when   = "read"
# place  = 13
# says   = '`truncate` does not belong in a handler'
# remedy = 'delete'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
truncate own;
