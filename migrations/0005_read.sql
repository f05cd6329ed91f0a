-- The page readers: committed events after a cursor, in (transaction_id, global_position) order, below the
-- horizon. The Rust API and every projection read through these functions and no others, so there is one
-- place where order is decided.
--
--   horizon     null: the oldest transaction still running (tier 0), taken in the same statement as the data;
--               else one that was proven before this statement began
--   max_bytes   null: no bound; else the page ends before it would exceed them, but has at least one event
--
-- Each is a walk along one index and nothing else, and ends at the horizon however much was committed above it.
-- The category is compared as the only one of an array: as a plain equality it would fall out of the order that is
-- asked for, and the index of the whole log would do as well in the planner's eyes; as part of a row value it bounds
-- the walk, but only the first column of a row value ends one, and a reader behind a long transaction went through
-- everything above it. Several categories are one such walk each. The settings keep it so when the planner knows
-- nothing yet, for example right after a table was analysed while empty. A plan step that is switched off and needed all
-- the same counts as enormously expensive, which would have every page compiled by the JIT: off as well.

-- The tier-0 horizon: every transaction with a lower xid has ended.
create function es_horizon() returns xid8
language sql stable parallel safe
set search_path from current
return es_counted(pg_snapshot_xmin(pg_current_snapshot()));

comment on function es_horizon() is 'The tier-0 horizon of the calling statement: no transaction below it is still running.';

-- The same for a reader who has come this far. A cursor that is ahead of everything that this cluster can have
-- given out would get nothing, for ever, and then lose events: it came from another cluster. SQLSTATE ES004.
create function es_horizon_after(after_transaction_id xid8) returns xid8
language plpgsql stable
set search_path from current
as $$
begin
    if after_transaction_id > es_counted(pg_snapshot_xmax(pg_current_snapshot())) and not pg_is_in_recovery() then
        raise exception 'the cursor''s transaction % is ahead of this cluster, whose next one is %',
            after_transaction_id, es_counted(pg_snapshot_xmax(pg_current_snapshot()))
            using errcode = 'ES004', hint = 'Was the log restored, or is the cursor another log''s? `foldd doctor` knows.';
    end if;
    return es_horizon();
end
$$;

-- Why the horizon cannot be proven here, and so stands still behind every open transaction; null when it can.
create function es_why_unproven() returns text
language plpgsql stable security definer
set search_path from current
as $$
declare
    given text;
begin
    if pg_is_in_recovery() then
        return 'the server is a standby, which does not know the running transactions';
    end if;
    select pg_get_expr(d.adbin, d.adrelid) into given
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = 'es_events'::regclass and a.attname = 'transaction_id';
    if given is distinct from 'es_stamp()' then
        return format('the default of es_events.transaction_id is %s, not es_stamp(), and does not heed the floor',
                      coalesce(given, 'missing'));
    end if;
    -- Until then PREPARE gave a transaction's locks another virtual id, one lock after the other: for a moment an
    -- appender seemed to have its xid and no lock on es_events.
    if (current_setting('server_version_num')::integer between 130000 and 130004
        or current_setting('server_version_num')::integer = 140000)
        and current_setting('max_prepared_transactions')::integer > 0 then
        return 'PREPARE TRANSACTION is enabled and this minor release hides an appender that is being prepared; '
               '13.5 and 14.1 do not';
    end if;
    return null;
end
$$;

-- Whether a granted lock is one that whoever appends to this log holds. `here` is this database: locks in another one
-- concern another es_events. Without settings of its own, so that it is planned into its callers: it would be parsed
-- anew for each lock otherwise.
create function es_may_append(locktype text, database oid, relation oid, mode text, here oid) returns boolean
language sql stable
return es_may_append.locktype = 'relation' and es_may_append.relation = 'es_events'::regclass
    and es_may_append.database = es_may_append.here
    and es_may_append.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                               'ExclusiveLock', 'AccessExclusiveLock');

-- Whether a granted lock is the oath of a batch never to append to this log.
create function es_is_oath(
    locktype text, database oid, classid oid, objid oid, objsubid smallint, mode text, here oid) returns boolean
