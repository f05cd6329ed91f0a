/* foldd
# when   = "read"
# place  = 14
# says   = 'is a second statement below `@on`'
# remedy = 'join the two'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (1);
insert into own values (2);
