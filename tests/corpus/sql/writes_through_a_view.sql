/* foldd
# when   = "planned"
# place  = 13
# says   = 'the statement writes public.es_streams'
# remedy = 'write only tables of this file'
version = 1
categories = ["order"]
*/
-- @tables
create view v as select * from public.es_streams;

-- @on A
insert into v (stream_id) values ('a');