language sql stable
return es_is_oath.locktype = 'advisory' and es_is_oath.objsubid = 2 and es_is_oath.mode = 'ShareLock'
    and es_is_oath.classid = es_oath_class()::oid and es_is_oath.objid = 'es_events'::regclass
    and es_is_oath.database = es_is_oath.here;

-- The tier-1 horizon: beyond transactions that are still running, where those have proven harmless.
--
-- Whoever appends takes a ROW EXCLUSIVE lock on es_events before he reads the floor. So, once the floor is f, a
-- transaction is harmless below f if it holds no such lock: whatever it appends later will be stamped f or more. And
-- one that holds no such lock and has sworn not to append (es_swear_not_to_append) is harmless wherever the floor is:
-- our own batches, then, hold up nobody. The order of the steps is what makes that true:
--
--     1. the floor, which was raised before this call, or was not
--     2. a snapshot: who is running
--     3. the lock table, read after the snapshot was taken. Harmless is only who is seen there with his own xid and
--        without a lock on es_events. An xid that is not in the lock table yet has proven nothing.
--     4. the horizon; never beyond the snapshot itself, of which REPEATABLE READ may have an old one
--
-- The caller reads with a newer snapshot than this one: in a later statement. A prepared transaction keeps its locks and has no pid: hence virtualtransaction.
create function es_proven_horizon() returns xid8
language plpgsql volatile security definer
set search_path from current
set jit = off
as $$
declare
    here oid;
    floor xid8;
    horizon xid8;
begin
    if es_why_unproven() is not null then
        return es_horizon();
    end if;
    floor := coalesce(pg_sequence_last_value('es_stamp_floor'::regclass), 0)::text::xid8;
    here := (select d.oid from pg_database d where d.datname = current_database());
    with seen as materialized (
        select pg_current_snapshot() as snapshot
    ), locked as materialized (
        select l.transactionid, l.virtualtransaction,
               l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' as is_xid,
               es_may_append(l.locktype, l.database, l.relation, l.mode, here) as may_append,
               es_is_oath(l.locktype, l.database, l.classid, l.objid, l.objsubid, l.mode, here) as is_oath
        from pg_locks l, seen
        where l.granted and l.locktype in ('transactionid', 'relation', 'advisory')
    ), harmless as (
        select l.transactionid,
               l.virtualtransaction in (select o.virtualtransaction from locked o where o.is_oath) as is_sworn
        from locked l
        where l.is_xid and l.virtualtransaction not in (select a.virtualtransaction from locked a where a.may_append)
    ), running as (
        select es_counted(r.xid) as transaction_id, h.transactionid is not null as is_harmless,
               coalesce(h.is_sworn, false) as is_sworn
        from seen
        cross join lateral pg_snapshot_xip(seen.snapshot) as r (xid)
        left join harmless h on h.transactionid = r.xid::xid
    ), bounds as (
        select es_counted(pg_snapshot_xmin(seen.snapshot)) as oldest, es_counted(pg_snapshot_xmax(seen.snapshot)) as newest,
               (select r.transaction_id from running r where not r.is_harmless order by r.transaction_id limit 1) as suspect,
               (select r.transaction_id from running r where not r.is_sworn order by r.transaction_id limit 1) as unsworn
        from seen
    )
    select greatest(b.oldest, least(b.newest, b.unsworn), least(b.newest, b.suspect, floor)) into horizon from bounds b;
    return horizon;
end
$$;

comment on function es_proven_horizon() is
    'The tier-1 horizon, as far as floor and oaths allow: readers in later statements can stay below it. Tier 0 where nothing can be proven.';

create function es_read_category_after(
    category text, after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null) returns setof es_events
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    event es_events;
    bytes bigint := 0;
    found_one boolean := false;
begin
    horizon := coalesce(es_read_category_after.horizon, es_horizon_after(es_read_category_after.after_transaction_id));
    if es_read_category_after.max_bytes is null then
        return query
        select * from es_events e
        where e.stream_category = any (array[es_read_category_after.category])
          and (e.transaction_id, e.global_position)
                > (es_read_category_after.after_transaction_id, es_read_category_after.after_position)
          and e.transaction_id < es_read_category_after.horizon
        order by e.stream_category, e.transaction_id, e.global_position
        limit es_read_category_after.max_events;
        return;
    end if;
    for event in
        select * from es_events e
        where e.stream_category = any (array[es_read_category_after.category])
          and (e.transaction_id, e.global_position)
                > (es_read_category_after.after_transaction_id, es_read_category_after.after_position)
          and e.transaction_id < es_read_category_after.horizon
        order by e.stream_category, e.transaction_id, e.global_position
        limit es_read_category_after.max_events
    loop
        bytes := bytes + pg_column_size(event.data) + pg_column_size(event.metadata);
        exit when bytes > es_read_category_after.max_bytes and found_one;
        found_one := true;
        return next event;
    end loop;
