/* foldd
# when   = "planned"
# place  = 12
# says   = 'makes or changes public.es_events'
# remedy = 'name things without a schema'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create function f() returns trigger language plpgsql as $$begin return new; end$$;
create trigger t after insert on public.es_events for each row execute function f();

-- @on A
insert into own values (1);
