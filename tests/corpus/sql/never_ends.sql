/* foldd
# when   = "folded"
# says   = 'folding a single event takes longer than daemon.batch_timeout'
# remedy = 'endless loop'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
with recursive a (n) as (select 1::bigint union all select n + 1 from a)
select n from a;