end
$$;

comment on function es_read_category_after(text, xid8, bigint, bigint, xid8, bigint) is
    'One page of a category''s events after a cursor, in order and gapless up to the horizon.';

-- Several categories, merged in order. One that is named twice counts once.
create function es_read_category_after(
    categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null) returns setof es_events
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    event es_events;
    bytes bigint := 0;
    found_one boolean := false;
begin
    horizon := coalesce(es_read_category_after.horizon, es_horizon_after(es_read_category_after.after_transaction_id));
    if es_read_category_after.max_bytes is null then
        return query
        select page.* from (select distinct unnest(es_read_category_after.categories)) as wanted (category)
        cross join lateral (
            select * from es_events e
            where e.stream_category = any (array[wanted.category])
              and (e.transaction_id, e.global_position)
                    > (es_read_category_after.after_transaction_id, es_read_category_after.after_position)
              and e.transaction_id < es_read_category_after.horizon
            order by e.stream_category, e.transaction_id, e.global_position
            limit es_read_category_after.max_events
        ) page
        order by page.transaction_id, page.global_position
        limit es_read_category_after.max_events;
        return;
    end if;
    for event in
        select page.* from (select distinct unnest(es_read_category_after.categories)) as wanted (category)
        cross join lateral (
            select * from es_events e
            where e.stream_category = any (array[wanted.category])
              and (e.transaction_id, e.global_position)
                    > (es_read_category_after.after_transaction_id, es_read_category_after.after_position)
              and e.transaction_id < es_read_category_after.horizon
            order by e.stream_category, e.transaction_id, e.global_position
            limit es_read_category_after.max_events
        ) page
        order by page.transaction_id, page.global_position
        limit es_read_category_after.max_events
    loop
        bytes := bytes + pg_column_size(event.data) + pg_column_size(event.metadata);
        exit when bytes > es_read_category_after.max_bytes and found_one;
        found_one := true;
        return next event;
    end loop;
end
$$;

comment on function es_read_category_after(text[], xid8, bigint, bigint, xid8, bigint) is
    'One page of several categories'' events after a cursor, in order and gapless up to the horizon.';

create function es_read_all_after(
    after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null) returns setof es_events
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    event es_events;
    bytes bigint := 0;
    found_one boolean := false;
begin
    horizon := coalesce(es_read_all_after.horizon, es_horizon_after(es_read_all_after.after_transaction_id));
    if es_read_all_after.max_bytes is null then
        return query
        select * from es_events e
        where (e.transaction_id, e.global_position) > (es_read_all_after.after_transaction_id, es_read_all_after.after_position)
          and e.transaction_id < es_read_all_after.horizon
        order by e.transaction_id, e.global_position
        limit es_read_all_after.max_events;
        return;
    end if;
    for event in
        select * from es_events e
        where (e.transaction_id, e.global_position) > (es_read_all_after.after_transaction_id, es_read_all_after.after_position)
          and e.transaction_id < es_read_all_after.horizon
        order by e.transaction_id, e.global_position
        limit es_read_all_after.max_events
    loop
        bytes := bytes + pg_column_size(event.data) + pg_column_size(event.metadata);
        exit when bytes > es_read_all_after.max_bytes and found_one;
        found_one := true;
        return next event;
    end loop;
end
$$;

comment on function es_read_all_after(xid8, bigint, bigint, xid8, bigint) is
    'One page of all events after a cursor, in order and gapless up to the horizon.';

-- The three as one, for callers that hold their categories as an array: null is all of them.
create function es_read_after(
    categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null) returns setof es_events
