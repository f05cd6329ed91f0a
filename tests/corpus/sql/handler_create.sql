/* foldd
# when   = "read"
# place  = 13
# says   = '`create` does not belong in a handler'
# remedy = '@tables'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
create table mine (n bigint);
