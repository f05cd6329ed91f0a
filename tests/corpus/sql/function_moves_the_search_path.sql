/* foldd
# when   = "folded"
# place  = 18
# says   = 'relation "own" does not exist'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create function f() returns int language plpgsql as $$
begin
perform set_config('search_path', 'public', true);
return 1;
end $$;

-- @on A
insert into own values (f());
