-- What every batch does in the same words: enter behind the fence, read the page, advance.
--
--     FD001  the lease was lost: somebody holds a newer fence token
--     FD002  the checkpoint is not where this holder left it
--     FD003  the horizon is of an earlier life of this server
--     FD006  an operator paused the subscription
--     FD007  not every event of a page is its own or may be applied, and the caller would apply them all

create schema foldd;
comment on schema foldd is 'What foldd compiles projections into. Nothing here is yours to call.';

-- First statement of every batch. Checks the fence, holding off nobody: `for key share` lets a takeover
-- through, which es_advance then notices. Only afterwards, in a later statement and so with a newer
-- snapshot, it asks what may have changed while it waited: where the projection's tables are, by OID, since
-- a cut-over renames schemas, and a name read before waiting would write into the other version's tables;
-- and whether streams are quarantined. Whether it is one partition of several stands in the row itself. `batches` is the schema whose `batch` handlers see: null for the
-- usual one. Returns the search path of the handlers.
create function foldd.es_enter(
    subscription_id text, fence_token bigint, incarnation uuid, schema_oid oid, extension_schemas text[], batches text)
returns text
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    home text;
    is_paused boolean;
    is_part boolean;
    is_built boolean;
    has_quarantined boolean;
begin
    select s.paused, s.partitions > 1 or s.floors is not null, s.is_built into is_paused, is_part, is_built
    from es_subscriptions s
    where s.subscription_id = es_enter.subscription_id and s.fence_token = es_enter.fence_token
    for key share;
    if not found then
        raise exception 'subscription % has a newer holder than fence token %',
            es_enter.subscription_id, es_enter.fence_token using errcode = 'FD001';
    end if;
    if is_paused then
        raise exception 'subscription % is paused', es_enter.subscription_id using errcode = 'FD006';
    end if;
    if es_current_incarnation() is distinct from es_enter.incarnation then
        raise exception 'the horizon was seen before the server restarted' using errcode = 'FD003';
    end if;
    -- Nothing is promised yet of what is being built. A crash of the server takes back effect and checkpoint together, by
    -- less than a second, and they are folded again; the transaction that ends the load waits for all before it.
    if not is_built then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    select n.nspname, exists (select from es_quarantined_streams q where q.subscription_id = es_enter.subscription_id)
    into home, has_quarantined
    from pg_namespace n where n.oid = es_enter.schema_oid;
    if not found then
        raise exception 'the schema of subscription % is gone (oid %)', es_enter.subscription_id, es_enter.schema_oid
            using errcode = 'invalid_schema_name',
                  hint = 'Its tables were dropped or restored from a dump behind foldd''s back.';
    end if;
    if (has_quarantined or is_part) and es_enter.batches is distinct from 'foldd_parking' then
        raise exception 'subscription % must pass events by', es_enter.subscription_id using errcode = 'FD007';
    end if;
    return concat_ws(', ', quote_ident(home), es_enter.batches, 'foldd',
                     (select string_agg(quote_ident(x), ', ' order by nth)
                      from unnest(es_enter.extension_schemas) with ordinality as given (x, nth)),
                     'pg_catalog', 'pg_temp');
end
$$;

-- The greatest position that has been drawn. Security definer: it needs a right on the sequence.
create function es_drawn_position() returns bigint
language sql volatile security definer
set search_path from current
return pg_sequence_last_value(pg_get_serial_sequence('es_events', 'global_position')::regclass);

-- Last statement of every batch: compare and set. The fence alone would apply a batch twice after a commit
-- whose answer was lost; the old cursor alone would trust a holder that was replaced.
create function es_advance(
    subscription_id text, fence_token bigint, old_transaction_id xid8, old_position bigint,
    new_transaction_id xid8, new_position bigint, applied_position bigint, own bigint) returns void
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    held bigint;
begin
    update es_subscriptions s
    set last_transaction_id = es_advance.new_transaction_id,
        last_position = es_advance.new_position,
        applied_position = greatest(s.applied_position, es_advance.applied_position),
        applied_events = s.applied_events + es_advance.own,
        drawn_position = es_drawn_position(),
        -- While events are tried one by one, one that went well says nothing of the next.
        unclean_takeovers = case when s.attempted_position is null then 0 else s.unclean_takeovers end,
        crashed_position = null,
        crashes = 0,
        floors = case when s.floors is not null and not es_is_past_all_floors(
                     s.floors, es_advance.new_transaction_id, es_advance.new_position) then s.floors end,
        updated_at = now()
    where s.subscription_id = es_advance.subscription_id
      and s.fence_token = es_advance.fence_token
      and s.last_transaction_id = es_advance.old_transaction_id
      and s.last_position = es_advance.old_position
      and (es_advance.new_transaction_id, es_advance.new_position)
            >= (es_advance.old_transaction_id, es_advance.old_position);
    if found then
        return;
    end if;
    select s.fence_token into held from es_subscriptions s where s.subscription_id = es_advance.subscription_id;
    if held is distinct from es_advance.fence_token then
        raise exception 'subscription % has a newer holder than fence token %',
            es_advance.subscription_id, es_advance.fence_token using errcode = 'FD001';
    end if;
    raise exception 'the checkpoint of subscription % is not at %:% any more',
        es_advance.subscription_id, es_advance.old_transaction_id, es_advance.old_position using errcode = 'FD002';
