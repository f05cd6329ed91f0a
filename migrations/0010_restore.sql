-- A log outlives its cluster: it is dumped and restored, copied, upgraded. Its stamps came from the old cluster's
-- transaction counter. In a cluster whose counter is behind them, history would be hidden, and new events would
-- sort below every checkpoint and be skipped. This file notices, and es_rebase repairs it.

-- Where this log last was, and how far it had been read. Comes along in a dump, and so tells where it came from.
create table es_meta (
    only_row          boolean     not null default true,
    system_identifier bigint      not null,
    timeline          integer     not null,
    seen_horizon      xid8        not null default '0',
    seen_position     bigint,
    noted_at          timestamptz not null default clock_timestamp(),
    constraint es_meta_pkey primary key (only_row),
    constraint es_meta_only_row_check check (only_row)
);

comment on column es_meta.seen_horizon is 'The greatest horizon that a daemon noted; everything below it was committed.';
comment on column es_meta.seen_position is 'The greatest position that had been drawn then; no later one may lie below the horizon.';

create table es_rebases (
    rebase_id         bigint      generated always as identity,
    old_offset        bigint      not null,
    new_offset        bigint      not null,
    greatest_stamp    xid8        not null,
    restamped         bigint      not null,
    system_identifier bigint      not null,
    rebased_by        text        not null default session_user,
    rebased_at        timestamptz not null default clock_timestamp(),
    constraint es_rebases_pkey primary key (rebase_id)
);

comment on table es_rebases is 'When the log began to count transactions anew, and why.';

create function es_where_we_are(out system_identifier bigint, out timeline integer)
language sql volatile
set search_path from current
return (select row (s.system_identifier,
                    ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer)
        from pg_control_system() s);

insert into es_meta (system_identifier, timeline) select system_identifier, timeline from es_where_we_are();

-- Notes how far the log can be read. The horizon was proven before this call, so the position is read after it. One
-- of an earlier life of the server is not noted: after a crash its xids are given out again, and new events would
-- seem to have been passed.
create function es_note_horizon(horizon xid8, incarnation uuid) returns void
language sql volatile
set search_path from current
begin atomic
    update es_meta m
    set seen_horizon = es_note_horizon.horizon, seen_position = coalesce(es_drawn_position(), 0), noted_at = clock_timestamp()
    where m.seen_horizon < es_note_horizon.horizon and es_current_incarnation() = es_note_horizon.incarnation;
end;

-- Whether the log's stamps are ahead of the cluster. The greatest stamp is read first, and only then a
-- transaction id is drawn, which is greater than every stamp and floor that came about here. It is drawn only
-- when the snapshot leaves a doubt: during a raise of the floor a stamp may equal its xmax.
create function es_order(out greatest_stamp xid8, out next_transaction_id xid8, out is_ahead boolean)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    select greatest((select e.transaction_id from es_events e order by e.transaction_id desc, e.global_position desc limit 1),
                    (select s.last_transaction_id from es_subscriptions s order by s.last_transaction_id desc limit 1),
                    (select m.seen_horizon::text::numeric - 1 from es_meta m where m.seen_horizon > '0')::text::xid8,
                    pg_sequence_last_value('es_stamp_floor'::regclass)::text::xid8, '0'::xid8)
    into greatest_stamp;
    next_transaction_id := es_counted(pg_snapshot_xmax(pg_current_snapshot()));
    if greatest_stamp >= next_transaction_id then
        next_transaction_id := es_counted(pg_current_xact_id());
    end if;
    is_ahead := greatest_stamp >= next_transaction_id;
end
$$;

comment on function es_order() is 'Whether stamps or checkpoints are ahead of what this cluster counts: then readers would lose events.';

-- Who can say what was passed: no event that was drawn after `drawn` may be stamped below `up_to`.
create view es_witnesses as
    select s.subscription_id as witness, s.categories, s.last_transaction_id as up_to, s.drawn_position as drawn
    from es_subscriptions s where s.drawn_position is not null
    union all
    select 'the horizon', null, m.seen_horizon, m.seen_position from es_meta m where m.seen_position is not null;

-- The events that some checkpoint has passed without seeing them: drawn after the checkpoint moved, stamped below
-- it. There are none, unless a log was restored into a younger cluster and written to before anybody noticed.
create function es_skipped_events() returns table (witness text, events bigint, first_position bigint)
language plpgsql stable
set search_path from current
set jit = off set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    passed record;
begin
    for passed in
        select w.witness, w.categories, w.up_to, w.drawn from es_witnesses w
    loop
        return query
            select passed.witness, count(*), min(e.global_position) from es_events e
            where e.global_position > passed.drawn and e.transaction_id < passed.up_to
              and (passed.categories is null or e.stream_category = any (passed.categories))
            having count(*) > 0;
    end loop;
