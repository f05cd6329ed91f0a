-- The daemon's books: who runs, who holds what, how far each subscription has come.
--
-- The checkpoint is (last_transaction_id, last_position): the cursor of the last event scanned. It moves
-- only through es_advance, in the transaction that applied the events, and only for the holder of the
-- newest fence token who still knows where it stood.

create table es_replicas (
    replica_id   uuid        not null,
    host         text        not null,
    process_id   integer     not null,
    version      text        not null,
    draining     boolean     not null default false,
    hosts        text[],
    started_at   timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    lease_until  timestamptz not null,
    constraint es_replicas_pkey primary key (replica_id)
) with (fillfactor = 50);

comment on column es_replicas.lease_until is
    'Everything this replica holds is its own until then, by this server''s clock. One row renews all leases.';

comment on column es_replicas.hosts is 'Which subscriptions it can run; null until it has prepared them.';

alter table es_subscriptions add constraint es_subscriptions_holder_fkey
    foreign key (holder) references es_replicas (replica_id);

comment on column es_subscriptions.categories is 'What it reads; null: every category.';
comment on column es_subscriptions.applied_position is 'The last event that a handler wanted; the checkpoint may be past it.';

create index es_subscriptions_holder_idx on es_subscriptions (holder);

-- The greatest position that had been drawn when the checkpoint moved there. Everything below the checkpoint was
-- committed then, so no event drawn later may lie below it. es_skipped_events looks for those that do.
comment on column es_subscriptions.drawn_position is
    'The greatest global position drawn when the checkpoint moved; no later one may lie below the checkpoint.';

-- One row while the server lives. Unlogged tables are emptied by a crash and by a promotion, which are the
-- two moments after which xids may be given out a second time. A row that came along in a dump belongs to
-- another server, which did not start at the same moment. A horizon carries the incarnation it was seen in;
-- es_enter refuses one of another life.
create unlogged table es_incarnation (
    only_row    boolean     not null default true,
    incarnation uuid        not null default gen_random_uuid(),
    started_at  timestamptz not null default pg_postmaster_start_time(),
    constraint es_incarnation_pkey primary key (only_row),
    constraint es_incarnation_only_row_check check (only_row)
);

-- The life that this server lives; null before anybody named it, and on a standby, where unlogged tables cannot be
-- read.
create function es_current_incarnation() returns uuid
language plpgsql stable
set search_path from current
as $$
begin
    if pg_is_in_recovery() then
        return null;
    end if;
    return (select i.incarnation from es_incarnation i where i.only_row and i.started_at = pg_postmaster_start_time());
end
$$;

-- Names it.
create function es_begin_incarnation() returns void
language sql volatile
set search_path from current
begin atomic
    insert into es_incarnation as i default values
    on conflict (only_row) do update
    set incarnation = gen_random_uuid(), started_at = pg_postmaster_start_time()
    where i.started_at <> pg_postmaster_start_time();
end;

-- Which projections this database knows, and their definitions: any replica can run any version.
create table es_projections (
    projection_name text        not null,
    version         integer     not null,
    generation      integer     not null default 1,
    projection_id   text        generated always as (
        projection_name || '@' || version || case when generation > 1 then '.' || generation else '' end) stored,
    role            text        not null,
    kind            text        not null,
    schema_name     text        not null,
    schema_oid      oid         not null,
    definition      jsonb       not null,
    created_at      timestamptz not null default now(),
    live_at         timestamptz,
    built_at        timestamptz,
    built_xid       xid8,
    cutover         text        not null default 'automatic',
    keep_previous   interval    not null default '24 hours',
    keep_until      timestamptz,
    withdrawn       boolean     not null default false,
    wish            text,
    wish_revision   bigint,
    waiting_for     text,
    late_indexes    text[]      not null default '{}',
    constraint es_projections_pkey primary key (projection_name, version, generation),
    constraint es_projections_role_check check (role in ('live', 'building', 'previous', 'retired')),
    constraint es_projections_cutover_check check (cutover in ('automatic', 'manual')),
    constraint es_projections_wish_check check (wish in ('rebuild', 'cutover', 'rollback', 'cancel', 'retire')),
    constraint es_projections_late_indexes_check check (built_xid is null or late_indexes = '{}'),
    constraint es_projections_kind_check check (kind in ('sql', 'rust'))
);

comment on column es_projections.built_xid is
    'The transaction that ended the first load; a snapshot that is not newer may see an empty or partial table.';
comment on column es_projections.keep_until is 'When a previous version is retired.';
comment on column es_projections.withdrawn is 'An operator took it back by cancel or rollback; it is not built again unasked.';
comment on column es_projections.wish is 'What an operator wants done with it; 0013_versions.sql says how.';
comment on column es_projections.waiting_for is 'What its cut-over, or its retirement, waits for.';
comment on column es_projections.late_indexes is
    'Indexes of its tables that are created after the load, as `create index` statements; it is not built while there are any.';

create unique index es_projections_projection_id_key on es_projections (projection_id);
create unique index es_projections_live_key on es_projections (projection_name) where role = 'live';

-- What each holder last published about its subscriptions, for whoever asks from elsewhere. A projection that
-- could not be built has a line here and no subscription.
create table es_phases (
    subscription_id   text        not null,
    phase             text        not null,
    error             jsonb,
    events_per_second double precision not null default 0,
    lag_events        bigint      not null default 0,
    lag_seconds       double precision not null default 0,
    arriving_per_second double precision not null default 0,
    changed_at        timestamptz not null default clock_timestamp(),
    constraint es_phases_pkey primary key (subscription_id)
) with (fillfactor = 50);

