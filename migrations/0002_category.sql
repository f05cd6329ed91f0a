-- Writers that only INSERT, as they do into a store of the plain shape, do not know es_events.stream_category.
-- The stream's row, which they write first, does.

create function es_fill_category() returns trigger
language plpgsql
set search_path from current
as $$
begin
    select s.stream_category into new.stream_category from es_streams s where s.stream_id = new.stream_id;
    if not found then
        raise exception 'stream % has no row in es_streams; insert it in the same transaction, before its events',
            quote_literal(new.stream_id) using errcode = 'foreign_key_violation';
    end if;
    return new;
end
$$;

create trigger es_events_fill_category before insert on es_events
    for each row when (new.stream_category is null) execute function es_fill_category();
