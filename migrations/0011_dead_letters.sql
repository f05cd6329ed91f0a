-- Events that are parked instead of applied, and how they are applied after all.
--
-- A batch that must pass an event by runs as a second compilation of its projection, which asks es_set_aside
-- first: it parks what is to be parked, in the transaction that moves the checkpoint, and says how far the
-- page goes. What is left is read through foldd_parking.es_page, which is also what `batch` means there.
--
--     FD008  more streams would be parked than the projection allows

create schema foldd_parking;
comment on schema foldd_parking is 'The relation `batch` as it is while events are parked or retried.';

-- Parks the events of a page that must not be applied: the one of `care.letter`, and all of quarantined
-- streams. Or, when `care.retry` names a stream, prepares its parked events that somebody wants retried,
-- the oldest first. A page with a letter ends there: the events before it are known to be
-- good, and of those behind it nothing is known yet. Leaves the bounds to es_page, and returns how far the
-- page goes: in a retry nowhere. `care.guard` asks for the look at the streams' order. `single` is the event of a page of one.
-- `own` is null, unless counts_own, where the subscription is split and nothing is to be parked: whoever meets the events
-- one by one counts them then, which saves a walk through the page.
create function foldd.es_set_aside(
    subscription_id text, categories text[], after_transaction_id xid8, after_position bigint, max_events bigint,
    horizon xid8, max_bytes bigint, care jsonb, counts_own boolean default true,
    out scanned bigint, out oldest timestamptz, out transaction_id xid8, out global_position bigint, out parked bigint,
    out single bigint, out own bigint)
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    letter jsonb := care -> 'letter';
    position_of_letter bigint := letter ->> 'position';
    retried text := care ->> 'retry';
    streams bigint;
    split record;
    is_plain boolean;
begin
    parked := 0;
    own := 0;
    select s.partition, s.partitions, s.floors into split from es_subscriptions s
    where s.subscription_id = es_set_aside.subscription_id;
    perform set_config('foldd.partition', split.partition::text, true),
            set_config('foldd.partitions', split.partitions::text, true),
            set_config('foldd.floors', coalesce(split.floors::text, ''), true),
            set_config('foldd.subscription', es_set_aside.subscription_id, true),
            set_config('foldd.retry', coalesce(retried, ''), true),
            set_config('foldd.categories', coalesce(es_set_aside.categories::text, ''), true),
            set_config('foldd.after_transaction_id', es_set_aside.after_transaction_id::text, true),
            set_config('foldd.after_position', es_set_aside.after_position::text, true),
            set_config('foldd.horizon', es_set_aside.horizon::text, true);
    if retried is not null then
        select count(*), min(e.created_at), case when count(*) = 1 then min(e.global_position) end
        into scanned, oldest, single
        from foldd.es_wanted(es_set_aside.subscription_id, retried, es_set_aside.max_events) e;
        own := scanned;
        transaction_id := es_set_aside.after_transaction_id;
        global_position := es_set_aside.after_position;
        perform set_config('foldd.page_events', scanned::text, true);
        return;
    end if;
    if (care ->> 'guard')::boolean and es_has_foreign_writes() then
        perform es_require_stream_order(
            es_set_aside.categories, es_set_aside.after_transaction_id, es_set_aside.after_position,
            es_set_aside.max_events, es_set_aside.horizon, es_set_aside.max_bytes);
    end if;
    if letter is not null then
        select count(*) into max_events
        from es_events l
        cross join lateral es_read_after(
            es_set_aside.categories, es_set_aside.after_transaction_id, es_set_aside.after_position,
            es_set_aside.max_events, es_set_aside.horizon, es_set_aside.max_bytes) e
        where l.global_position = position_of_letter
          and (e.transaction_id, e.global_position) <= (l.transaction_id, l.global_position);
    end if;
    select page.events, page.oldest, page.transaction_id, page.global_position,
           case when page.events = 1 then page.global_position end
    into scanned, oldest, transaction_id, global_position, single
    from es_reach_after(es_set_aside.categories, es_set_aside.after_transaction_id, es_set_aside.after_position,
                        es_set_aside.max_events, es_set_aside.horizon, es_set_aside.max_bytes) page;
    perform set_config('foldd.page_events', scanned::text, true);
    if scanned = 0 then
        return;
    end if;
    if (letter ->> 'quarantine')::boolean then
        insert into es_quarantined_streams (subscription_id, stream_id, since_version)
        select es_set_aside.subscription_id, e.stream_id, e.stream_version
        from es_events e where e.global_position = position_of_letter
        on conflict do nothing;
    end if;
    perform set_config('foldd.letter', coalesce(position_of_letter::text, ''), true);
    is_plain := letter is null
        and not exists (select from es_quarantined_streams q where q.subscription_id = es_set_aside.subscription_id);
    own := scanned;
    if split.partitions > 1 or split.floors is not null then
        own := null;
        single := null;
        if es_set_aside.counts_own or not is_plain then
            select count(*), case when count(*) = 1 then min(e.global_position) end into own, single
            from foldd.es_own_of_page() e;
        end if;
    end if;
    if is_plain then
        return;
    end if;
    insert into es_dead_letters (subscription_id, stream_id, stream_version, global_position, event_type, reason, error)
    select es_set_aside.subscription_id, e.stream_id, e.stream_version, e.global_position, e.event_type,
           case when e.global_position is distinct from position_of_letter then 'behind'
                when (letter ->> 'quarantine')::boolean then 'failed'
                else 'skipped' end,
           case when e.global_position = position_of_letter then letter -> 'error' end
    from foldd.es_parked_of_page() e;
    get diagnostics parked = row_count;
    if parked = 0 then
        return;
    end if;
    update es_subscriptions s set dead_letters = s.dead_letters + parked
    where s.subscription_id = es_set_aside.subscription_id;
    if letter is not null then
        select count(*) into streams
        from (select distinct d.stream_id from es_dead_letters d
              where d.subscription_id = es_set_aside.subscription_id and d.discarded_at is null) parked_streams;
        if streams > (letter ->> 'most_streams')::bigint then
            raise exception 'events of % streams would be parked, and max_quarantined_streams is %',
                streams, letter ->> 'most_streams' using errcode = 'FD008';
        end if;
    end if;
