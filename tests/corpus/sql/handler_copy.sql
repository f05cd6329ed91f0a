/* foldd
# when   = "read"
# place  = 13
# says   = '`copy` does not belong in a handler'
# remedy = 'insert into … select'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
copy own from stdin;
