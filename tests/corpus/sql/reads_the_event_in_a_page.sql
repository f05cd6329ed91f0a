/* foldd
# when   = "planned"
# place  = 13
# says   = 'missing FROM-clause entry for table "event"'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @batch
insert into own values (event.global_position);
