/* foldd
# when   = "planned"
# place  = 13
# says   = 'syntax error at or near ")"'
# remedy = 'foldd check'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);
create table two (
  n bigint,
);

-- @on A
insert into own values (1);