language plpgsql stable
set search_path from current
as $$
begin
    if categories is null then
        return query select * from es_read_all_after(
            after_transaction_id, after_position, max_events, horizon, max_bytes);
    elsif cardinality(categories) = 1 then
        return query select * from es_read_category_after(
            categories[1], after_transaction_id, after_position, max_events, horizon, max_bytes);
    else
        return query select * from es_read_category_after(
            categories, after_transaction_id, after_position, max_events, horizon, max_bytes);
    end if;
end
$$;

-- How far one page goes, without its events: how many they are, how old the first one is, where the last one
-- stands. Counts what es_read_after returns for the same arguments, in the same order, without carrying it.
create function es_extent_after(
    categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null,
    out events bigint, out oldest timestamptz, out transaction_id xid8, out global_position bigint)
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    category text := case cardinality(categories) when 1 then categories[1] end;
    bytes    bigint;
    last     bigint[];
begin
    horizon := coalesce(es_extent_after.horizon, es_horizon());
    if category is not null then
        select count(*), min(page.created_at), sum(page.bytes) into events, oldest, bytes
        from (select e.created_at, pg_column_size(e.data) + pg_column_size(e.metadata) as bytes
              from es_events e
              where e.stream_category = any (array[category])
                and (e.transaction_id, e.global_position)
                      > (es_extent_after.after_transaction_id, es_extent_after.after_position)
                and e.transaction_id < es_extent_after.horizon
              order by e.stream_category, e.transaction_id, e.global_position
              limit es_extent_after.max_events) page;
    end if;
    -- Several categories are merged in order, and a bound of bytes is found event by event.
    if category is null or bytes > es_extent_after.max_bytes then
        select count(*), min(page.created_at),
               max(array[page.transaction_id::text::bigint, page.global_position])
        into events, oldest, last
        from es_read_after(es_extent_after.categories, es_extent_after.after_transaction_id,
                           es_extent_after.after_position, es_extent_after.max_events, es_extent_after.horizon,
                           es_extent_after.max_bytes) page;
        transaction_id := last[1]::text::xid8;
        global_position := last[2];
        return;
    elsif events = 0 then
        return;
    end if;
    select e.transaction_id, e.global_position into transaction_id, global_position from es_events e
    where e.stream_category = any (array[category])
      and (e.transaction_id, e.global_position)
            > (es_extent_after.after_transaction_id, es_extent_after.after_position)
      and e.transaction_id < es_extent_after.horizon
    order by e.stream_category, e.transaction_id, e.global_position
    offset es_extent_after.events - 1 limit 1;
end
$$;

comment on function es_extent_after(text[], xid8, bigint, bigint, xid8, bigint) is
    'How far a page of es_read_after goes: its number of events, the oldest, the cursor of the last one.';

-- The same of a large page, for what walking an index once costs: the events themselves are not looked at, but for a
-- sample of one in a hundred, evenly spread, at most five hundred. It says whether the bound of bytes may matter, and has to
-- leave the more room the smaller it is; where it does not, every event is counted after all. The oldest one is taken to be
-- the first.
create function es_reach_after(
    categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8 default null, max_bytes bigint default null,
    out events bigint, out oldest timestamptz, out transaction_id xid8, out global_position bigint)
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    category text := categories[1];
    first    record;
    stride   bigint := greatest(100, es_reach_after.max_events / 500);
    step     bigint;
    moved    bigint;
    sampled  bigint[] := '{}';
    bytes    numeric;
    ahead scroll cursor for
        select e.transaction_id, e.global_position from es_events e
        where e.stream_category = any (array[category])
          and (e.transaction_id, e.global_position)
                > (es_reach_after.after_transaction_id, es_reach_after.after_position)
          and e.transaction_id < es_reach_after.horizon
        order by e.stream_category, e.transaction_id, e.global_position;
