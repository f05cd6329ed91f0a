-- The stamp, its floor, and how the log counts transactions.
--
--     stamp = greatest(xid of the writing transaction, the floor, the last stamp of this stream)
--
-- This file gives the first two terms; es_append adds the third under the stream's row lock. The floor is
-- a sequence because sequences ignore snapshots: an appender in REPEATABLE READ sees it at once. It must
-- be read after the appender holds its lock on es_events, which every INSERT takes while it is parsed.

create sequence es_stamp_floor as bigint minvalue 0 start with 0 cache 1;

-- The log counts transactions as the cluster does, plus an offset: 0, until a log is restored into a cluster
-- that is younger than its stamps (see es_rebase). The offset stands in the body of es_counted and nowhere
-- else. A body is no data: it is transactional, and yet a session with an old snapshot or a prepared INSERT
-- has the new one at its next call, which no table and no sequence gives.
create function es_count_from(the_offset bigint) returns void
language plpgsql volatile
set search_path from current
as $$
begin
    execute format(
        'create or replace function es_counted(transaction_id xid8) returns xid8 '
        'language plpgsql stable parallel safe as %L',
        case the_offset when 0 then 'begin return transaction_id; end'
             else format('begin return (transaction_id::text::numeric + %s)::text::xid8; end', the_offset) end);
end
$$;

select es_count_from(0);

comment on function es_counted(xid8) is 'A transaction id of this cluster, as the log counts it. es_counted(''0'') is the offset.';

-- plpgsql and volatile, so that no prepared statement keeps a folded value. Security definer, so that a
-- role which may only INSERT can still read the floor.
create function es_next_stamp() returns xid8
language plpgsql volatile security definer
set search_path from current
as $$
begin
    if current_setting('foldd.sworn', true) = 'on' then
        raise exception 'a projection''s statements must not append events'
            using errcode = 'ES005', hint = 'Rebuilt, they would append them again.';
    end if;
    return greatest(es_counted(pg_current_xact_id()),
                    pg_sequence_last_value('es_stamp_floor'::regclass)::text::xid8);
end
$$;

comment on function es_next_stamp() is
    'The stamp of an event appended now: the xid of this transaction, or the stamp floor where that is higher.';

-- The same for writers that only INSERT. They do not give the third term, so that their events may come out of
-- order along a stream, and readers have to look out: from the first such INSERT on, for good. Drawn from, not
-- written to: it is no transaction's business.
create sequence es_foreign_writes as bigint cache 1;

create function es_stamp() returns xid8
language plpgsql volatile security definer
set search_path from current
as $$
begin
    if pg_sequence_last_value('es_foreign_writes'::regclass) is null then
        perform nextval('es_foreign_writes');
    end if;
    return es_next_stamp();
end
$$;

comment on function es_stamp() is
    'The default of es_events.transaction_id: the stamp of an event that is inserted without es_append.';

-- Every batch asks. In PL/pgSQL, whose plan is kept: with settings of its own a function in SQL would be parsed anew by each.
create function es_has_foreign_writes() returns boolean
language plpgsql stable security definer
set search_path from current
as $$
begin
    return pg_sequence_last_value('es_foreign_writes'::regclass) is not null;
end
$$;

comment on function es_has_foreign_writes() is 'Whether anybody has inserted an event without es_append.';

-- The oath of a transaction never to append: a batch of SQL handlers takes it first of all. From then on es_next_stamp,
-- without which nobody appends, refuses (SQLSTATE ES005). The advisory lock tells it to everybody, where the
-- transaction has no xid yet: one that has could have appended, and whoever looks at the lock table does not see all
-- of it in one moment. Not behind a savepoint, which would take back the oath when others have relied on it.
create function es_swear_not_to_append() returns void
language plpgsql volatile
set search_path from current
as $$
begin
    if pg_current_xact_id_if_assigned() is null then
        perform pg_advisory_xact_lock_shared(es_oath_class(), 'es_events'::regclass::oid::integer);
    end if;
    perform set_config('foldd.sworn', 'on', true);
end
$$;

-- The first half of the oath's lock; the second is the log. In ASCII: fold.
create function es_oath_class() returns integer
language sql immutable parallel safe
return 1718578276;

comment on function es_swear_not_to_append() is
    'Promises that this transaction will append no events: readers go past it at once. Never behind a savepoint.';

alter table es_events alter column transaction_id set default es_stamp();

-- Raises the floor, never lowers it. The lock is taken in a statement of its own before the comparison:
-- comparing and setting in one statement let the floor fall when several watchers raised it at once.
create function es_raise_stamp_floor(floor xid8) returns xid8
language plpgsql volatile security definer
set search_path from current
as $$
declare
    newest  xid8 := es_counted(pg_current_xact_id());
    reached xid8;
begin
    if es_raise_stamp_floor.floor > newest then
        raise exception 'the stamp floor cannot be raised to %, beyond the newest transaction %',
            es_raise_stamp_floor.floor, newest
            using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('foldd stamp floor', 0));
    reached := coalesce(pg_sequence_last_value('es_stamp_floor'::regclass), 0)::text::xid8;
    if es_raise_stamp_floor.floor > reached then
        perform setval('es_stamp_floor', es_raise_stamp_floor.floor::text::bigint);
        return es_raise_stamp_floor.floor;
    end if;
    return reached;
end
$$;

comment on function es_raise_stamp_floor(xid8) is
    'Raises the stamp floor to at least this value, atomically, and returns where it stands.';

revoke execute on function es_count_from(bigint) from public;
revoke execute on function es_raise_stamp_floor(xid8) from public;
