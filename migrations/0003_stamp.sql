-- The stamp and its floor.
--
--     stamp = greatest(xid of the writing transaction, the floor, the last stamp of this stream)
--
-- This file gives the first two terms; es_append adds the third under the stream's row lock. The floor is
-- a sequence because sequences ignore snapshots: an appender in REPEATABLE READ sees it at once. It must
-- be read after the appender holds its lock on es_events, which every INSERT takes while it is parsed.

create sequence es_stamp_floor as bigint minvalue 0 start with 0 cache 1;

-- plpgsql and volatile, so that no prepared statement keeps a folded value. Security definer, so that a
-- role which may only INSERT can still read the floor.
create function es_stamp() returns xid8
language plpgsql volatile security definer
set search_path from current
as $$
begin
    return greatest(pg_current_xact_id(), pg_sequence_last_value('es_stamp_floor'::regclass)::text::xid8);
end
$$;

comment on function es_stamp() is
    'The stamp of an event appended now: the xid of this transaction, or the stamp floor where that is higher.';

alter table es_events alter column transaction_id set default es_stamp();

-- Raises the floor, never lowers it. The lock is taken in a statement of its own before the comparison:
-- comparing and setting in one statement let the floor fall when several watchers raised it at once.
create function es_raise_stamp_floor(floor xid8) returns xid8
language plpgsql volatile security definer
set search_path from current
as $$
declare
    reached xid8;
begin
    if es_raise_stamp_floor.floor > pg_current_xact_id() then
        raise exception 'the stamp floor cannot be raised to %, beyond the newest transaction %',
            es_raise_stamp_floor.floor, pg_current_xact_id()
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

revoke execute on function es_raise_stamp_floor(xid8) from public;
