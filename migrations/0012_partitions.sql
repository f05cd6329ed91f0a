-- A projection split by streams: each partition is a subscription of its own, with checkpoint, lease and lag.
--
-- A stream belongs to one partition for ever, by a hash of its id, so that its order is kept. Each partition
-- walks through all events of its categories and applies its own.
--
-- Changing the number does not wait for the partitions to meet. All new ones start at the least checkpoint
-- of the old ones, and remember where each of those stood: its *floors*. An event at or below the floor of
-- its old partition is applied already and passed over. Once a checkpoint is past all floors, it forgets
-- them. So the change is one transaction behind the locks of all rows: whoever held an old one is fenced
-- off, and a crash leaves the old or the new split, never half of one.

-- The partition of a stream. The server's own hash, the one that hash partitioned tables rely on.
create function es_partition(stream_id text, partitions integer) returns integer
language sql immutable parallel safe
return ((hashtextextended(stream_id, 0) & 9223372036854775807) % partitions)::integer;

comment on function es_partition(text, integer) is 'The partition of a stream, from 0.';

-- What the hash makes of a known text. Should another server count differently, a split that came from here would lose
-- events there: it is looked at before a projection runs.
alter table es_subscriptions
    add column hash_probe integer not null default es_partition('foldd', 2147483647);
comment on column es_subscriptions.hash_probe is 'What es_partition made of a known text when the projection was split.';

-- Whether an event is past every floor of its stream. `floors` is an array of {"partitions": N, "cursors":
-- [[stamp, position], …]}, the cursors in the order of the partitions.
create function es_is_past_floors(floors jsonb, stream_id text, transaction_id xid8, global_position bigint)
returns boolean
language sql stable
set search_path from current
begin atomic
    select coalesce(bool_and(
        (es_is_past_floors.transaction_id, es_is_past_floors.global_position)
            > ((f.floor -> 'cursors' -> p.partition ->> 0)::xid8, (f.floor -> 'cursors' -> p.partition ->> 1)::bigint)), true)
    from jsonb_array_elements(es_is_past_floors.floors) as f (floor)
    cross join lateral (
        select es_partition(es_is_past_floors.stream_id, (f.floor ->> 'partitions')::integer)) as p (partition);
end;

-- Whether a checkpoint is past all floors of all streams.
create function es_is_past_all_floors(floors jsonb, transaction_id xid8, global_position bigint) returns boolean
language sql stable
set search_path from current
begin atomic
    select coalesce(bool_and(
        (es_is_past_all_floors.transaction_id, es_is_past_all_floors.global_position)
            >= ((c.cursor ->> 0)::xid8, (c.cursor ->> 1)::bigint)), true)
    from jsonb_array_elements(es_is_past_all_floors.floors) as f (floor)
    cross join lateral jsonb_array_elements(f.floor -> 'cursors') as c (cursor);
end;

-- The subscription of a partition: `fines@2` when there is one, `fines@2/3` when there are more.
create function es_partition_id(projection_id text, partition integer, partitions integer) returns text
language sql immutable
return projection_id || case when partitions > 1 then '/' || partition else '' end;

-- How many events of a subscription's own partition lie after its checkpoint and below the horizon, those
-- below its floors apart; with `since` only those with this stamp or a later one, which is what came since
-- a horizon that was counted to.
create function es_count_own_after(subscription_id text, since xid8, horizon xid8) returns bigint
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    own es_subscriptions;
begin
    select * into own from es_subscriptions s where s.subscription_id = es_count_own_after.subscription_id;
    -- One bound, or the scan begins at the checkpoint and walks the whole backlog to find what is new.
    if own.last_transaction_id < es_count_own_after.since then
        own.last_transaction_id := es_count_own_after.since;
        own.last_position := 0;
    end if;
    return (select count(*) from es_events e
            where (own.categories is null or e.stream_category = any (own.categories))
              and (e.transaction_id, e.global_position) > (own.last_transaction_id, own.last_position)
              and e.transaction_id < es_count_own_after.horizon
              and (own.partitions = 1 or es_partition(e.stream_id, own.partitions) = own.partition)
              and (own.floors is null
                   or es_is_past_floors(own.floors, e.stream_id, e.transaction_id, e.global_position)));
end
$$;

comment on function es_count_own_after(text, xid8, xid8) is
    'Counts the events that a subscription is still to apply, below a horizon.';

-- How many events of a subscription lie below the horizon in all, as their streams say, whose versions count them: a walk
-- through the streams instead of one through the events. Null where the planner does not expect far fewer streams than
-- events, where the streams may not know, since somebody has inserted without es_append, and below floors.
create function es_count_own_by_streams(subscription_id text, horizon xid8) returns bigint
language plpgsql volatile
set search_path from current
set jit = off
as $$
declare
    own es_subscriptions;
    streams real;
    plan json;
