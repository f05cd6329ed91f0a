-- Versions of one projection: one is live, a newer one is built beside it and takes its place in an instant, the
-- older one is kept for a while and then retired.
--
-- The live version's tables are in the schema of the projection's name, those of the others in name__vN. A cut-over
-- renames both schemas in one transaction. Three rules, each of which was broken before it was one:
--
-- 1. Nobody may read the new tables with a snapshot from before their first load ended: it would see them empty or
--    partial. So the cut-over waits until the last such snapshot of this database is gone.
-- 2. A statement over two tables must not meet one of each version. So all tables of both are locked by one LOCK
--    TABLE first, which waits for the readers; a rename alone would not.
-- 3. Locks in the order of a batch, subscriptions before tables, and for less time than the deadlock detector takes:
--    what does not get them lets everybody go on, and tries again.

-- The schema of a version that is not live.
create function es_schema_aside(projection_name text, version integer, generation integer) returns text
language sql immutable
return projection_name || '__v' || version || case when generation > 1 then '_' || generation else '' end;

-- Who holds a snapshot of this database that may have been taken before this transaction ended, the oldest first. A
-- snapshot's xmin has 32 bits; it lies within two thousand million transactions of what this snapshot sees.
-- Prepared transactions have no snapshot any more and do not count.
create function es_older_snapshots(than xid8)
returns table (pid integer, usename name, application_name text, state text, seconds double precision)
language sql volatile
set search_path from current
begin atomic
    select a.pid, a.usename, a.application_name, a.state,
           extract(epoch from clock_timestamp() - a.xact_start)::double precision
    from pg_stat_activity a
    cross join lateral (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as ours) s
    cross join lateral (select (s.ours - a.backend_xmin::text::bigint) & 4294967295 as back) d
    where a.datname = current_database() and a.pid <> pg_backend_pid()
      and s.ours - case when d.back > 2147483647 then d.back - 4294967296 else d.back end
            <= es_older_snapshots.than::text::bigint
    order by a.xact_start;
end;

-- What refers to the relations of a schema from outside of it: it stays with these tables when another version takes
-- their place, and keeps them from being retired.
create function es_dependents(schema_oid oid) returns setof text
language sql stable
set search_path from current
begin atomic
    select distinct i.type || ' ' || i.identity || ' depends on ' || t.relname
    from pg_class t
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid and d.deptype in ('n', 'a')
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_constraint c on d.classid = 'pg_constraint'::regclass and c.oid = d.objid and c.contype = 'f'
    left join pg_proc f on d.classid = 'pg_proc'::regclass and f.oid = d.objid
    join pg_class u on u.oid = coalesce(r.ev_class, c.conrelid)
      or f.oid is not null and u.oid = t.oid
    cross join lateral (
        select x.type, x.identity from pg_identify_object(
            case when f.oid is not null then 'pg_proc'::regclass when c.oid is not null then 'pg_constraint'::regclass
                 else 'pg_class'::regclass end,
            coalesce(f.oid, c.oid, r.ev_class), 0) x) i
    where t.relnamespace = es_dependents.schema_oid
      and coalesce(f.pronamespace, u.relnamespace) <> es_dependents.schema_oid
    order by 1;
end;

comment on function es_dependents(oid) is 'Views, foreign keys and functions of other schemas that refer to the relations of this one.';

-- Which rows of a table are published; null for all, as before PostgreSQL 15.
create function foldd.es_row_filter(publication_rel oid) returns text
language plpgsql stable
set search_path = pg_catalog
as $$
declare
    filter text;
begin
    if current_setting('server_version_num')::integer >= 150000 then
        execute 'select pg_get_expr(prqual, prrelid) from pg_publication_rel where oid = $1' into filter using publication_rel;
    end if;
    return filter;
end
$$;

-- What the owner and others have said about a version's schema and its relations, as statements that say it of the
-- version that takes its name: owners, grants, default privileges, comments, row security, publications. Only for
-- relations that both have; what the newer definition says itself is not overridden. To be collected before the
-- schemas are renamed, and executed afterwards.
create function foldd.es_what_was_said(from_oid oid, to_oid oid, aside text) returns setof text
language plpgsql stable
set search_path = pg_catalog
as $$
#variable_conflict use_column
declare
    home text := (select n.nspname from pg_namespace n where n.oid = from_oid);
    one record;
