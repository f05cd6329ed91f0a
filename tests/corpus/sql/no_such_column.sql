/* foldd
# when   = "planned"
# place  = 14
# says   = 'column "m" of relation "own" does not exist'
# remedy = 'see the columns under `@tables`'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
(m) values (1);
