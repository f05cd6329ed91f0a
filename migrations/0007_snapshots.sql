-- Snapshots of aggregates: the latest one per stream, a disposable shortcut. Deleting any or all of them
-- only makes the next load slower.

create table es_snapshots (
    stream_id        text        not null,
    stream_version   bigint      not null,
    snapshot_version integer     not null,
    state            jsonb       not null,
    created_at       timestamptz not null default now(),
    constraint es_snapshots_pkey primary key (stream_id)
);

-- Blanks the payload and metadata of a stream's events, all or those of a range of versions, removes the
-- stream's snapshot, and records who did it. Read models that were folded before still hold what they took
-- from the events: rebuild them.
create function es_redact(
    stream_id text, reason text, from_version bigint default 1, to_version bigint default null,
    replacement jsonb default '{"redacted": true}') returns bigint
language plpgsql volatile
set search_path from current
as $$
#variable_conflict use_column
declare
    n bigint;
begin
    if coalesce(trim(es_redact.reason), '') = '' then
        raise exception 'es_redact needs a reason' using errcode = 'invalid_parameter_value';
    end if;
    to_version := coalesce(es_redact.to_version,
                           (select s.stream_version from es_streams s where s.stream_id = es_redact.stream_id));
    if to_version is null then
        raise exception 'stream % does not exist', quote_literal(es_redact.stream_id)
            using errcode = 'invalid_parameter_value';
    end if;
    perform set_config('foldd.redacting', 'on', true);
    update es_events e set data = es_redact.replacement, metadata = '{}'
    where e.stream_id = es_redact.stream_id
      and e.stream_version between es_redact.from_version and es_redact.to_version;
    get diagnostics n = row_count;
    perform set_config('foldd.redacting', 'off', true);
    delete from es_snapshots s where s.stream_id = es_redact.stream_id;
    insert into es_redactions (stream_id, from_version, to_version, events, reason)
    values (es_redact.stream_id, es_redact.from_version, es_redact.to_version, n, es_redact.reason);
    return n;
end
$$;

comment on function es_redact(text, text, bigint, bigint, jsonb) is
    'Blanks payload and metadata of a stream''s events, keeps their order, records who and why. Returns how many.';
