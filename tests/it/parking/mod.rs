//! One bad event stops no more than it must: what is parked, what halts, and how parked events are applied after all.

mod crashes;
mod equals;
mod faults;
mod hosted;
mod policies;
mod pooled;

use serde_json::{Value, json};

use crate::world::World;

/// Handlers that fail with the SQLSTATE that an event asks for in `fail`, until somebody mends them.
const TABLES: &str = "create table applied (nth bigint generated always as identity, stream_id text not null,
        version bigint not null, amount text, unique (stream_id, version));
    create table mended (is_mended boolean);
    create function trip(data jsonb) returns text language plpgsql as $$
    begin
        if data ? 'fail' and not exists (select from mended) then
            raise exception 'tripped over %', data->>'amount' using errcode = data->>'fail';
        end if;
        return data->>'amount';
    end $$;";

/// How a projection may be written.
const HANDLERS: [(&str, &str); 2] = [
    (
        "single",
        "-- @on Placed\ninsert into applied (stream_id, version, amount)\n\
         values (event.stream_id, event.stream_version, trip(event.data));",
    ),
    (
        "whole",
        "-- @batch\ninsert into applied (stream_id, version, amount)\n\
         select stream_id, stream_version, trip(data) from batch order by global_position;",
    ),
];

/// A projection file of category `order` with a policy.
fn file(policy: &str, tables: &str, handlers: &str) -> String {
    format!(
        "/* foldd\nversion = 1\ncategories = [\"order\"]\n{policy}\n*/\n-- @tables\n{tables}\n{handlers}\n"
    )
}

/// Appends an event that no handler can apply, with this SQLSTATE.
async fn append_bad(world: &World, stream: &str, code: &str) {
    world.append(stream, "Placed", &json!({"amount": "bad", "fail": code}).to_string()).await;
}

async fn append_good(world: &World, stream: &str, amount: u32) {
    world.append(stream, "Placed", &json!({"amount": amount}).to_string()).await;
}

/// What a projection applied, by stream and in the order in which it was applied: `order-1: 1 2 3`.
async fn applied(world: &World, name: &str) -> Vec<String> {
    let text = world
        .value(&format!(
            "select string_agg(line, '|' order by line) from (
                 select stream_id || ': ' || string_agg(version::text, ' ' order by nth) as line
                 from {name}.applied group by stream_id) lines"
        ))
        .await;
    text.split('|').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The open dead letters of a projection: `order-1/2 failed 22012 1`, the last being the number of attempts.
async fn letters(world: &World, name: &str) -> Vec<String> {
    // One statement: letters and their count are of the same moment.
    let text = world
        .value(&format!(
            "select coalesce((select sum(dead_letters) from es_subscriptions where projection_id = '{name}@1'), 0) || '|' ||
                    coalesce((select string_agg(stream_id || '/' || stream_version || ' ' || reason
                                                || coalesce(' ' || (error->>'sqlstate'), '') || ' ' || attempts, '|'
                                                order by stream_id, stream_version)
                              from es_dead_letters where projection_id = '{name}@1' and discarded_at is null), '')"
        ))
        .await;
    let mut parts = text.split('|').filter(|part| !part.is_empty()).map(str::to_owned);
    let counted = parts.next().expect("it is counted");
    let letters: Vec<String> = parts.collect();
    assert_eq!(counted, letters.len().to_string(), "the count is right: {letters:?}");
    letters
}

/// Waits until a projection has reached the end of the log, whatever it parked, and returns its status.
async fn settled(world: &World, name: &str) -> Value {
    world.caught_up(name).await;
    world.phase(name, "live").await
}
