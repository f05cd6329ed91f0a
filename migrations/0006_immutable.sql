-- Events are facts: nobody changes or deletes one. The single exception is personal data that must go,
-- which es_redact blanks in place, so that order, versions and checkpoints stay as they are.

create function es_refuse_change() returns trigger
language plpgsql
set search_path from current
as $$
begin
    if tg_op = 'UPDATE' and current_setting('foldd.redacting', true) = 'on' then
        return null;
    end if;
    raise exception 'events are immutable: % on es_events is refused', lower(tg_op)
        using errcode = 'ES003',
              hint = 'Append a correcting event; to erase personal data use es_redact(stream_id, reason).';
end
$$;

create trigger es_events_immutable before update or delete or truncate on es_events
    for each statement execute function es_refuse_change();

create table es_redactions (
    redaction_id  bigint      generated always as identity,
    stream_id     text        not null,
    from_version  bigint      not null,
    to_version    bigint      not null,
    events        bigint      not null,
    reason        text        not null,
    redacted_by   text        not null default session_user,
    redacted_at   timestamptz not null default now(),
    constraint es_redactions_pkey primary key (redaction_id)
);

comment on table es_redactions is 'Who blanked which events, when and why.';
