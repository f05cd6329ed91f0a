/* foldd
# when   = "planned"
# place  = 13
# says   = 'relation "es_events" does not exist'
# remedy = 'create the table under `@tables`'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
update es_events set data = '{}';