begin
    return query
    select format('alter schema %I owner to %I', home, pg_get_userbyid(old.nspowner))
    from pg_namespace old join pg_namespace new on new.oid = to_oid
    where old.oid = from_oid and old.nspowner <> new.nspowner;
    return query
    select format('grant %s on schema %I to %s%s', g.privilege_type, home,
                  case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                  case when g.is_grantable then ' with grant option' else '' end)
    from pg_namespace n cross join lateral aclexplode(n.nspacl) g where n.oid = from_oid and g.grantee <> n.nspowner;
    return query
    select format('comment on schema %I is %L', home, obj_description(from_oid, 'pg_namespace'))
    where obj_description(from_oid, 'pg_namespace') is not null and obj_description(to_oid, 'pg_namespace') is null;
    return query
    select format('alter default privileges for role %I in schema %I grant %s on %s to %s%s',
                  pg_get_userbyid(d.defaclrole), home, g.privilege_type,
                  case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' else 'types' end,
                  case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                  case when g.is_grantable then ' with grant option' else '' end)
    from pg_default_acl d cross join lateral aclexplode(d.defaclacl) g where d.defaclnamespace = from_oid;

    for one in
        select old.oid as old_oid, new.oid as new_oid, format('%I.%I', home, old.relname) as name, old.relowner, old.relacl,
               old.relowner <> new.relowner as is_anothers,
               case old.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
                    when 'f' then 'foreign table' else 'table' end as kind,
               old.relkind in ('r', 'p') as is_table,
               old.relrowsecurity and not new.relrowsecurity as is_secured,
               old.relforcerowsecurity and not new.relforcerowsecurity as is_forced,
               -- A sequence of a column follows its table.
               exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = new.oid
                         and d.deptype in ('a', 'i') and d.refclassid = 'pg_class'::regclass) as is_owned
        from pg_class old join pg_class new on new.relname = old.relname and new.relkind = old.relkind
        where old.relnamespace = from_oid and new.relnamespace = to_oid and old.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        order by old.relname
    loop
        if one.is_anothers and not one.is_owned then
            return next format('alter %s %s owner to %I', one.kind, one.name, pg_get_userbyid(one.relowner));
        end if;
        return query
        select format('grant %s on %s %s to %s%s', g.privilege_type,
                      case one.kind when 'sequence' then 'sequence' else 'table' end, one.name,
                      case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                      case when g.is_grantable then ' with grant option' else '' end)
        from aclexplode(one.relacl) g where g.grantee <> one.relowner;
        return query
        select format('grant %s (%I) on table %s to %s%s', g.privilege_type, a.attname, one.name,
                      case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                      case when g.is_grantable then ' with grant option' else '' end)
        from pg_attribute a cross join lateral aclexplode(a.attacl) g
        where a.attrelid = one.old_oid and not a.attisdropped
          and exists (select from pg_attribute b where b.attrelid = one.new_oid and b.attname = a.attname and not b.attisdropped);
        return query
        select format('comment on %s %s is %L', one.kind, one.name, obj_description(one.old_oid, 'pg_class'))
        where obj_description(one.old_oid, 'pg_class') is not null and obj_description(one.new_oid, 'pg_class') is null;
        return query
        select format('comment on column %s.%I is %L', one.name, a.attname, col_description(one.old_oid, a.attnum))
        from pg_attribute a join pg_attribute b on b.attrelid = one.new_oid and b.attname = a.attname and not b.attisdropped
        where a.attrelid = one.old_oid and a.attnum > 0 and not a.attisdropped
          and col_description(one.old_oid, a.attnum) is not null and col_description(one.new_oid, b.attnum) is null;
        if one.is_table then
            -- Names in its expressions are written out, and mean the version that has the name by then.
            return query
            select format('create policy %I on %s as %s for %s to %s%s%s', p.polname, one.name,
                          case when p.polpermissive then 'permissive' else 'restrictive' end,
                          case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                               when 'd' then 'delete' else 'all' end,
                          (select string_agg(case when r = 0 then 'public' else quote_ident(pg_get_userbyid(r)) end, ', ')
                           from unnest(p.polroles) r),
                          ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
                          ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
            from pg_policy p
            where p.polrelid = one.old_oid
              and not exists (select from pg_policy q where q.polrelid = one.new_oid and q.polname = p.polname);
            if one.is_secured then
                return next format('alter table %s enable row level security', one.name);
            end if;
            if one.is_forced then
                return next format('alter table %s force row level security', one.name);
            end if;
            return query
            select said.statement from pg_publication_rel m join pg_publication p on p.oid = m.prpubid
            cross join lateral (values
                (1, format('alter publication %I drop table %I.%s', p.pubname, aside,
                           split_part(one.name, '.', 2))),
                (2, format('alter publication %I add table %s', p.pubname, one.name)
                    || coalesce(' (' || (select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
                                         from pg_attribute a
                                         where a.attrelid = one.old_oid
                                           and a.attnum::text = any (string_to_array(to_jsonb(m) ->> 'prattrs', ' '))) || ')', '')
                    || coalesce(' where (' || foldd.es_row_filter(m.oid) || ')', '')))
                as said (nth, statement)
            where m.prrelid = one.old_oid
              and not exists (select from pg_publication_rel o where o.prpubid = m.prpubid and o.prrelid = one.new_oid)
            order by said.nth;
        end if;
    end loop;
end
$$;

-- Puts a version, built or previous, in the place of the live one. Says what it waits for; null when it is done. What does
-- not pass by itself has its remedy after a semicolon.
--
-- One transaction of its caller's, with lock_timeout and statement_timeout below deadlock_timeout. `readers` says
-- whether snapshots matter: not for a previous version, whose load ended long ago.
create function foldd.es_take_place(projection_id text, verb text, who text, why text) returns text
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    next es_projections;
    live es_projections;
    reader record;
    places text;
    aside text;
    said text[];
    statement text;
begin
    select * into next from es_projections p where p.projection_id = es_take_place.projection_id;
    if not found then
        return null;
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('foldd projection ' || next.projection_name, 0)) then
        return 'another process works on the versions of ' || next.projection_name;
    end if;
    select * into next from es_projections p where p.projection_id = es_take_place.projection_id;
    select * into live from es_projections p where p.projection_name = next.projection_name and p.role = 'live';
    if next.role = 'live' or live.projection_id is null then
        return null;
    end if;
    if next.role = 'building' and next.built_xid is null then
        return 'its build';
    end if;
    if next.role = 'building' then
        if not pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
            return format('a right: role %I cannot see whether somebody still reads with an older snapshot; grant pg_read_all_stats to %I',
                          current_user, current_user);
        end if;
        select o.*, count(*) over () as others into reader from es_older_snapshots(next.built_xid) o limit 1;
        if found then
            return format('the snapshot of pid %s (%s%s, %s for %s s)%s, which would see the new tables empty; have its owner end it, or `select pg_terminate_backend(%1$s)`', reader.pid, reader.usename,
                          coalesce(', ' || nullif(reader.application_name, ''), ''), coalesce(reader.state, 'running'),
                          round(reader.seconds), case when reader.others > 1 then format(' and %s more', reader.others - 1) else '' end);
        end if;
    end if;

    if next.role = 'building' and next.wish is distinct from 'cutover'
       and exists (select from es_subscriptions s where s.projection_id = next.projection_id and s.dead_letters > 0) then
        return format('somebody to look at its parked events; `foldd dead-letters list %s`, then `foldd cutover %s`',
                      next.projection_id, next.projection_name);
    end if;

    -- Its batches in hand end first, and none begins until the end of this transaction.
    perform 1 from es_subscriptions s where s.projection_id in (next.projection_id, live.projection_id)
    order by s.subscription_id for update;
    -- A statement of its own: its snapshot is newer than the locks. Nobody who saw an event applied may see it gone.
    if (select (s.last_transaction_id, s.last_position) from es_subscriptions s
        where s.projection_id = next.projection_id order by s.last_transaction_id, s.last_position limit 1)
       < (select (s.last_transaction_id, s.last_position) from es_subscriptions s
          where s.projection_id = live.projection_id order by s.last_transaction_id desc, s.last_position desc limit 1)
    then
        return format('%s to be as far as %s', next.projection_id, live.projection_id);
    end if;

    select string_agg(format('%I.%I', n.nspname, c.relname), ', ' order by n.nspname, c.relname) into places
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.oid in (live.schema_oid, next.schema_oid) and c.relkind in ('r', 'p', 'f');
    if places is not null then
        execute 'lock table ' || places || ' in access exclusive mode';
    end if;
    aside := es_schema_aside(live.projection_name, live.version, live.generation);
    select coalesce(array_agg(s), '{}') into said from foldd.es_what_was_said(live.schema_oid, next.schema_oid, aside) s;
    execute format('alter schema %I rename to %I', live.schema_name, aside);
    execute format('alter schema %I rename to %I', next.schema_name, live.schema_name);
    foreach statement in array said loop
        execute statement;
    end loop;
    update es_projections p
    set role = 'previous', schema_name = aside, keep_until = now() + next.keep_previous, waiting_for = null, wish = null,
        withdrawn = p.withdrawn or verb = 'rollback'
    where p.projection_id = live.projection_id;
    update es_projections p
    set role = 'live', schema_name = live.schema_name, keep_until = null, live_at = now(), waiting_for = null, wish = null,
        withdrawn = false
    where p.projection_id = next.projection_id;
    perform foldd.es_note(verb, next.projection_id, who, why, jsonb_build_object('live', live.projection_id),
                          jsonb_build_object('live', next.projection_id));
    return null;
