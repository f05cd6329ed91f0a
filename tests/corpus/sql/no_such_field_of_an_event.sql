/* foldd
# when   = "planned"
# place  = 13
# says   = 'has no field "amount"'
# remedy = 'see the columns'
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own
values (event.amount);
