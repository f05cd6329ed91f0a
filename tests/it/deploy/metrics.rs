//! The four lists of metrics: what the reference documents, what a daemon exports, what alerts ask, what the dashboard draws.

use std::collections::BTreeSet;

use super::text;
use crate::fold::TALLY;
use crate::world::World;

/// All words of a text that look like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("foldd_") && word.len() > "foldd_".len())
        .map(|word| {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
            base.filter(|base| base.ends_with("_seconds") || base.ends_with("_events"))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}

/// What the reference lists; it is written from the code, and tested for being current.
fn documented() -> BTreeSet<String> {
    let reference = text("docs/metrics.md");
    let rows = reference.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('`').nth(1));
    names.filter(|name| name.contains('_')).map(str::to_owned).collect()
}

/// What is exported: the names of the samples themselves, not what is said about them.
fn exported(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next()).filter(|name| !name.is_empty());
    names
        .map(|name| match metrics_in(name).pop_first() {
            Some(metric) => metric,
            None => name.to_owned(),
        })
        .collect()
}

#[test]
fn what_is_alerted_on_and_drawn_is_documented() {
    let documented = documented();
    assert!(documented.len() > 30, "the reference is found: {documented:?}");
    for path in [
        "deploy/components/rules/rules.yaml",
        "deploy/components/rules/tests.yaml",
        "deploy/components/dashboard/foldd.json",
        "docs/runbook.md",
        "docs/sizing.md",
        "docs/deploying.md",
    ] {
        let named = metrics_in(&text(path));
        // Roles and schemas are called so too.
        let others = [
            "foldd_owner",
            "foldd_append",
            "foldd_daemon",
            "foldd_monitor",
            "foldd_bulk",
            "foldd_unordered",
            "foldd_parking",
        ];
        let unknown: Vec<&String> =
            named.difference(&documented).filter(|name| !others.contains(&name.as_str())).collect();
        assert!(unknown.is_empty(), "{path} names what nobody exports: {unknown:?}");
    }
}

/// Beside a projection that is live there are one that halts, one whose build waits, and one transaction that holds the log.
#[tokio::test]
async fn a_daemon_at_work_exports_what_is_documented_and_nothing_else() {
    let world = World::alone().await;
    world.projection("tally", TALLY);
    world.projection("halting", &TALLY.replace("count(*) from batch", "count(*) / 0 from batch"));
    world.projection("building", TALLY);
    world.seed("order", 20).await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.halted("halting").await;
    daemon.stop().await;
    // It takes a while.
    world.projection("building", &TALLY.replace("version = 1", "version = 2\nevents_per_second = 1"));
    let daemon = world.daemon();
    // Live, and so its delivery is measured.
    world.caught_up("tally").await;
    world.seed("order", 20).await;
    let mut appender = world.pool().begin().await.expect("a transaction can begin");
    sqlx::query("select es_append('order-open', null, null, array['Placed'], array['{}'::jsonb])")
        .execute(&mut *appender)
        .await
        .expect("an event can be appended");
    let documented = documented();
    let mut missing = documented.clone();
    world
        .eventually("everything that is documented is exported", async || {
            let exported = exported(&daemon.get("/metrics").await.1);
            let unknown: Vec<&String> = exported.difference(&documented).collect();
            assert!(unknown.is_empty(), "nobody documents {unknown:?}");
            missing.retain(|name| !exported.contains(name));
            missing.is_empty()
        })
        .await;
    appender.rollback().await.expect("it can end");
}
