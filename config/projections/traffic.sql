/* foldd
version = 1
all     = true
*/

-- What is going on, counted: every event by its type, and the parcels through each depot. Ask
--
--     select * from traffic.event_type order by events desc;
--
-- `@batch` handles a page of events with one statement, where `@on` runs one for each event. In it,
-- `batch` is a relation with the columns of the log: stream_id, stream_category, event_type, data …
-- A count needs only what a page adds up to, so this is much the faster way to say it. As
-- `all = true` names no categories, it counts whatever comes in, also what you append yourself.

-- @tables
create table event_type (
    category   text,
    event_type text,
    events     bigint not null,
    primary key (category, event_type)
);
create table depot (
    depot      text primary key,
    arrived    bigint not null,
    departed   bigint not null,
    handed_out bigint not null,  -- to couriers
    came_back  bigint not null,  -- undelivered
    returned   bigint not null,  -- to their senders
    inside     bigint generated always as (arrived + came_back - departed - handed_out - returned) stored
);

-- @batch
insert into event_type as known (category, event_type, events)
select stream_category, event_type, count(*) from batch
group by stream_category, event_type
on conflict (category, event_type) do update set events = known.events + excluded.events;

-- Several `@batch` statements see the same page, and run in this order.
-- @batch
insert into depot as known (depot, arrived, departed, handed_out, came_back, returned)
select
    data->>'depot',
    count(*) filter (where event_type = 'Arrived At Depot'),
    count(*) filter (where event_type = 'Departed Depot'),
    count(*) filter (where event_type = 'Out For Delivery'),
    count(*) filter (where event_type = 'Delivery Failed'),
    count(*) filter (where event_type = 'Returned To Sender')
from batch
where stream_category = 'parcel' and data ? 'depot'
group by data->>'depot'
on conflict (depot) do update set
    arrived    = known.arrived + excluded.arrived,
    departed   = known.departed + excluded.departed,
    handed_out = known.handed_out + excluded.handed_out,
    came_back  = known.came_back + excluded.came_back,
    returned   = known.returned + excluded.returned;

-- @test events are counted by type, of any category
-- @given parcel-1      | Picked Up     | {"place": "shop"}
-- @given parcel-2      | Picked Up     | {"place": "locker"}
-- @given courier-amira | Shift Started | {"depot": "Lyon", "vehicle": "van"}
select category, event_type, events from event_type order by category, event_type;
-- @expect courier | Shift Started | 1
-- @expect parcel  | Picked Up     | 2

-- @test a depot knows what it has inside
-- @given parcel-1 | Arrived At Depot | {"depot": "Porto"}
-- @given parcel-2 | Arrived At Depot | {"depot": "Porto"}
-- @given parcel-1 | Departed Depot   | {"depot": "Porto", "next": "Lyon"}
-- @given parcel-1 | Arrived At Depot | {"depot": "Lyon"}
-- @given parcel-1 | Out For Delivery | {"depot": "Lyon", "courier": "courier-amira"}
-- @given parcel-1 | Delivery Failed  | {"depot": "Lyon", "courier": "courier-amira", "reason": "nobody at home"}
select depot, arrived, departed, handed_out, came_back, inside from depot order by depot;
-- @expect Lyon  | 1 | 0 | 1 | 1 | 1
-- @expect Porto | 2 | 1 | 0 | 0 | 1
