//! Dead letters, as operators see and settle them. They are put there by hand: here nobody parks.

use serde_json::json;

use super::{folded, json as printed, ok, refused};
use crate::fold::TALLY;
use crate::world::World;

/// Two streams: `order-1` is quarantined with three letters, of which the first failed; one event of `order-2` was skipped.
async fn parked() -> World {
    let world = folded().await;
    world.execute("update es_subscriptions set dead_letters = 4").await;
    for kind in ["Paid", "Noted", "Shipped"] {
        world.append("order-1", kind, "{\"amount\": 12}").await;
    }
    world.append("order-2", "Placed", "{}").await;
    world
        .execute(
            "insert into es_dead_letters (subscription_id, stream_id, stream_version, global_position, event_type, reason, error)
             select 'tally@1', stream_id, stream_version, global_position, event_type,
                    case when event_type = 'Paid' then 'failed' when stream_id = 'order-1' then 'behind' else 'skipped' end,
                    case when event_type = 'Paid' then '{\"message\":\"it is too much\",\"remedy\":\"mend it\",\"sqlstate\":\"23514\"}'::jsonb
                         when stream_id = 'order-2' then '{\"message\":\"no\",\"remedy\":\"mend it\",\"sqlstate\":\"22012\"}' end
             from es_events where global_position > 1;
             insert into es_quarantined_streams (subscription_id, stream_id, since_version) values ('tally@1', 'order-1', 2)",
        )
        .await;
    world
}

async fn position(world: &World, stream: &str, kind: &str) -> String {
    world
        .value(&format!(
            "select global_position from es_events where stream_id = '{stream}' and event_type = '{kind}'"
        ))
        .await
}

const OPEN: &str = "select string_agg(event_type || coalesce('!' || (retry_wanted_at is not null), ''), ',' order by global_position)
                    from es_dead_letters where discarded_at is null";

#[tokio::test]
async fn parked_events_are_listed_by_what_they_have_in_common() {
    let world = parked().await;
    for (filter, there) in [
        (vec![], 4),
        (vec!["tally"], 4),
        (vec!["tally@1", "--stream", "order-1"], 3),
        (vec!["--type", "Noted"], 1),
        (vec!["--sqlstate", "23514"], 1),
        (vec!["--state", "discarded"], 0),
        (vec!["--limit", "2"], 2),
    ] {
        let args = [&["dead-letters", "list", "--json"], filter.as_slice()].concat();
        let letters = printed(&world.foldd(&args).await);
        assert_eq!(letters.as_array().map(Vec::len), Some(there), "{filter:?}: {letters}");
    }
    let table = ok(&world, &["dead-letters", "list", "--limit", "1"]).await;
    for part in
        ["order-1 at version 2", "23514: it is too much", "and 3 more", "foldd dead-letters show tally@1"]
    {
        assert!(table.contains(part), "no {part} in {table}");
    }
    assert!(refused(&world, 1, &["dead-letters", "list", "nobody"]).await.contains("tally@1"));
    let nothing = ok(&world, &["dead-letters", "list", "--type", "Lost"]).await;
    assert!(nothing.contains("no such event is parked"), "{nothing}");
}

