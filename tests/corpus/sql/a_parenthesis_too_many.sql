/* foldd
# when   = "read"
# place  = 13
# says   = 'this ) closes nothing'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (1));