begin
    horizon := coalesce(es_reach_after.horizon, es_horizon());
    if cardinality(categories) = 1 and es_reach_after.max_events >= 1000 then
        select e.global_position, e.created_at into first from es_events e
        where e.stream_category = any (array[category])
          and (e.transaction_id, e.global_position)
                > (es_reach_after.after_transaction_id, es_reach_after.after_position)
          and e.transaction_id < es_reach_after.horizon
        order by e.stream_category, e.transaction_id, e.global_position limit 1;
        if not found then
            events := 0;
            return;
        end if;
        oldest := first.created_at;
        -- Moving counts, and where it ends is the last event so far.
        events := 0;
        open ahead;
        loop
            step := least(stride, es_reach_after.max_events - events);
            exit when step = 0;
            move forward step in ahead;
            get diagnostics moved = row_count;
            events := events + moved;
            if moved < step then
                fetch prior from ahead into transaction_id, global_position;
                exit;
            end if;
            fetch relative 0 from ahead into transaction_id, global_position;
            sampled := sampled || es_reach_after.global_position;
        end loop;
        close ahead;
        if es_reach_after.max_bytes is null then
            return;
        end if;
        if cardinality(sampled) >= 10 then
            select avg(pg_column_size(e.data) + pg_column_size(e.metadata)) * es_reach_after.events into bytes
            from unnest(sampled) as sample (position)
            join es_events e on e.global_position = sample.position;
        end if;
        if bytes * 1000 / cardinality(sampled) < es_reach_after.max_bytes then
            return;
        end if;
    end if;
    select page.events, page.oldest, page.transaction_id, page.global_position
    into events, oldest, transaction_id, global_position
    from es_extent_after(es_reach_after.categories, es_reach_after.after_transaction_id, es_reach_after.after_position,
                         es_reach_after.max_events, es_reach_after.horizon, es_reach_after.max_bytes) page;
end
$$;

comment on function es_reach_after(text[], xid8, bigint, bigint, xid8, bigint) is
    'es_extent_after for large pages: counts an index, and bytes by a sample while that is enough.';

-- The same of a page that has all there is of a category below the horizon, where a count before says how many those
-- are: nothing is walked. Where that may be more than `max_bytes`, by a sample of blocks, or where the sample is small,
-- there is no transaction_id, and es_reach_after is asked. Whoever reads the page is bounded by the horizon then and
-- not by the count, so that a wrong one is a wrong number and no lost event.
create function es_rest_after(
    category text, after_transaction_id xid8, after_position bigint, horizon xid8, rest bigint, max_bytes bigint,
    out oldest timestamptz, out transaction_id xid8, out global_position bigint)
language plpgsql volatile
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    blocks numeric := pg_relation_size('es_events') / current_setting('block_size')::numeric;
    sample record;
begin
    select count(*) as events, avg(pg_column_size(e.data) + pg_column_size(e.metadata)) as bytes into sample
    from es_events e tablesample system (least(100, 100 * 300 / greatest(blocks, 1)))
    where e.stream_category = es_rest_after.category
      and (e.transaction_id, e.global_position) > (es_rest_after.after_transaction_id, es_rest_after.after_position);
    if sample.events < 100 or sample.bytes * es_rest_after.rest * 2 >= es_rest_after.max_bytes then
        return;
    end if;
    select e.created_at into oldest from es_events e
    where e.stream_category = any (array[es_rest_after.category])
      and (e.transaction_id, e.global_position)
            > (es_rest_after.after_transaction_id, es_rest_after.after_position)
      and e.transaction_id < es_rest_after.horizon
    order by e.stream_category, e.transaction_id, e.global_position limit 1;
    select e.transaction_id, e.global_position into transaction_id, global_position from es_events e
    where e.stream_category = any (array[es_rest_after.category])
      and (e.transaction_id, e.global_position)
            > (es_rest_after.after_transaction_id, es_rest_after.after_position)
      and e.transaction_id < es_rest_after.horizon
    order by e.stream_category desc, e.transaction_id desc, e.global_position desc limit 1;
end
$$;

comment on function es_rest_after(text, xid8, bigint, xid8, bigint, bigint) is
    'How far everything goes that a category has below the horizon, without walking it.';

