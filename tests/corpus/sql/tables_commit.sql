/* foldd
# when   = "read"
# place  = 11
# says   = '`commit` does not belong under `@tables`'
# remedy = 'remove it'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
commit;

-- @on A
insert into own values (1);
