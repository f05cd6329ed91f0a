/* foldd
# when   = "read"
# place  = 14
# says   = '`commit` does not belong in a handler'
# remedy = 'remove it'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own values (1);
commit;