-- How many events of these categories (null: all) lie after the cursor and below the horizon. Ordered for the index's
-- sake, as every reader is.
create function es_count_after(
    categories text[], after_transaction_id xid8, after_position bigint, horizon xid8 default null) returns bigint
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
#variable_conflict use_column
begin
    horizon := coalesce(es_count_after.horizon, es_horizon());
    if es_count_after.categories is null then
        return (select count(*) from es_events e
                where (e.transaction_id, e.global_position)
                        > (es_count_after.after_transaction_id, es_count_after.after_position)
                  and e.transaction_id < es_count_after.horizon);
    end if;
    return (select coalesce(sum(counted.n), 0)
            from (select distinct unnest(es_count_after.categories)) as wanted (category)
            cross join lateral (
                select count(*) as n
                from (select from es_events e
                      where e.stream_category = any (array[wanted.category])
                        and (e.transaction_id, e.global_position)
                              > (es_count_after.after_transaction_id, es_count_after.after_position)
                        and e.transaction_id < es_count_after.horizon
                      order by e.stream_category, e.transaction_id, e.global_position) own
            ) counted);
end
$$;

comment on function es_count_after(text[], xid8, bigint, xid8) is
    'Counts the events of these categories (null: all) after a cursor and below the horizon.';

-- How many events each category gained between two horizons: what a watcher asks at every tick. The order asked for
-- inside, with sorting disabled, leaves only the index that is bounded by the horizons: planned while the log was
-- empty, it read all of the category index instead.
create function es_growth(since xid8, horizon xid8) returns table (category text, events bigint)
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
begin
    return query
        select grown.stream_category, count(*)
        from (select e.stream_category from es_events e
              where e.transaction_id >= es_growth.since and e.transaction_id < es_growth.horizon
              order by e.transaction_id, e.global_position) grown
        group by grown.stream_category;
end
$$;

comment on function es_growth(xid8, xid8) is
    'How many events each category gained between two horizons.';

-- A watcher's look: how far the log can be read, proven only where `proves` and where events wait behind the oldest
-- transaction; the newest position; whether committed events still wait; and what each category gained since the
-- horizon of the look before, in as many rows, at least one. Each step is a statement of its own, so that what is read
-- is newer than the proof. Of an earlier life of the server, which the incarnation tells, `since` means nothing.
create function es_look(
    since xid8, proves boolean,
    out horizon xid8, out incarnation uuid, out head bigint, out withholds boolean, out category text, out events bigint)
returns setof record
language plpgsql volatile
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    newest xid8;
begin
    -- First: should a standby be promoted in between, the horizon goes by its old life, and no batch takes it.
    es_look.incarnation := es_current_incarnation();
    es_look.horizon := es_horizon();
    newest := (select e.transaction_id from es_events e order by e.transaction_id desc, e.global_position desc limit 1);
    if es_look.proves and newest >= greatest(es_look.horizon, es_look.since) then
        es_look.horizon := es_proven_horizon();
        newest := (select e.transaction_id from es_events e order by e.transaction_id desc, e.global_position desc limit 1);
    end if;
    es_look.head := (select coalesce(max(e.global_position), 0) from es_events e);
    es_look.withholds := coalesce(newest >= greatest(es_look.horizon, es_look.since), false);
    return query
        select es_look.horizon, es_look.incarnation, es_look.head, es_look.withholds, g.category, g.events
        from (select 1) as one left join lateral es_growth(es_look.since, es_look.horizon) g on es_look.since is not null;
end
$$;

comment on function es_look(xid8, boolean) is
    'One look at the log for a watcher: the horizon, whether events wait behind it, and what each category gained.';

-- Fails where a stream's versions do not follow one another within a page, as writers can leave it that insert without
-- es_append: a projection would apply them in the wrong order.
create function es_require_stream_order(
    categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8, max_bytes bigint) returns void
language plpgsql stable
set search_path from current
set jit = off
as $$
declare
    broken record;
begin
    select page.* into broken
    from (select e.*, lag(e.stream_version) over (partition by e.stream_id order by e.transaction_id, e.global_position)
                      as version_before
          from es_read_after(categories, after_transaction_id, after_position, max_events, horizon, max_bytes) e) page
    where page.version_before <> page.stream_version - 1
    order by page.transaction_id, page.global_position limit 1;
    if found then
        raise exception 'version % of stream % comes after version %, at position %: a writer inserted it without es_append',
            broken.stream_version, quote_literal(broken.stream_id), broken.version_before, broken.global_position
            using errcode = 'FD005';
    end if;
end
$$;

comment on function es_require_stream_order(text[], xid8, bigint, bigint, xid8, bigint) is
    'Fails where a stream''s versions do not follow one another within a page.';