begin
    select * into own from es_subscriptions s where s.subscription_id = es_count_own_by_streams.subscription_id;
    select c.reltuples into streams from pg_class c where c.oid = 'es_streams'::regclass;
    if own.floors is not null or es_has_foreign_writes() or streams < 0 then
        return null;
    end if;
    execute format('explain (format json) select from es_events e where %L is null or e.stream_category = any (%L)',
                   own.categories, own.categories) into plan;
    if streams * 2 > (plan -> 0 -> 'Plan' ->> 'Plan Rows')::real then
        return null;
    end if;
    return (select coalesce(sum(s.stream_version), 0) from es_streams s
            where (own.categories is null or s.stream_category = any (own.categories))
              and (own.partitions = 1 or es_partition(s.stream_id, own.partitions) = own.partition))
         - (select count(*) from es_events e
            where e.transaction_id >= es_count_own_by_streams.horizon
              and (own.categories is null or e.stream_category = any (own.categories))
              and (own.partitions = 1 or es_partition(e.stream_id, own.partitions) = own.partition));
end
$$;

comment on function es_count_own_by_streams(text, xid8) is
    'Counts all events of a subscription below a horizon by their streams; null where that does not pay.';

-- The first event that a subscription is still to apply; none when there is none below the horizon.
create function es_next_own(subscription_id text, horizon xid8) returns setof es_events
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    own es_subscriptions;
begin
    select * into own from es_subscriptions s where s.subscription_id = es_next_own.subscription_id;
    if own.partitions = 1 and own.floors is null then
        return query select * from es_read_after(own.categories, own.last_transaction_id, own.last_position, 1, horizon);
        return;
    end if;
    return query
    select e.* from es_events e
    where (own.categories is null or e.stream_category = any (own.categories))
      and (e.transaction_id, e.global_position) > (own.last_transaction_id, own.last_position)
      and e.transaction_id < es_next_own.horizon
      and (own.partitions = 1 or es_partition(e.stream_id, own.partitions) = own.partition)
      and (own.floors is null or es_is_past_floors(own.floors, e.stream_id, e.transaction_id, e.global_position))
    order by e.transaction_id, e.global_position limit 1;
end
$$;

comment on function es_next_own(text, xid8) is 'The first event that a subscription is still to apply.';

-- The phase of a subscription as it is shown. What was published is only as true as its publisher is alive: without a
-- holder it stands by, unless it halted.
create function es_shown_phase(subscription_id text) returns text
language sql stable
set search_path from current
begin atomic
    select case when s.paused then 'paused'
                when r.lease_until > clock_timestamp() then coalesce(ph.phase, 'standby')
                when ph.phase = 'halted' then 'halted' else 'standby' end
    from es_subscriptions s
    left join es_phases ph on ph.subscription_id = s.subscription_id
    left join es_replicas r on r.replica_id = s.holder
    where s.subscription_id = es_shown_phase.subscription_id;
end;

-- A subscription has reached the horizon for the first time. When all partitions have, their version is built; it is
-- live then, unless another one is, whose place it takes by a cut-over (0013_versions.sql). Says what became of it.
create function es_go_live(subscription_id text, is_finished boolean) returns text
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    whole text;
    role_now text;
begin
    update es_subscriptions s set is_built = true
    where s.subscription_id = es_go_live.subscription_id returning s.projection_id into whole;
    -- Of two that arrive at once the second one waits here, and sees the first.
    perform 1 from es_projections p where p.projection_id = whole for update;
    -- Of two that arrive at once neither took itself for the last one, who finishes the tables.
    if (not is_finished or exists (select from es_projections p where p.projection_id = whole and p.late_indexes <> '{}'))
       and exists (select from es_projections p
                   where p.projection_id = whole and p.role = 'building' and p.built_xid is null)
       and (select bool_and(s.is_built) from es_subscriptions s where s.projection_id = whole) then
        update es_subscriptions s set is_built = false where s.subscription_id = es_go_live.subscription_id;
        return 'unfinished';
    end if;
    update es_projections p
    set built_at = now(), built_xid = pg_current_xact_id(), waiting_for = null,
        role = case when exists (select from es_projections o where o.projection_name = p.projection_name
                                                                and o.role = 'live') then p.role else 'live' end,
        live_at = case when exists (select from es_projections o where o.projection_name = p.projection_name
                                                                   and o.role = 'live') then null else now() end
    where p.projection_id = whole and p.role = 'building' and p.built_xid is null
      and (select bool_and(s.is_built) from es_subscriptions s where s.projection_id = whole)
    returning p.role into role_now;
    return case role_now when 'building' then 'built' else role_now end;