end
$$;

comment on function es_advance(text, bigint, xid8, bigint, xid8, bigint, bigint, bigint) is
    'Moves a checkpoint by compare-and-set on fence token and old cursor; raises FD001 or FD002, else it has moved.';

-- The relation `batch` of set-based handlers. The bounds come from settings of the transaction, which the
-- planner cannot see: shown to it, it took them for rare values and misplanned joins by a factor of 500.
-- It exists as a small page and as a large one, which is announced as such: while far behind, that makes the planner
-- choose hash joins over hundreds of thousands of index probes.
create schema foldd_bulk;
comment on schema foldd_bulk is 'The relation `batch` as it is planned while a projection is far behind.';
create schema foldd_unordered;
comment on schema foldd_unordered is 'The same relation, where it is most of the log and its order is of no matter.';

do $do$
declare
    home record;
begin
    for home in select * from (values ('foldd', 1000), ('foldd_bulk', 200000)) as given (name, announced) loop
        execute format($create$
            create function %1$I.es_page() returns setof es_events
            language plpgsql stable rows %2$s
            set search_path from current
            as $$
            declare
                categories text[] := nullif(current_setting('foldd.categories'), '');
            begin
                -- es_read_after would do for both, and would pass every event on once more.
                if cardinality(categories) = 1 then
                    return query select * from es_read_category_after(
                        categories[1],
                        current_setting('foldd.after_transaction_id')::xid8,
                        current_setting('foldd.after_position')::bigint,
                        current_setting('foldd.page_events')::bigint,
                        current_setting('foldd.horizon')::xid8);
                else
                    return query select * from es_read_after(
                        categories,
                        current_setting('foldd.after_transaction_id')::xid8,
                        current_setting('foldd.after_position')::bigint,
                        current_setting('foldd.page_events')::bigint,
                        current_setting('foldd.horizon')::xid8);
                end if;
            end
            $$
        $create$, home.name, home.announced);
    end loop;
end
$do$;

create view foldd.batch as select * from foldd.es_page();

-- A large page of one category is read from the index as it is: passed on by functions, each of its events would be
-- stored twice on its way. Where it ends is known by then, and the limit ends the scan there. The function's branch is
-- for several categories; where it is not taken, it still announces its rows, which the planner could not see behind the
-- settings. The limit shuts the branch that is not meant: as a condition, it would copy each event once more. Row values,
-- since no other index can serve them.
create view foldd_bulk.batch as
    (select * from es_events e
     where (e.stream_category, e.transaction_id, e.global_position)
             > (current_setting('foldd.category'), current_setting('foldd.after_transaction_id')::xid8,
                current_setting('foldd.after_position')::bigint)
       and (e.stream_category, e.transaction_id)
             < (current_setting('foldd.category'), current_setting('foldd.horizon')::xid8)
     order by e.stream_category, e.transaction_id, e.global_position
     limit case when current_setting('foldd.category') = '' then 0 else current_setting('foldd.page_events')::bigint end)
    union all
    select * from foldd_bulk.es_page() where current_setting('foldd.category') = '';

-- The same for statements that cannot tell in what order they meet the events, where a page is most of the log: a table is
-- read faster as it lies than by its index. No condition is of a form that an index could serve, so that no estimate
-- decides otherwise.
create view foldd_unordered.batch as
    select * from es_events e
    where e.stream_category is not distinct from (select current_setting('foldd.category'))
      and not (e.transaction_id, e.global_position)
                <= ((select current_setting('foldd.after_transaction_id')::xid8), (select current_setting('foldd.after_position')::bigint))
      and not (e.transaction_id, e.global_position)
                > ((select current_setting('foldd.last_transaction_id')::xid8), (select current_setting('foldd.last_position')::bigint));

-- What a statement over a large page may use for sorting and hashing: as much as a page may have bytes, up to 64 MiB.
create function foldd.es_make_room(max_bytes bigint) returns void
language sql volatile
set search_path from current
begin atomic
    select set_config('work_mem', greatest(least(es_make_room.max_bytes, 67108864), pg_size_bytes(current_setting('work_mem'))) / 1024 || 'kB', true);
end;

-- What a compiled projection returns: how far it came, or which event failed and how.
create type foldd.es_outcome as (
    scanned         bigint,
    skipped         bigint,
    transaction_id  xid8,
    global_position bigint,
    oldest_seconds  double precision,
    failed_position bigint,
    sqlstate        text,
    message         text,
    detail          text,
    hint            text,
    context         text,
    parked          bigint,
    own             bigint,
    quarantined     boolean
);

-- An entry of the operators' log. Whoever has seen one has seen all before it.
create function foldd.es_note(verb text, subscription_id text, who text, why text, before jsonb, after jsonb) returns bigint
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    entry bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('foldd operator log', 0));
    insert into es_operator_log (verb, subscription_id, who, why, before, after)
    values (es_note.verb, es_note.subscription_id, es_note.who, es_note.why, es_note.before, es_note.after)
    returning entry_id into entry;
    return entry;
end
$$;
