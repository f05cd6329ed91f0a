//! A higher version is built beside the live one and takes its place, with nobody noticing; and back again.

mod bystanders;
mod counts;
mod crashes;
mod definitions;
mod disk;
mod indexes;
mod order;
mod plan;
mod readers;
mod real;
mod several;
mod steps;
mod verbs;

use serde_json::Value;

use crate::world::World;

/// Counts orders by type; `{version}` and `{what}` differ from version to version.
const TALLY: &str = "\
/* foldd
version = {version}
categories = [\"order\"]
{settings}
*/
-- @tables
create table tally (event_type text primary key, n bigint not null);
create table whole (only_row int primary key, n bigint not null);
-- @batch
insert into tally select event_type, count(*) * {times} from batch group by 1
on conflict (event_type) do update set n = tally.n + excluded.n;
-- @batch
insert into whole select 1, count(*) * {times} from batch having count(*) > 0
on conflict (only_row) do update set n = whole.n + excluded.n;
";

/// Writes a version of the projection: version N counts every event N times.
fn tally(world: &World, version: u32, settings: &str) {
    let text = TALLY
        .replace("{version}", &version.to_string())
        .replace("{times}", &version.to_string())
        .replace("{settings}", settings);
    world.projection("tally", &text);
}

/// What `status` says of one version; null when there is none.
async fn version(world: &World, version: u32) -> Value {
    let done = world.foldd(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&done.out).unwrap_or_default();
    let all = status["projections"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == "tally" && one["version"] == version).unwrap_or_default()
}

/// Waits until a version has a role.
async fn role(world: &World, number: u32, role: &str) -> Value {
    world
        .eventually(&format!("tally@{number} is {role}"), async || {
            version(world, number).await["role"] == role
        })
        .await;
    version(world, number).await
}

/// Waits until a build waits for something that a text has in it.
async fn waits_for(world: &World, number: u32, what: &str) {
    world
        .eventually(&format!("tally@{number} waits for {what}"), async || {
            let waiting = version(world, number).await["build"]["waiting_for"].clone();
            waiting.as_str().is_some_and(|waiting| waiting.contains(what))
        })
        .await;
}

/// A world whose first version is live, with so many events.
async fn live(world: &World, events: u32) {
    tally(world, 1, "");
    world
        .execute(&format!(
            "select es_append('order-' || n, null, null, array['Placed'], array['{{}}'::jsonb]) from generate_series(1, {events}) n"
        ))
        .await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    role(world, 1, "live").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