#[tokio::test]
async fn one_is_shown_with_its_event() {
    let world = parked().await;
    let paid = position(&world, "order-1", "Paid").await;
    let text = ok(&world, &["dead-letters", "show", "tally", &paid]).await;
    for part in ["\"amount\": 12", "it is too much", "to do: mend it", "--stream order-1"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let shown = printed(&world.foldd(&["dead-letters", "show", "tally", &paid, "--json"]).await);
    assert_eq!((&shown["data"], &shown["reason"]), (&json!({ "amount": 12 }), &json!("failed")), "{shown}");
    assert!(refused(&world, 1, &["dead-letters", "show", "tally", "1"]).await.contains("position 1"));
}

#[tokio::test]
async fn status_counts_them_and_says_what_to_type() {
    let world = parked().await;
    assert_eq!(world.status("tally").await["dead_letters"], 4);
    let text = ok(&world, &["status"]).await;
    for part in ["DEAD LETTERS", "4 events are parked", "`foldd dead-letters list tally@1`"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    world.execute("update es_subscriptions set dead_letters = 0").await;
    assert!(!ok(&world, &["status"]).await.contains("DEAD LETTERS"));
}

#[tokio::test]
async fn a_retry_without_a_daemon_is_a_wish_that_stays() {
    let world = parked().await;
    let retry =
        ["dead-letters", "retry", "tally", "--stream", "order-1", "--timeout", "200ms", "--why", "mended"];
    let told = refused(&world, 3, &retry).await;
    for part in ["0 of 3 events", "no daemon is running", "`foldd run`"] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    assert_eq!(world.value(OPEN).await, "Paid!true,Noted!true,Shipped!true,Placed!false");
    let log = printed(&world.foldd(&["log", "--json"]).await);
    assert_eq!(
        (&log[0]["verb"], &log[0]["why"], &log[0]["after"]["retried"]),
        (&json!("retry"), &json!("mended"), &json!(3))
    );
    assert_eq!(world.status("tally").await["revision"], log[0]["revision"]);
    let listed = ok(&world, &["dead-letters", "list", "--type", "Paid"]).await;
    assert!(listed.contains("to be retried"), "{listed}");
}

#[tokio::test]
async fn a_quarantined_stream_is_retried_in_its_order() {
    let world = parked().await;
    let [paid, noted, shipped] = ["Paid", "Noted", "Shipped"].map(|kind| position(&world, "order-1", kind));
    let (paid, noted, shipped) = (paid.await, noted.await, shipped.await);
    let soon = ["--timeout", "1ms"];
    let retry = async |positions: &[&str]| {
        world.foldd(&[&["dead-letters", "retry", "tally"], positions, &soon].concat()).await
    };
    for early in [vec![noted.as_str()], vec![&paid, &shipped], vec!["--type", "Shipped"]] {
        let done = retry(&early).await;
        assert_eq!(done.code, 1, "{done:?}");
        assert!(
            done.err.contains("order-1 is quarantined") && done.err.contains("--stream order-1"),
            "{done:?}"
        );
        assert_eq!(
            world.value(OPEN).await,
            "Paid!false,Noted!false,Shipped!false,Placed!false",
            "nothing was done"
        );
    }
    assert_eq!(retry(&["--sqlstate", "23514"]).await.code, 3, "the first one may go alone");
    assert_eq!(retry(&[&noted]).await.code, 3, "those before are wanted already");
    assert_eq!(retry(&["--type", "Placed"]).await.code, 3, "a skipped one depends on nobody");
    assert_eq!(world.value(OPEN).await, "Paid!true,Noted!true,Shipped!false,Placed!true");
    assert_eq!(world.value("select count(*) from es_operator_log").await, "3");
}

#[tokio::test]
async fn a_retry_says_what_became_of_each_stream() {
    let world = parked().await;
    // In the place of a daemon: one stream is applied, in the other the first event fails again.
    let daemon = async {
        world
            .eventually("they are marked", async || world.value(OPEN).await.matches("true").count() == 4)
            .await;
        world
            .execute(
                "delete from es_dead_letters where stream_id = 'order-2';
                 update es_dead_letters set attempts = attempts + (event_type = 'Paid')::int, retry_wanted_at = null;",
            )
            .await;
    };
    let retry = ["dead-letters", "retry", "tally", "--all", "--timeout", "30s"];
    let (done, ()) = tokio::join!(world.foldd(&retry), daemon);
    assert_eq!(done.code, 1, "{done:?}");
    for part in ["order-1: 0 applied, 2 wait behind", "failed again: it is too much", "order-2: 1 applied"] {
        assert!(done.out.contains(part), "no {part} in {done:?}");
    }
    assert!(done.err.contains("1 event failed again"), "{done:?}");
}

#[tokio::test]
async fn what_is_discarded_is_gone_and_what_waited_behind_it_is_not() {
    let world = parked().await;
    let said =
        ok(&world, &["dead-letters", "discard", "tally", "--sqlstate", "23514", "--why", "a test"]).await;
    for part in ["1 event of tally@1 given up", "waited behind: 2 events", "retry tally@1 --stream order-1"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let quarantined = "select count(*) from es_quarantined_streams";
    let counted = "select dead_letters from es_subscriptions";
    assert_eq!(
        (world.value(counted).await, world.value(quarantined).await),
        ("3".to_owned(), "1".to_owned())
    );
    ok(&world, &["dead-letters", "discard", "tally", "--stream", "order-1"]).await;
    assert_eq!(
        (world.value(counted).await, world.value(quarantined).await),
        ("1".to_owned(), "0".to_owned())
    );
    let listed = printed(&world.foldd(&["dead-letters", "list", "--state", "discarded", "--json"]).await);
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    let again = refused(&world, 1, &["dead-letters", "discard", "tally", "--stream", "order-1"]).await;
    assert!(again.contains("no open dead letter of tally@1"), "{again}");
    let missing = refused(&world, 1, &["dead-letters", "discard", "tally", "1"]).await;
    assert!(missing.contains("position 1"), "{missing}");
    assert_eq!(
        world.value("select string_agg(after ->> 'open', ',' order by entry_id) from es_operator_log").await,
        "3,1"
    );
}

#[tokio::test]
async fn one_way_of_selecting_is_demanded() {
    let world = parked().await;
    for verb in ["retry", "discard"] {
        for choice in [vec![], vec!["7", "--all"], vec!["--stream", "a", "--type", "b"]] {
            refused(&world, 2, &[&["dead-letters", verb, "tally"], choice.as_slice()].concat()).await;
        }
    }
    assert_eq!(world.value("select count(*) from es_operator_log").await, "0");
}

#[tokio::test]
async fn the_daemon_counts_what_is_parked_and_forgets_what_was_discarded_long_ago() {
    let world = parked().await;
    ok(&world, &["dead-letters", "discard", "tally", "--type", "Placed"]).await;
    ok(&world, &["dead-letters", "discard", "tally", "--type", "Shipped"]).await;
    world
        .execute("update es_dead_letters set discarded_at = now() - interval '31 days' where event_type = 'Placed' and discarded_at is not null")
        .await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world
        .eventually("the old one is forgotten", async || {
            world
                .value(
                    "select string_agg(event_type, ',') from es_dead_letters where discarded_at is not null",
                )
                .await
                == "Shipped"
        })
        .await;
    let gauge = "foldd_dead_letters{projection=\"tally\",version=\"1\",partition=\"0\"} 2";
    world.eventually("they are counted", async || daemon.get("/metrics").await.1.contains(gauge)).await;
    daemon.stop().await;
}
