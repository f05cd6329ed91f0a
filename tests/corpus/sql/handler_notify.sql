/* foldd
# when   = "read"
# place  = 13
# says   = '`notify` does not belong in a handler'
# remedy = 'foldd wait'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
notify a;
