/* foldd
# when   = "read"
# place  = 11
# says   = '`copy` does not belong under `@tables`'
# remedy = 'rows come from events'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
copy own from stdin;

-- @on A
insert into own values (1);
