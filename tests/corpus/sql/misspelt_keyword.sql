/* foldd
# when   = "planned"
# place  = 14
# says   = 'syntax error at or near "valuse"'
# remedy = 'foldd check'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
valuse (1);
