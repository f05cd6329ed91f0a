/* foldd
# when   = "read"
# place  = 13
# says   = '`set` does not belong in a handler'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
set search_path = public;
