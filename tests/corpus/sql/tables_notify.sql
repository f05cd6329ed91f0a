/* foldd
# when   = "read"
# place  = 11
# says   = '`notify` does not belong under `@tables`'
# remedy = 'remove it'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
notify a;

-- @on A
insert into own values (1);
