-- Appending, from any language. See docs of es_append below for the contract.
--
-- Errors that a caller can act on have SQLSTATEs of their own and carry their facts as JSON in DETAIL:
--     ES001  the stream is not at the expected version   {"stream_id", "expected", "actual"}
--     ES002  an event_id is already in the log           {"event_id", "stream_id", "stream_version"}

-- A repeated event_id wins over a version conflict: after a lost answer the retry must learn that its
-- first try got through, not that "somebody" was faster.
create function es_raise_conflict(stream_id text, expected_version bigint, event_ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    twin   record;
    actual bigint;
begin
    select e.event_id, e.stream_id, e.stream_version into twin
    from es_events e where e.event_id = any (es_raise_conflict.event_ids)
    order by e.global_position limit 1;
    if found then
        raise exception 'event_id % is already in the log, as version % of stream %',
            twin.event_id, twin.stream_version, quote_literal(twin.stream_id)
            using errcode = 'ES002',
                  detail = json_build_object('event_id', twin.event_id, 'stream_id', twin.stream_id,
                                             'stream_version', twin.stream_version)::text;
    end if;

    select s.stream_version into actual from es_streams s where s.stream_id = es_raise_conflict.stream_id;
    raise exception 'stream % %, expected %', quote_literal(es_raise_conflict.stream_id),
        coalesce('is at version ' || actual, 'does not exist'),
        case es_raise_conflict.expected_version when -1 then 'no stream'
             else 'version ' || es_raise_conflict.expected_version end
        using errcode = 'ES001',
              detail = json_build_object('stream_id', es_raise_conflict.stream_id,
                                         'expected', es_raise_conflict.expected_version,
                                         'actual', actual)::text;
end
$$;

create function es_category_of(stream_id text) returns text
language plpgsql immutable strict parallel safe
set search_path from current
as $$
begin
    if position('-' in es_category_of.stream_id) < 2 then
        raise exception 'stream % has no category: its name has no dash after a first word',
            quote_literal(left(es_category_of.stream_id, 200))
            using errcode = 'invalid_parameter_value',
                  hint = 'Name the stream category-id, or give the category.';
    end if;
    return split_part(es_category_of.stream_id, '-', 1);
end
$$;

comment on function es_category_of(text) is 'The category of a stream by its name: what stands before the first dash.';

-- An empty name is a mistake of the caller's: nothing could select it, and no import would take it back.
create function es_refuse_empty(names text[]) returns void
language plpgsql immutable
set search_path from current
as $$
begin
    if array_position(names, '') is not null then
        raise exception 'stream_id, category and event_type must not be empty'
            using errcode = 'invalid_parameter_value',
                  hint = 'Name them; the category may be null, and is then that of the stream.';
    end if;
end
$$;

-- Appends any number of events to one stream in one round trip.
--
--   expected_version   null: any; -1: the stream must not exist; else: it must be at exactly this version
--   category           null: the stream's own, or its name up to the first dash when it is new
--   metadata           null: '{}' for every event
--   event_ids          null: drawn at random; given ones make a retry after a lost answer safe (ES002)
--
-- Returns the stream's new version and the cursor of the last event. Without events it returns where the
-- stream stands, after the expectation was checked.
create function es_append(
    stream_id text, category text, expected_version bigint,
    event_types text[], data jsonb[], metadata jsonb[] default null, event_ids uuid[] default null,
    out version bigint, out transaction_id xid8, out global_position bigint)
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    n         bigint := cardinality(es_append.event_types);
    positions bigint[];
    home      text := es_append.category;
    kind      text;
begin
    if es_append.stream_id is null or es_append.stream_id = '' then
        raise exception 'an event needs a stream_id' using errcode = 'invalid_parameter_value';
    end if;
    if n is null or es_append.data is null then
        raise exception 'event_types and data must be arrays, not null; append no events with empty ones'
            using errcode = 'null_value_not_allowed';
    end if;
    if n <> cardinality(es_append.data)
        or cardinality(es_append.metadata) <> n or cardinality(es_append.event_ids) <> n then
        raise exception 'event_types, data, metadata and event_ids must be equally long, got %, %, % and %',
            n, cardinality(es_append.data), cardinality(es_append.metadata), cardinality(es_append.event_ids)
            using errcode = 'array_subscript_error';
    end if;
    if array_position(es_append.event_types, null) is not null or array_position(es_append.data, null) is not null
        or array_position(es_append.metadata, null) is not null
        or array_position(es_append.event_ids, null) is not null then
        raise exception 'event_types, data, metadata and event_ids must not contain nulls'
            using errcode = 'null_value_not_allowed';
    end if;
    perform es_refuse_empty(es_append.event_types || es_append.category);

    if n = 0 then
        select s.stream_version, e.transaction_id, e.global_position into version, transaction_id, global_position
        from es_streams s
        left join es_events e on e.stream_id = s.stream_id and e.stream_version = s.stream_version
        where s.stream_id = es_append.stream_id;
        if es_append.expected_version is not null
            and coalesce(version, -1) is distinct from es_append.expected_version then
            perform es_raise_conflict(es_append.stream_id, es_append.expected_version, null);
        end if;
        version := coalesce(version, 0);
        return;
    end if;

    -- The floor is read below, by es_next_stamp, and must be read after this lock.
    lock table es_events in row exclusive mode;

    if es_append.category is null and coalesce(es_append.expected_version, -1) = -1 then
        select s.stream_category into home from es_streams s where s.stream_id = es_append.stream_id;
        -- Not by coalesce: the planner computes an immutable function of a parameter before it is needed.
        if not found then
            home := es_category_of(es_append.stream_id);
        end if;
    end if;
    if es_append.expected_version is null then
        insert into es_streams as s (stream_id, stream_category, stream_version, last_transaction_id)
        values (es_append.stream_id, home, n, es_next_stamp())
        on conflict (stream_id) do update
        set stream_version = s.stream_version + n,
            last_transaction_id = greatest(excluded.last_transaction_id, s.last_transaction_id),
            updated_at = now()
        returning s.stream_version, s.last_transaction_id, s.stream_category into version, transaction_id, kind;
    elsif es_append.expected_version = -1 then
        insert into es_streams as s (stream_id, stream_category, stream_version, last_transaction_id)
        values (es_append.stream_id, home, n, es_next_stamp())
        on conflict (stream_id) do nothing
        returning s.stream_version, s.last_transaction_id, s.stream_category into version, transaction_id, kind;
    else
        update es_streams s
        set stream_version = s.stream_version + n,
            last_transaction_id = greatest(es_next_stamp(), s.last_transaction_id),
            updated_at = now()
        where s.stream_id = es_append.stream_id and s.stream_version = es_append.expected_version
        returning s.stream_version, s.last_transaction_id, s.stream_category into version, transaction_id, kind;
    end if;
    if version is null then
        perform es_raise_conflict(es_append.stream_id, es_append.expected_version, es_append.event_ids);
    end if;
    if kind <> es_append.category then
        raise exception 'stream % belongs to category %, not %', quote_literal(es_append.stream_id),
            quote_literal(kind), quote_literal(es_append.category)
            using errcode = 'invalid_parameter_value';
    end if;

    with appended as (
        insert into es_events as e (stream_id, stream_category, stream_version, event_type, data, metadata,
                                    transaction_id, event_id)
        select es_append.stream_id, kind, es_append.version - n + given.nth, given.event_type, given.data,
               coalesce(given.metadata, '{}'), es_append.transaction_id, coalesce(given.event_id, gen_random_uuid())
        from unnest(es_append.event_types, es_append.data, es_append.metadata, es_append.event_ids)
             with ordinality as given (event_type, data, metadata, event_id, nth)
        on conflict (event_id) do nothing
        returning e.transaction_id, e.global_position
    )
    select array_agg(appended.global_position), max(appended.global_position)
    into positions, global_position from appended;
    if n > coalesce(cardinality(positions), 0) then
        perform es_raise_duplicate(positions, es_append.event_ids);
    end if;
end
$$;

comment on function es_append(text, text, bigint, text[], jsonb[], jsonb[], uuid[]) is
    'Appends events to one stream. Expected version: null any, -1 no stream, else exactly that one. SQLSTATE ES001: version conflict; ES002: event_id already in the log.';

-- Called after some events were left out because of their id: finds one, which either is older than this append
-- or was given twice in it. `positions` are those that this append did insert.
create function es_raise_duplicate(positions bigint[], event_ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    given uuid;
begin
    select e.event_id into given from es_events e
    where e.event_id = any (es_raise_duplicate.event_ids)
      and not exists (select from unnest(es_raise_duplicate.positions) own where own = e.global_position)
    order by e.global_position limit 1;
    if found then
        perform es_raise_conflict(null, null, array[given]);
    end if;
    select id into given from unnest(es_raise_duplicate.event_ids) id group by id having count(*) > 1 limit 1;
    raise exception 'event_id % is given twice in one append', given
        using errcode = 'ES002',
              detail = json_build_object('event_id', given, 'stream_id', null, 'stream_version', null)::text;
end
$$;

-- Appends a block of events of many streams, in the order given, each stream at whatever version it has:
-- what `foldd import` calls. One stamp for the block, unless a stream is already past it. Returns how many, and
-- the cursor of the one that is read last.
--
-- Streams are locked in sorted order, so that imports beside each other rarely deadlock (a stream that both create
-- can still cross them; one is told to try again). The planner knows nothing of the
-- size of arrays and would choose nested loops over ten thousand rows each.
create function es_append_many(
    stream_ids text[], categories text[], event_types text[], data jsonb[], metadata jsonb[], event_ids uuid[],
    out events bigint, out transaction_id xid8, out global_position bigint)
language plpgsql volatile
set search_path from current
set jit = off set enable_nestloop = off
as $$
#variable_conflict use_column
declare
    stamp     xid8;
    stray     text;
    last      bigint[];
    positions bigint[];
begin
    perform es_refuse_empty(es_append_many.stream_ids || es_append_many.categories || es_append_many.event_types);
    lock table es_events in row exclusive mode;

    select locked.last_transaction_id into stamp
    from (select s.last_transaction_id from es_streams s
          where s.stream_id = any (es_append_many.stream_ids) order by s.stream_id for no key update) locked
    order by 1 desc limit 1;
    stamp := greatest(stamp, es_next_stamp());

    with given as (
        select *, row_number() over (partition by stream_id order by nth) as step,
               count(*) over (partition by stream_id) as steps
        from unnest(es_append_many.stream_ids, es_append_many.categories, es_append_many.event_types,
                    es_append_many.data, es_append_many.metadata, es_append_many.event_ids)
             with ordinality as given (stream_id, category, event_type, data, metadata, event_id, nth)
    ), grown as (
        insert into es_streams as s (stream_id, stream_category, stream_version, last_transaction_id)
        select stream_id, coalesce(max(category),
                                   (select x.stream_category from es_streams x where x.stream_id = given.stream_id),
                                   es_category_of(stream_id)), count(*), stamp
        from given group by stream_id order by stream_id
        on conflict (stream_id) do update
        set stream_version = s.stream_version + excluded.stream_version,
            last_transaction_id = greatest(excluded.last_transaction_id, s.last_transaction_id),
            updated_at = now()
        returning s.stream_id, s.stream_category, s.stream_version, s.last_transaction_id
    ), appended as (
        insert into es_events as e (stream_id, stream_category, stream_version, event_type, data, metadata,
                                    transaction_id, event_id)
        select given.stream_id, grown.stream_category, grown.stream_version - given.steps + given.step,
               given.event_type, given.data, given.metadata, grown.last_transaction_id, given.event_id
        from given join grown using (stream_id)
        order by given.nth
        on conflict (event_id) do nothing
        returning e.transaction_id, e.global_position
    )
    select array_agg(appended.global_position),
           max(array[appended.transaction_id::text::bigint, appended.global_position]),
           (select format('stream %L belongs to category %L, not %L', given.stream_id, grown.stream_category, given.category)
            from given join grown using (stream_id) where given.category <> grown.stream_category limit 1)
    into positions, last, stray from appended;
    if stray is not null then
        raise exception '%', stray using errcode = 'invalid_parameter_value';
    end if;
    events := coalesce(cardinality(positions), 0);
    transaction_id := last[1]::text::xid8;
    global_position := last[2];
    if events < cardinality(es_append_many.event_types) then
        perform es_raise_duplicate(positions, es_append_many.event_ids);
    end if;
end
$$;
