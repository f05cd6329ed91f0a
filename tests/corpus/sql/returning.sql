/* foldd
# when   = "read"
# place  = 13
# says   = 'a handler has `returning` here'
# remedy = 'remove it'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (1) returning n;