end
$$;

comment on function foldd.es_take_place(text, text, text, text) is
    'Puts a built or previous version in the place of the live one; says what it waits for, null when it is done.';

-- Drops a schema and everything in it, and nothing else: without CASCADE, so that what somebody else's objects depend
-- on is kept, and said.
create function foldd.es_drop_schema(schema_oid oid) returns void
language plpgsql volatile
set search_path = pg_catalog
as $$
declare
    home text := (select n.nspname from pg_namespace n where n.oid = schema_oid);
    statement text;
    refusal text;
    hint text;
    is_left boolean;
    has_got_on boolean;
begin
    if home is null then
        return;
    end if;
    loop
        is_left := false;
        has_got_on := false;
        -- All tables at once, and all views: they may refer to each other in a circle.
        for statement in
            select format('drop %s %s restrict', kind, string_agg(format('%I.%I', home, c.relname), ', ' order by c.relname))
            from pg_class c
            join (values ('v', 'view', 1), ('m', 'materialized view', 2), ('r', 'table', 3), ('p', 'table', 3),
                         ('f', 'foreign table', 4)) as kinds (relkind, kind, nth) on kinds.relkind = c.relkind
            where c.relnamespace = schema_oid and not c.relispartition
            group by kind, nth
            union all
            select format('drop %s %s restrict', o.type, o.identity)
            from pg_depend d cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) o
            where d.refclassid = 'pg_namespace'::regclass and d.refobjid = schema_oid and d.deptype = 'n'
              and (d.classid <> 'pg_class'::regclass
                   or exists (select from pg_class c where c.oid = d.objid and c.relkind in ('S', 'c')))
        loop
            is_left := true;
            begin
                execute statement;
                has_got_on := true;
            exception
                when dependent_objects_still_exist then
                    get stacked diagnostics refusal = pg_exception_detail;
                -- It went along with another one.
                when undefined_table or undefined_object or undefined_function then
                    null;
            end;
        end loop;
        exit when not is_left;
        if not has_got_on then
            raise exception 'schema % cannot be dropped: %', home, refusal
                using errcode = 'dependent_objects_still_exist',
                      hint = 'Move what depends on it to the live version, or drop it.';
        end if;
    end loop;
    execute format('drop schema %I restrict', home);
