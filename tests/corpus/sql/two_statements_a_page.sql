/* foldd
# when   = "read"
# place  = 14
# says   = 'is a second statement below `@batch`'
# remedy = '`-- @batch` of its own'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @batch
insert into own values (1);
insert into own values (2);
