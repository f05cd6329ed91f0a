/* foldd
# when   = "planned"
# place  = 14
# says   = 'relation "nowhere" does not exist'
# remedy = 'create the table under `@tables`'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
select n from nowhere;