end
$$;

comment on function foldd.es_drop_schema(oid) is 'Drops a schema with everything in it that nothing outside depends on, or nothing.';

-- Ends a version that is not live: a build, a previous one, or one that nobody configures any more. Its tables go, its
-- checkpoints and parked events with them; its definition stays.
create function foldd.es_retire(projection_id text, verb text, who text, why text) returns void
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    it es_projections;
begin
    select * into it from es_projections p where p.projection_id = es_retire.projection_id and p.role <> 'retired';
    if not found then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('foldd projection ' || it.projection_name, 0));
    perform 1 from es_subscriptions s where s.projection_id = it.projection_id order by s.subscription_id for update;
    perform foldd.es_drop_schema(it.schema_oid);
    delete from es_phases ph where split_part(ph.subscription_id, '/', 1) = it.projection_id;
    delete from es_subscriptions s where s.projection_id = it.projection_id;
    execute format('drop function if exists foldd.%I(text, bigint, uuid, xid8, bigint, xid8, bigint, bigint, boolean, bigint, jsonb)', it.projection_id);
    execute format('drop function if exists foldd_parking.%I(text, bigint, uuid, xid8, bigint, xid8, bigint, bigint, boolean, bigint, jsonb)', it.projection_id);
    update es_projections p
    set role = 'retired', wish = null, waiting_for = null, withdrawn = p.withdrawn or es_retire.verb = 'cancel'
    where p.projection_id = it.projection_id;
    perform foldd.es_note(es_retire.verb, it.projection_id, es_retire.who, es_retire.why,
                          jsonb_build_object('role', it.role), jsonb_build_object('role', 'retired'));
end
$$;

comment on function foldd.es_retire(text, text, text, text) is 'Drops a version''s tables and books; its definition stays.';

-- What is to be done about versions now: what operators wish, builds that have caught up and take their place by
-- themselves, previous versions whose time is over.
create view foldd.es_due as
    select p.projection_name, p.projection_id, p.role, p.wish_revision,
           coalesce(p.wish, case when p.role = 'building' then 'cutover' else 'retire' end) as verb,
           p.wish is not null as is_wished, p.waiting_for
    from es_projections p
    where p.wish in ('cutover', 'rollback', 'cancel', 'retire')
       or p.role = 'building' and p.built_xid is not null and p.cutover = 'automatic' and p.wish is null
          and exists (select from es_projections l where l.projection_name = p.projection_name and l.role = 'live')
       or p.role = 'previous' and p.keep_until <= now() and p.wish is null;
