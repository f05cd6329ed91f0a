/* foldd
# when   = "read"
# place  = 13
# says   = '`call` does not belong in a handler'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
call f();
