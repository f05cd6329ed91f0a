-- The page readers: committed events after a cursor, in (transaction_id, global_position) order, below the
-- horizon. The Rust API and every projection read through these functions and no others, so there is one
-- place where order is decided.
--
--   horizon     null: the oldest transaction still running (tier 0), taken in the same statement as the data;
--               else one that was proven before this statement began
--   max_bytes   null: no bound; else the page ends before it would exceed them, but has at least one event
--
-- Each is a walk along one index and nothing else: the category is part of the row value on both sides, and
-- several categories are one such walk each. The settings keep it so when the planner knows nothing yet,
-- for example right after a table was analysed while empty. A plan step that is switched off and needed all
-- the same counts as enormously expensive, which would have every page compiled by the JIT: off as well.

-- The tier-0 horizon: every transaction with a lower xid has ended. The only function, beside es_stamp,
-- that looks at xids, so that both count in the same way.
create function es_horizon() returns xid8
language sql stable parallel safe
set search_path from current
return pg_snapshot_xmin(pg_current_snapshot());

comment on function es_horizon() is 'The tier-0 horizon of the calling statement: no transaction below it is still running.';

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
    horizon := coalesce(es_read_category_after.horizon, es_horizon());
    if es_read_category_after.max_bytes is null then
        return query
        select * from es_events e
        where (e.stream_category, e.transaction_id, e.global_position)
                > (es_read_category_after.category, es_read_category_after.after_transaction_id, es_read_category_after.after_position)
          and (e.stream_category, e.transaction_id) < (es_read_category_after.category, es_read_category_after.horizon)
        order by e.stream_category, e.transaction_id, e.global_position
        limit es_read_category_after.max_events;
        return;
    end if;
    for event in
        select * from es_events e
        where (e.stream_category, e.transaction_id, e.global_position)
                > (es_read_category_after.category, es_read_category_after.after_transaction_id, es_read_category_after.after_position)
          and (e.stream_category, e.transaction_id) < (es_read_category_after.category, es_read_category_after.horizon)
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
    horizon := coalesce(es_read_category_after.horizon, es_horizon());
    if es_read_category_after.max_bytes is null then
        return query
        select page.* from (select distinct unnest(es_read_category_after.categories)) as wanted (category)
        cross join lateral (
            select * from es_events e
            where (e.stream_category, e.transaction_id, e.global_position)
                    > (wanted.category, es_read_category_after.after_transaction_id, es_read_category_after.after_position)
              and (e.stream_category, e.transaction_id) < (wanted.category, es_read_category_after.horizon)
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
            where (e.stream_category, e.transaction_id, e.global_position)
                    > (wanted.category, es_read_category_after.after_transaction_id, es_read_category_after.after_position)
              and (e.stream_category, e.transaction_id) < (wanted.category, es_read_category_after.horizon)
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
    horizon := coalesce(es_read_all_after.horizon, es_horizon());
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
              where (e.stream_category, e.transaction_id, e.global_position)
                      > (category, es_extent_after.after_transaction_id, es_extent_after.after_position)
                and (e.stream_category, e.transaction_id) < (category, es_extent_after.horizon)
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
    where (e.stream_category, e.transaction_id, e.global_position)
            > (category, es_extent_after.after_transaction_id, es_extent_after.after_position)
      and (e.stream_category, e.transaction_id) < (category, es_extent_after.horizon)
    order by e.stream_category, e.transaction_id, e.global_position
    offset es_extent_after.events - 1 limit 1;
end
$$;

comment on function es_extent_after(text[], xid8, bigint, bigint, xid8, bigint) is
    'How far a page of es_read_after goes: its number of events, the oldest, the cursor of the last one.';

-- How many events of these categories (null: all) lie after the cursor and below the horizon.
create function es_count_after(
    categories text[], after_transaction_id xid8, after_position bigint, horizon xid8 default null) returns bigint
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off set enable_bitmapscan = off
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
                select count(*) as n from es_events e
                where (e.stream_category, e.transaction_id, e.global_position)
                        > (wanted.category, es_count_after.after_transaction_id, es_count_after.after_position)
                  and (e.stream_category, e.transaction_id) < (wanted.category, es_count_after.horizon)
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
