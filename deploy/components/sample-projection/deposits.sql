/* foldd
version    = 1
categories = ["account"]
*/
-- @tables
create table deposits (account text primary key, cents bigint not null);

-- @on Deposited
insert into deposits values (event.stream_id, (event.data->>'cents')::bigint)
on conflict (account) do update set cents = deposits.cents + excluded.cents;
