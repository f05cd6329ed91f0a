/* foldd
# when   = "planned"
# place  = 11
# says   = 'relation "own" already exists'
# remedy = 'create it once'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create table own (m bigint);

-- @on A
insert into own values (1);
