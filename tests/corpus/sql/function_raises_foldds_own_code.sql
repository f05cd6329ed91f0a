/* foldd
# when   = "folded"
# place  = 18
# says   = 'not fenced at all'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create function f() returns int language plpgsql as $$
begin
raise exception 'not fenced at all' using errcode = 'FD001';
return 1;
end $$;

-- @on A
insert into own values (f());
