/* foldd
# when   = "planned"
# place  = 13
# says   = 'the statement writes public.es_streams'
# remedy = 'write only tables of this file'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
delete from public.es_streams;
