/* foldd
# when   = "folded"
# says   = 'duplicate key value violates unique constraint "once"'
# remedy = 'a constraint of the read model'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint, constraint once unique (n) deferrable initially deferred);

-- @batch
insert into own
select 1 from batch cross join generate_series(1, 2);