end
$$;

comment on function foldd.es_set_aside(text, text[], xid8, bigint, bigint, xid8, bigint, jsonb, boolean) is
    'Parks the events of a page that must not be applied; returns how far the page goes.';

-- The parked events of a stream that somebody wants retried, in stream order.
create function foldd.es_wanted(subscription_id text, stream_id text, max_events bigint) returns setof es_events
language sql stable
set search_path from current
begin atomic
    select e.* from es_dead_letters d join es_events e on e.global_position = d.global_position
    where d.subscription_id = es_wanted.subscription_id and d.stream_id = es_wanted.stream_id
      and d.discarded_at is null and d.retry_wanted_at is not null
    order by d.stream_version limit es_wanted.max_events;
end;

-- Parts of the page that es_set_aside prepared: what is the subscription's own where its projection is split, and of
-- that what is parked, and what is left. The page's length is known by then, so it is one walk along an index, which
-- ends with the page: an upper bound of three columns would let it go on to the end of the log. Only several categories
-- have to be merged again.
do $do$
declare
    half record;
begin
    for half in select * from (values
            ('foldd_parking.es_page', true,
             'e.global_position is distinct from letter
              and (e.stream_id not in (select q.stream_id from es_quarantined_streams q where q.subscription_id = subscription)
                   or e.stream_version < (select q.since_version from es_quarantined_streams q
                                          where q.subscription_id = subscription and q.stream_id = e.stream_id))'),
            ('foldd.es_parked_of_page', false,
             '(e.global_position = letter
               or e.stream_id in (select q.stream_id from es_quarantined_streams q where q.subscription_id = subscription)
                  and e.stream_version >= (select q.since_version from es_quarantined_streams q
                                           where q.subscription_id = subscription and q.stream_id = e.stream_id))'),
            ('foldd.es_own_of_page', false, 'true')) as given (name, is_rest, condition) loop
        execute format($create$
            create function %1$s() returns setof es_events
            language plpgsql stable rows 1000
            set search_path from current
            set jit = off set enable_seqscan = off set enable_bitmapscan = off
            as $$
            declare
                subscription text := current_setting('foldd.subscription');
                categories text[] := nullif(current_setting('foldd.categories'), '')::text[];
                letter bigint := nullif(current_setting('foldd.letter', true), '');
                partition integer := current_setting('foldd.partition');
                partitions integer := current_setting('foldd.partitions');
                floors jsonb := nullif(current_setting('foldd.floors'), '')::jsonb;
                from_xid xid8 := current_setting('foldd.after_transaction_id')::xid8;
                from_position bigint := current_setting('foldd.after_position');
                horizon xid8 := current_setting('foldd.horizon');
                page_events bigint := current_setting('foldd.page_events');
            begin
                if %2$L and current_setting('foldd.retry') <> '' then
                    return query select * from foldd.es_wanted(
                        subscription, current_setting('foldd.retry'), page_events);
                elsif cardinality(categories) = 1 then
                    return query
                    select e.* from (
                        select * from es_events p
                        where (p.stream_category, p.transaction_id, p.global_position) > (categories[1], from_xid, from_position)
                          and (p.stream_category, p.transaction_id) < (categories[1], horizon)
                        order by p.stream_category, p.transaction_id, p.global_position limit page_events) e
                    where %3$s;
                elsif categories is null then
                    return query
                    select e.* from (
                        select * from es_events p
                        where (p.transaction_id, p.global_position) > (from_xid, from_position)
                          and p.transaction_id < horizon
                        order by p.transaction_id, p.global_position limit page_events) e
                    where %3$s;
                else
                    return query
                    select e.* from es_read_category_after(categories, from_xid, from_position, page_events, horizon) e
                    where %3$s
                    order by e.transaction_id, e.global_position;
                end if;
            end
            $$
        -- Quarantined streams are hashed once a page, and the order of the index is kept; a join would look each event up.
        $create$, half.name, half.is_rest,
        '(partitions = 1 or es_partition(e.stream_id, partitions) = partition)
         and (floors is null or es_is_past_floors(floors, e.stream_id, e.transaction_id, e.global_position))
         and ' || half.condition);
    end loop;
end
$do$;

create view foldd_parking.batch as select * from foldd_parking.es_page();

-- What was retried is applied now: its letters go, and with the last one the quarantine of its stream. Says
-- whether events must still be passed by.
create function foldd.es_set_right(subscription_id text, care jsonb, applied bigint) returns boolean
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    retried text := care ->> 'retry';
    gone bigint;
begin
    if retried is not null then
        delete from es_dead_letters d
        where d.subscription_id = es_set_right.subscription_id
          and d.global_position in (
              select e.global_position from foldd.es_wanted(es_set_right.subscription_id, retried, applied) e);
        get diagnostics gone = row_count;
        update es_subscriptions s set dead_letters = s.dead_letters - gone
        where s.subscription_id = es_set_right.subscription_id;
        delete from es_quarantined_streams q
        where q.subscription_id = es_set_right.subscription_id and q.stream_id = retried
          and not exists (select from es_dead_letters d
                          where d.subscription_id = q.subscription_id and d.stream_id = q.stream_id
                            and d.discarded_at is null);
    end if;
    return exists (select from es_quarantined_streams q where q.subscription_id = es_set_right.subscription_id)
        or exists (select from es_subscriptions s where s.subscription_id = es_set_right.subscription_id
                   and (s.partitions > 1 or s.floors is not null));
end
$$;

comment on function foldd.es_set_right(text, jsonb, bigint) is
    'Deletes the letters of a retry that was applied, and lifts the quarantine with the last one.';

-- A retry failed on this event (null: on the first that was wanted): it and what comes after it in its stream stay
-- parked, what comes before it is still wanted. Only for the holder.
create function foldd.es_retry_failed(
    subscription_id text, fence_token bigint, stream_id text, failed_position bigint, error jsonb) returns void
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    failed_version bigint;
begin
    perform 1 from es_subscriptions s
    where s.subscription_id = es_retry_failed.subscription_id and s.fence_token = es_retry_failed.fence_token
    for key share;
    if not found then
        raise exception 'subscription % has a newer holder than fence token %',
            es_retry_failed.subscription_id, es_retry_failed.fence_token using errcode = 'FD001';
    end if;
    select min(d.stream_version) into failed_version from es_dead_letters d
    where d.subscription_id = es_retry_failed.subscription_id and d.stream_id = es_retry_failed.stream_id
      and d.discarded_at is null and d.retry_wanted_at is not null
      and d.global_position = coalesce(es_retry_failed.failed_position, d.global_position);
    update es_dead_letters d
    set retry_wanted_at = null,
        reason = case when d.stream_version = failed_version and d.reason = 'behind' then 'failed' else d.reason end,
        attempts = d.attempts + (d.stream_version = failed_version)::int,
        error = case when d.stream_version = failed_version then es_retry_failed.error else d.error end,
        last_failed_at = case when d.stream_version = failed_version then clock_timestamp() else d.last_failed_at end
    where d.subscription_id = es_retry_failed.subscription_id and d.stream_id = es_retry_failed.stream_id
      and d.discarded_at is null and d.retry_wanted_at is not null and d.stream_version >= failed_version;
end
$$;

comment on function foldd.es_retry_failed(text, bigint, text, bigint, jsonb) is
    'Notes on which event a retry failed; it and what comes after it in its stream stay parked.';
