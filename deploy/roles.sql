-- The four roles of foldd, each with what it needs and nothing more. Idempotent: run it before the first migration, and again
-- after each one, because what a migration adds has to be granted too.
--
--   psql -v ON_ERROR_STOP=1 -d DATABASE -f deploy/roles.sql
--
-- Whoever runs it is a superuser, or owns the database and may create roles and grant pg_read_all_stats.
-- The roles may log in and have no password: set one with \password, or log in with a certificate.
--
--   foldd_owner    migrates, rebases; owns the schema of the log
--   foldd_append   appends and reads the log; cannot change, delete or truncate an event
--   foldd_daemon   `foldd run` and the verbs of operators; makes and drops the schemas of projections; cannot append
--   foldd_monitor  looks at everything: status, lag, doctor, log, wait, `dead-letters list` and `show`; changes nothing. What lays
--                  tables out to look at them, `plan`, `check` and `verify`, is the daemon's
do $$
declare
    name text;
    home text := current_schema();
    one text;
begin
    foreach name in array array['foldd_owner', 'foldd_append', 'foldd_daemon', 'foldd_monitor'] loop
        if to_regrole(name) is null then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole noreplication', name);
        end if;
        execute format('grant connect on database %I to %I', current_database(), name);
        execute format('grant usage on schema %I to %I', home, name);
    end loop;

    -- It makes the schemas foldd, foldd_bulk, foldd_unordered and foldd_parking, and the log in the schema that comes first.
    execute format('grant create on database %I to foldd_owner', current_database());
    execute format('grant create on schema %I to foldd_owner', home);
    -- It makes a schema for each projection.
    execute format('grant create on database %I to foldd_daemon', current_database());
    -- Without it nobody sees the state and age of other roles' sessions, and so who holds up the log.
    grant pg_read_all_stats to foldd_owner, foldd_daemon, foldd_monitor;

    if to_regclass('es_events') is null then
        raise notice 'the log is not there yet: run this again after `foldd migrate`';
        return;
    end if;

    grant select on es_migrations, es_meta, es_incarnation to foldd_append;
    grant select, insert on es_streams, es_events to foldd_append;
    grant update on es_streams to foldd_append;
    grant select, insert, update, delete on es_snapshots to foldd_append;

    for one in select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where c.relkind in ('r', 'v')
                 and (n.nspname in ('foldd', 'foldd_bulk', 'foldd_unordered', 'foldd_parking') or n.nspname = home and c.relname like 'es\_%') loop
        execute format('grant select on %s to foldd_daemon, foldd_monitor', one);
    end loop;
    grant insert, update, delete on es_subscriptions, es_replicas, es_projections, es_phases, es_dead_letters,
        es_quarantined_streams, es_operator_log, es_meta, es_incarnation to foldd_daemon;
    grant usage on schema foldd, foldd_bulk, foldd_unordered, foldd_parking to foldd_daemon, foldd_monitor;
    grant create on schema foldd, foldd_parking to foldd_daemon;
    grant execute on function es_raise_stamp_floor(xid8) to foldd_daemon;
end
$$;
