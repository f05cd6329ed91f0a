/* foldd
# when   = "folded"
# place  = 18
# says   = 'invalid transaction termination'
# remedy = 'take commit and rollback out'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create function f() returns int language plpgsql as $$
begin
commit;
return 1;
end $$;

-- @on A
insert into own values (f());
