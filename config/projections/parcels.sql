/* foldd
version    = 1
categories = ["parcel"]
*/

-- One row for each parcel: where it is, who has it, and whether it came in time. Ask for example
--
--     select state, count(*) from parcels.parcel group by state order by count(*) desc;
--
-- foldd runs the statement below `@on TYPE` once for every event of that type, in the order of the
-- log. In it, `event` is the event: event.stream_id, event.event_type, event.data, event.metadata.
-- The effect and the place in the log are committed together, so each event counts exactly once.

-- @tables
create table parcel (
    parcel_id    text primary key,
    state        text not null,
    origin       text not null,
    destination  text not null,
    weight_grams integer not null,
    depot        text,                        -- the one it is in, or has left last
    courier      text,                        -- set while a courier has it on board
    attempts     integer not null default 0,  -- how often a courier set out with it
    promised_at  timestamptz not null,
    delivered_at timestamptz,
    late         boolean generated always as (delivered_at > promised_at) stored  -- null until delivered
);
comment on table parcel is 'Every parcel, with where it is now';

-- @on Registered
insert into parcel (parcel_id, state, origin, destination, weight_grams, promised_at)
values (
    event.stream_id,
    'registered',
    event.data->>'from',
    event.data->>'to',
    (event.data->>'weight_grams')::integer,
    (event.data->>'promised_at')::timestamptz
);

-- @on Picked Up
update parcel set state = 'picked up' where parcel_id = event.stream_id;

-- @on Arrived At Depot
update parcel set state = 'in depot', depot = event.data->>'depot' where parcel_id = event.stream_id;

-- @on Departed Depot
update parcel set state = 'on the road' where parcel_id = event.stream_id;

-- @on Out For Delivery
update parcel set state = 'out for delivery', courier = event.data->>'courier', attempts = attempts + 1
where parcel_id = event.stream_id;

-- When something happened is part of the event. `created_at` would only say when it was appended,
-- which is another time for events that were imported or came in late.
-- @on Delivered
update parcel set state = 'delivered', courier = null, delivered_at = (event.metadata->>'occurred_at')::timestamptz
where parcel_id = event.stream_id;

-- The courier brings it back; it tries again, or gives up.
-- @on Delivery Failed
update parcel set state = 'in depot', courier = null where parcel_id = event.stream_id;

-- @on Returned To Sender
update parcel set state = 'returned' where parcel_id = event.stream_id;

-- Tests live beside what they test. `@given STREAM | TYPE | DATA | METADATA` is an event, each
-- `@expect` is a row of the query above it.

-- @test a parcel is delivered at the second attempt, too late
-- @given parcel-7 | Registered       | {"from": "Porto", "to": "Lyon", "weight_grams": 900, "promised_at": "2025-03-03T18:00:00Z"}
-- @given parcel-7 | Picked Up        | {"place": "locker"}
-- @given parcel-7 | Arrived At Depot | {"depot": "Porto"}
-- @given parcel-7 | Departed Depot   | {"depot": "Porto", "next": "Lyon"}
-- @given parcel-7 | Arrived At Depot | {"depot": "Lyon"}
-- @given parcel-7 | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-7 | Delivery Failed  | {"depot": "Lyon", "courier": "courier-amira", "attempt": 1, "reason": "nobody at home"}
-- @given parcel-7 | Out For Delivery | {"depot": "Lyon", "courier": "courier-bruno"}
-- @given parcel-7 | Delivered        | {"depot": "Lyon", "courier": "courier-bruno"} | {"occurred_at": "2025-03-03T19:12:00Z"}
select parcel_id, state, depot, attempts, delivered_at - promised_at from parcel where late and courier is null;
-- @expect parcel-7 | delivered | Lyon | 2 | 01:12:00

-- @test a parcel on its way has a courier
-- @given parcel-8 | Registered       | {"from": "Lyon", "to": "Lyon", "weight_grams": 250, "promised_at": "2025-03-03T18:00:00Z"}
-- @given parcel-8 | Picked Up        | {"place": "front desk"}
-- @given parcel-8 | Arrived At Depot | {"depot": "Lyon"}
-- @given parcel-8 | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
select parcel_id, state, courier, attempts from parcel;
-- @expect parcel-8 | out for delivery | courier-amira | 1