end
$$;

comment on function es_go_live(text, boolean) is
    'Notes that a subscription is built; with the last partition its version is `live`, `built` beside a live one, or `unfinished`: its tables want their indexes and statistics first.';

-- Splits a projection anew. Does nothing when it is split so already.
create function es_repartition(projection_id text, wanted integer) returns boolean
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    split record;
    start record;
begin
    perform 1 from es_subscriptions s where s.projection_id = es_repartition.projection_id
    order by s.subscription_id for update;
    -- A statement of its own: its snapshot is newer than the locks.
    select count(*) as rows, min(s.partitions) as partitions, min(s.subscription_id) as one, max(s.fence_token) as fence,
           bool_or(s.paused) as paused, bool_and(s.is_built) as is_built, sum(s.applied_events) as applied_events,
           min(s.drawn_position) as drawn, max(s.applied_position) as applied,
           jsonb_build_array(jsonb_build_object(
               'partitions', min(s.partitions),
               'cursors', jsonb_agg(jsonb_build_array(s.last_transaction_id::text, s.last_position)
                                    order by s.partition)))
           || coalesce((select jsonb_agg(distinct f.floor) from es_subscriptions o
                        cross join lateral jsonb_array_elements(o.floors) as f (floor)
                        where o.projection_id = es_repartition.projection_id), '[]') as floors
    into split
    from es_subscriptions s where s.projection_id = es_repartition.projection_id;
    if split.rows = 0 or split.partitions = es_repartition.wanted then
        return false;
    end if;
    select s.last_transaction_id as stamp, s.last_position as position, s.categories into start
    from es_subscriptions s where s.projection_id = es_repartition.projection_id
    order by s.last_transaction_id, s.last_position limit 1;

    -- The rows of the new split, beside those of the old one: dead letters refer to both for a moment.
    insert into es_subscriptions as s (
        subscription_id, last_transaction_id, last_position, categories, applied_position, drawn_position,
        fence_token, paused, partition, partitions, floors, is_built, applied_events)
    select es_partition_id(es_repartition.projection_id, p, es_repartition.wanted), start.stamp, start.position,
           start.categories, split.applied, split.drawn, split.fence + 1, split.paused, p, es_repartition.wanted,
           split.floors, split.is_built, case when p = 0 then split.applied_events else 0 end
    from generate_series(0, es_repartition.wanted - 1) p
    on conflict (subscription_id) do update
    set last_transaction_id = excluded.last_transaction_id, last_position = excluded.last_position,
        drawn_position = excluded.drawn_position, fence_token = excluded.fence_token, holder = null,
        paused = excluded.paused, is_built = excluded.is_built, applied_events = excluded.applied_events,
        partition = excluded.partition, partitions = excluded.partitions,
        floors = excluded.floors, unclean_takeovers = 0, attempted_position = null, crashed_position = null, crashes = 0;
    update es_dead_letters d
    set subscription_id = es_partition_id(
            es_repartition.projection_id, es_partition(d.stream_id, es_repartition.wanted), es_repartition.wanted)
    where d.subscription_id in (select s.subscription_id from es_subscriptions s
                                where s.projection_id = es_repartition.projection_id);
    update es_quarantined_streams q
    set subscription_id = es_partition_id(
            es_repartition.projection_id, es_partition(q.stream_id, es_repartition.wanted), es_repartition.wanted)
    where q.subscription_id in (select s.subscription_id from es_subscriptions s
                                where s.projection_id = es_repartition.projection_id);
    delete from es_subscriptions s
    where s.projection_id = es_repartition.projection_id and s.partitions <> es_repartition.wanted;
    update es_subscriptions s
    set dead_letters = (select count(*) from es_dead_letters d
                        where d.subscription_id = s.subscription_id and d.discarded_at is null),
        -- Where they all stood at one place there is nothing to remember.
        floors = case when es_is_past_all_floors(s.floors, s.last_transaction_id, s.last_position) then null
                      else s.floors end
    where s.projection_id = es_repartition.projection_id;
    delete from es_phases ph
    where split_part(ph.subscription_id, '/', 1) = es_repartition.projection_id
      and not exists (select from es_subscriptions s where s.subscription_id = ph.subscription_id);
    -- Running daemons follow this log: their subscriptions are others now.
    perform foldd.es_note('split', es_repartition.projection_id, 'foldd', null,
                          jsonb_build_object('partitions', split.partitions),
                          jsonb_build_object('partitions', es_repartition.wanted));
    return true;
end
$$;

comment on function es_repartition(text, integer) is
    'Splits a projection into another number of partitions, losing and doubling nothing; false when there is nothing to do.';
