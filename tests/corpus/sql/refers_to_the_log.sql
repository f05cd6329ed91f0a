/* foldd
# when   = "planned"
# place  = 10
# says   = 'makes or changes public.es_events'
# remedy = 'name things without a schema'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint references public.es_events (global_position));

-- @on A
insert into own values (1);