-- What operators wish and what went wrong, beside the checkpoint that it is about.
alter table es_subscriptions
    add column projection_id      text    generated always as (split_part(subscription_id, '/', 1)) stored,
    add column partition          integer not null default 0,
    add column partitions         integer not null default 1,
    add column floors             jsonb,
    add column is_built           boolean not null default false,
    add column applied_events     bigint  not null default 0,
    add column paused             boolean not null default false,
    add column dead_letters       bigint  not null default 0,
    add column unclean_takeovers  integer not null default 0,
    add column holder_incarnation uuid,
    add column attempted_position bigint,
    add column crashed_position   bigint,
    add column crashes            integer not null default 0,
    add column accused            uuid;

comment on column es_subscriptions.partitions is 'Into how many its projection is split; 0012_partitions.sql says how.';
comment on column es_subscriptions.floors is
    'Where the partitions of an earlier split stood; null once the checkpoint is past all of them.';
comment on column es_subscriptions.is_built is 'It has reached the horizon once; when all partitions have, the version is live.';
comment on column es_subscriptions.applied_events is 'How many of its own events it has gone past, in all.';
comment on column es_subscriptions.paused is 'An operator wants it to stand still; es_enter refuses every batch.';
comment on column es_subscriptions.dead_letters is 'How many of its events are parked: open rows of es_dead_letters.';
comment on column es_subscriptions.unclean_takeovers is
    'How often it was taken from a dead holder since the checkpoint last moved. A restart of the server does not count.';
comment on column es_subscriptions.holder_incarnation is 'The life of the server in which it was taken.';
comment on column es_subscriptions.attempted_position is
    'The event that the holder is trying alone, because holders before it died; committed before the try.';
comment on column es_subscriptions.crashed_position is 'The event that a holder fell silent at while it tried it alone.';
comment on column es_subscriptions.crashes is 'How many holders in a row fell silent at that very event.';

comment on column es_subscriptions.accused is
    'The last of those holders. Should it turn out to be alive, it was cut off, and takes its part of the blame back.';

create index es_subscriptions_projection_idx on es_subscriptions (projection_id);

-- For the one who counts what is parked, once a second.
create index es_subscriptions_dead_letters_idx on es_subscriptions (holder) where dead_letters > 0;

-- Events that are parked instead of applied: a reference, never the payload. Open until they are retried, which
-- deletes the row, or discarded, which keeps it for a while.
create table es_dead_letters (
    subscription_id text        not null,
    projection_id   text        generated always as (split_part(subscription_id, '/', 1)) stored,
    stream_id       text        not null,
    stream_version  bigint      not null,
    global_position bigint      not null,
    event_type      text        not null,
    reason          text        not null,
    error           jsonb,
    attempts        integer     not null default 1,
    first_failed_at timestamptz not null default clock_timestamp(),
    last_failed_at  timestamptz not null default clock_timestamp(),
    retry_wanted_at timestamptz,
    discarded_at    timestamptz,
    constraint es_dead_letters_pkey primary key (subscription_id, global_position),
    constraint es_dead_letters_subscription_id_fkey
        foreign key (subscription_id) references es_subscriptions (subscription_id) on delete cascade,
    constraint es_dead_letters_reason_check check (reason in ('failed', 'behind', 'skipped'))
);

comment on column es_dead_letters.reason is
    'failed: it could not be applied; behind: it waits for an earlier event of its stream; skipped: it could not be '
    'applied, and later events of its stream were.';
comment on column es_dead_letters.error is 'Message, remedy, SQLSTATE and place; null for those that only wait.';

-- As operators ask for them, whatever the partitions.
create index es_dead_letters_projection_idx on es_dead_letters (projection_id, global_position);

-- In the order in which they are retried. Only open ones are asked for by stream.
create index es_dead_letters_stream_idx on es_dead_letters (subscription_id, stream_id, stream_version)
    where discarded_at is null;
create index es_dead_letters_wanted_idx on es_dead_letters (subscription_id, retry_wanted_at)
    where retry_wanted_at is not null and discarded_at is null;
-- Forgotten a while after they were discarded.
create index es_dead_letters_discarded_idx on es_dead_letters (discarded_at) where discarded_at is not null;

-- Streams whose events are all parked, from this version on, until they are retried.
create table es_quarantined_streams (
    subscription_id text        not null,
    stream_id       text        not null,
    since_version   bigint      not null,
    since           timestamptz not null default clock_timestamp(),
    constraint es_quarantined_streams_pkey primary key (subscription_id, stream_id),
    constraint es_quarantined_streams_subscription_id_fkey
        foreign key (subscription_id) references es_subscriptions (subscription_id) on delete cascade
);

-- What operators did. Entries are written under one lock, so that whoever has seen one has seen all before it.
create table es_operator_log (
    entry_id        bigint      generated always as identity,
    at              timestamptz not null default clock_timestamp(),
    verb            text        not null,
    subscription_id text        not null,
    who             text        not null,
    db_role         text        not null default session_user,
    why             text,
    before          jsonb       not null,
    after           jsonb       not null,
    constraint es_operator_log_pkey primary key (entry_id)
);

create index es_operator_log_subscription_idx on es_operator_log (subscription_id, entry_id);
