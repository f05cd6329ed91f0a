/* foldd
version    = 1
categories = ["parcel", "courier"]
*/

-- How each courier is doing, from two categories: shifts are told by the couriers' own streams, what
-- becomes of the parcels by the parcels'. Who has most on board right now:
--
--     select courier_id, on_board, delivered, failed from couriers.courier order by on_board desc limit 5;
--
-- The order of events is certain along one stream only. A parcel may name a courier whose shift has
-- not been heard of yet, so either event creates the row, and the other one completes it.

-- @tables
create table courier (
    courier_id text primary key,
    depot      text,
    vehicle    text,
    on_shift   boolean not null default false,
    on_board   integer not null default 0,
    delivered  integer not null default 0,
    failed     integer not null default 0
);
comment on column courier.on_board is 'Parcels that the courier has taken along and neither delivered nor brought back';

-- @on Shift Started
insert into courier (courier_id, depot, vehicle, on_shift)
values (event.stream_id, event.data->>'depot', event.data->>'vehicle', true)
on conflict (courier_id) do update
set depot = excluded.depot, vehicle = excluded.vehicle, on_shift = true;

-- @on Shift Ended
update courier set on_shift = false where courier_id = event.stream_id;

-- @on Out For Delivery
insert into courier as c (courier_id, depot, on_board)
values (event.data->>'courier', event.data->>'depot', 1)
on conflict (courier_id) do update set on_board = c.on_board + 1;

-- Stacked `@on` lines share one statement.
-- @on Delivered
-- @on Delivery Failed
update courier
set on_board  = on_board - 1,
    delivered = delivered + (event.event_type = 'Delivered')::integer,
    failed    = failed + (event.event_type = 'Delivery Failed')::integer
where courier_id = event.data->>'courier';

-- @test two parcels go out, one comes back
-- @given courier-amira | Shift Started    | {"depot": "Lyon", "vehicle": "cargo bike"}
-- @given parcel-1      | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-2      | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-3      | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-1      | Delivered        | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-2      | Delivery Failed  | {"depot": "Lyon", "courier": "courier-amira", "reason": "nobody at home"}
select courier_id, vehicle, on_board, delivered, failed from courier;
-- @expect courier-amira | cargo bike | 1 | 1 | 1

-- @test a shift may be told after the parcels of it
-- @given parcel-1      | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given courier-amira | Shift Started    | {"depot": "Lyon", "vehicle": "van"}
-- @given parcel-1      | Delivered        | {"depot": "Lyon", "courier": "courier-amira"}
-- @given courier-amira | Shift Ended      | {}
select courier_id, depot, vehicle, on_board, delivered from courier where not on_shift;
-- @expect courier-amira | Lyon | van | 0 | 1
