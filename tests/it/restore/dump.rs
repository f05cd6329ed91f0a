//! A dump, restored into a cluster that is younger than the log, or older.

use serde_json::Value;

use super::{assert_folded, copy, fingerprint, grow_older, lived_in};
use crate::fold::TALLY;
use crate::log::{ask, run, session};
use crate::world::World;

#[tokio::test]
async fn a_log_in_a_younger_cluster_stops_the_daemon_until_it_is_rebased() {
    let mut old = lived_in().await;
    let mut new = World::bare_alone().await;
    if copy(&mut old, &mut new).await.is_none() {
        return;
    }
    new.projection("tally", TALLY);
    let before = fingerprint(&new).await;

    // A session that prepared its INSERT before, and one with a snapshot that is older than the repair.
    let (mut prepared, _) = session(&new).await;
    run(
        &mut prepared,
        "prepare put as insert into es_events (stream_id, stream_version, event_type, data)
         select $1, stream_version, 'Noted', '{}' from es_streams where stream_id = $1",
    )
    .await;
    let (mut old_snapshot, _) = session(&new).await;
    run(&mut old_snapshot, "begin isolation level repeatable read; select count(*) from es_streams").await;

    let done = new.foldd(&["run"]).await;
    assert_eq!(done.code, 1, "{}", done.err);
    for word in ["greatest stamp", "younger cluster", "foldd rebase"] {
        assert!(done.err.contains(word), "no {word} in {}", done.err);
    }
    let done = new.foldd(&["doctor", "--json"]).await;
    assert_eq!(done.code, 3, "{}", done.err);
    let findings: Value = serde_json::from_str(&done.out).expect("it is JSON");
    let stamps = findings.as_array().and_then(|all| all.iter().find(|finding| finding["check"] == "stamps"));
    assert_eq!(stamps.map(|stamps| &stamps["health"]), Some(&"bad".into()), "{findings}");

    let done = new.foldd(&["rebase", "--dry-run"]).await;
    assert!(done.code == 0 && done.out.contains("would count"), "{done:?}");
    assert_eq!(new.foldd(&["doctor"]).await.code, 3, "a dry run changes nothing");
    let done = new.foldd(&["rebase", "--json"]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let outcome: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((&outcome["done"], &outcome["restamped"]), (&true.into(), &0.into()), "{outcome}");
    assert_eq!(fingerprint(&new).await, before, "no event and no checkpoint is rewritten");

    run(
        &mut old_snapshot,
        "select es_append('order-old', null, null, '{Noted}', array['{}']::jsonb[]); commit",
    )
    .await;
    run(
        &mut prepared,
        "begin; insert into es_streams (stream_id, stream_category, stream_version) values ('order-raw', 'order', 1);
         execute put('order-raw'); commit",
    )
    .await;
    let last = ask(&mut prepared, "select max(transaction_id::text::bigint) from es_events where stream_id like 'order-%' and stream_id not in ('order-raw', 'order-old')").await;
    let lowest = ask(&mut prepared, "select min(transaction_id::text::bigint) from es_events where stream_id in ('order-raw', 'order-old')").await;
    assert!(last.parse::<i64>().ok() < lowest.parse::<i64>().ok(), "{last} {lowest}");

    let daemon = new.daemon();
    new.seed("order", 50).await;
    assert_folded(&new).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert_eq!(new.foldd(&["doctor"]).await.code, 0);
    let done = new.foldd(&["rebase"]).await;
    assert!(done.code == 0 && done.out.contains("nothing to do"), "{done:?}");
}

#[tokio::test]
async fn what_was_appended_before_anybody_noticed_is_stamped_anew() {
    let mut old = lived_in().await;
    let mut new = World::bare_alone().await;
    if copy(&mut old, &mut new).await.is_none() {
        return;
    }
    new.projection("tally", TALLY);
    new.append("order-5", "Noted", "{}").await;
    new.append("order-late", "Noted", "{}").await;
    new.execute(
        "begin; update es_streams set stream_version = stream_version + 1 where stream_id = 'order-6';
         insert into es_events (stream_id, stream_version, event_type, data)
         select stream_id, stream_version, 'Noted', '{}' from es_streams where stream_id = 'order-6'; commit",
    )
    .await;
    let done = new.foldd(&["rebase"]).await;
    assert!(done.code == 1 && done.err.contains("--repair"), "{done:?}");
    let done = new.foldd(&["rebase", "--repair"]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let daemon = new.daemon();
    new.append("order-late", "Noted", "{}").await;
    assert_folded(&new).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    let inverted = "select count(*) from (select (transaction_id, global_position)
            < lag((transaction_id, global_position)) over (partition by stream_id order by stream_version) as falls
        from es_events) walked where falls";
    assert_eq!(new.value(inverted).await, "0");
    assert_eq!(new.value("select restamped > 0 from es_rebases").await, "true");
}

#[tokio::test]
async fn a_cluster_that_counts_on_is_only_noted() {
    let mut old = lived_in().await;
    let mut new = World::bare_alone().await;
    grow_older(&new, 6_000).await;
    new.execute("drop table used_up").await;
    if copy(&mut old, &mut new).await.is_none() {
        return;
    }
    new.projection("tally", TALLY);
    let daemon = new.daemon();
    assert_folded(&new).await;
    assert!(daemon.log().contains("come to another cluster"), "{}", daemon.log());
    assert_eq!(
        new.value("select m.system_identifier = s.system_identifier from es_meta m, pg_control_system() s")
            .await,
        "true"
    );
    assert_eq!(new.value("select count(*) from es_rebases").await, "0");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_cluster_that_counts_on_is_no_excuse_for_events_that_were_passed_unseen() {
    let mut old = lived_in().await;
    let mut new = World::bare_alone().await;
    if copy(&mut old, &mut new).await.is_none() {
        return;
    }
    new.projection("tally", TALLY);
    new.append("order-late", "Noted", "{}").await;
    // Nobody looked until the cluster had caught up with the log.
    grow_older(&new, 6_000).await;
    let done = new.foldd(&["run"]).await;
    assert!(done.code == 1 && done.err.contains("rebase --repair"), "{done:?}");
    assert_eq!(new.foldd(&["rebase", "--repair"]).await.code, 0);
    let daemon = new.daemon();
    assert_folded(&new).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_daemon_that_finds_itself_in_a_younger_cluster_ends_and_says_why() {
    let mut old = lived_in().await;
    let mut new = World::bare_alone().await;
    if copy(&mut old, &mut new).await.is_none() {
        return;
    }
    let address = old.dir().join("address");
    std::fs::write(&address, old.url()).expect("a file can be written");
    let mut command = old.command(&["run"]);
    command.env_remove("DATABASE_URL").env("FOLDD__DATABASE__URL_FILE", &address);
    let daemon = old.daemon_of(command);
    old.caught_up("tally").await;
    let before = fingerprint(&new).await;
    // The name in its configuration leads to the restored log from now on.
    std::fs::write(&address, new.url()).expect("a file can be written");
    old.server().crash().await.expect("the old server goes down");
    daemon.says("draining").await;
    let log = daemon.log_path();
    assert_eq!(daemon.ended().await.code(), Some(1));
    let said = std::fs::read_to_string(log).expect("it has a log");
    assert!(said.contains("younger cluster") && said.contains("foldd rebase"), "{said}");
    assert_eq!(fingerprint(&new).await, before, "nothing was folded there");
}