end
$$;

comment on function es_skipped_events() is 'Events that a checkpoint has passed unseen. Empty, or the log was restored and written to too early.';

-- A log that has come to another cluster: notes where it is, and finds the projections' schemas again, whose OIDs
-- the new cluster gave out anew.
create function es_settle() returns void
language sql volatile
set search_path from current
begin atomic
    update es_projections p
    set schema_oid = n.oid, built_xid = case when p.built_xid is not null then pg_current_xact_id() end
    from pg_namespace n
    where n.nspname = p.schema_name and n.oid <> p.schema_oid
      and exists (select from es_meta m, es_where_we_are() w where m.system_identifier <> w.system_identifier);
    update es_meta m set system_identifier = w.system_identifier, timeline = w.timeline, noted_at = clock_timestamp()
    from es_where_we_are() w
    where (m.system_identifier, m.timeline) is distinct from (w.system_identifier, w.timeline);
end;

-- Makes the log count on from above its greatest stamp. No event and no checkpoint changes; old checkpoints stay
-- valid. The lock waits for whoever is appending and holds up the others for the moment that this takes; whoever
-- gets his lock afterwards calls the new es_counted, whatever he prepared before. The floor is raised as well: a
-- transaction that has its id already, but has not appended yet, would count below the greatest stamp.
--
-- Events that some checkpoint passed unseen are restamped, with `repair`, to come after everything else in the
-- order of their positions, and so are all later versions of their streams. Without it they are refused.
create function es_rebase(repair boolean) returns es_rebases
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    ours    xid8;
    top     numeric;
    old     bigint := es_counted('0')::text::bigint;
    new     bigint;
    restamp bigint[];
    applied text;
    outcome es_rebases;
begin
    lock table es_events in access exclusive mode;
    ours := pg_current_xact_id();
    top := (select o.greatest_stamp from es_order() o)::text::numeric;
    new := old + greatest(0, top + 1 - es_counted(ours)::text::numeric);

    -- Late are the events that a checkpoint passed unseen, and, of those drawn after every checkpoint moved, the ones
    -- that are stamped below an earlier version of their stream.
    with late as (
        select e.stream_id, e.stream_version from es_witnesses passed
        join es_events e on e.global_position > passed.drawn and e.transaction_id < passed.up_to
         and (passed.categories is null or e.stream_category = any (passed.categories))
        union all
        select e.stream_id, e.stream_version from es_events e
        join es_events before on before.stream_id = e.stream_id and before.stream_version = e.stream_version - 1
         and before.transaction_id > e.transaction_id
        where e.global_position > (select max(passed.drawn) from es_witnesses passed)
    ), firsts as (
        select late.stream_id, min(late.stream_version) as stream_version from late group by late.stream_id
    )
    select array_agg(e.global_position) into restamp
    from firsts join es_events e on e.stream_id = firsts.stream_id and e.stream_version >= firsts.stream_version;

    if restamp is not null and not es_rebase.repair then
        raise exception '% events were appended after the restore and before this, from position % on; checkpoints have passed them',
            cardinality(restamp), (select min(x) from unnest(restamp) x)
            using errcode = 'FD004', hint = '`foldd rebase --repair` stamps them anew, to come after all others.';
    end if;
    select string_agg(distinct s.subscription_id, ', ') into applied
    from es_subscriptions s join es_events e on e.global_position = any (restamp)
     and e.global_position <= s.drawn_position
     and (e.transaction_id, e.global_position) <= (s.last_transaction_id, s.last_position)
     and (s.categories is null or e.stream_category = any (s.categories));
    if applied is not null then
        raise exception 'events that must be stamped anew have been applied already by %, and would be twice', applied
            using errcode = 'FD004', hint = 'Rebuild what applied them, or drop it, and try again.';
    end if;

    if new > old then
        perform es_count_from(new);
    end if;
    perform es_raise_stamp_floor((top + 1)::text::xid8);
    if restamp is not null then
        perform set_config('foldd.redacting', 'on', true);
        update es_events e set transaction_id = (top + 1)::text::xid8 where e.global_position = any (restamp);
        perform set_config('foldd.redacting', 'off', true);
        update es_streams s set last_transaction_id = (top + 1)::text::xid8
        where s.stream_id in (select e.stream_id from es_events e where e.global_position = any (restamp));
    end if;
    perform es_settle();
    insert into es_rebases (old_offset, new_offset, greatest_stamp, restamped, system_identifier)
    select old, new, top::text::xid8, coalesce(cardinality(restamp), 0), m.system_identifier from es_meta m
    returning * into outcome;
    return outcome;
end
$$;

comment on function es_rebase(boolean) is 'After a restore into a younger cluster: counts transactions on from above the greatest stamp.';

revoke execute on function es_rebase(boolean) from public;
