/* foldd
# when   = "folded"
# place  = 18
# says   = 'stack depth limit exceeded'
# remedy = 'a limit of PostgreSQL'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create function f() returns int language plpgsql as $$
begin
perform f();
return 1;
end $$;

-- @on A
insert into own values (f());
