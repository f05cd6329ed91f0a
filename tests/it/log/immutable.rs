//! Events are facts: nobody changes one, and the single exception is on record.

use super::{append_any, places, session, settled, sqlstate, try_run, whole_log};
use crate::world::World;

#[tokio::test]
async fn nobody_changes_or_removes_events() {
    let world = World::new().await;
    append_any(&world.store(), "account-1", 2).await;
    let (mut conn, _) = session(&world).await;
    for statement in [
        "update es_events set data = '{}'",
        "update es_events set stream_version = 3 where false",
        "delete from es_events",
        "delete from es_events where false",
        "truncate es_events",
        "truncate es_streams cascade",
        "insert into es_events (global_position, stream_id, stream_category, stream_version, event_type, data)
         values (1, 'account-1', 'account', 9, 'A', '{}') on conflict (global_position) do update set data = '[]'",
    ] {
        let error = try_run(&mut conn, statement).await.expect_err(statement);
        assert_eq!(sqlstate(&error), "ES003", "{statement}: {error}");
    }
    try_run(&mut conn, "delete from es_streams").await.expect_err("its events need it");
    assert_eq!(places(&whole_log(&world).await), [("account-1", 1), ("account-1", 2)]);
}

#[tokio::test]
async fn redaction_blanks_a_stream_and_keeps_its_order() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 2).await;
    append_any(&store, "account-2", 1).await;
    append_any(&store, "account-1", 1).await;
    world
        .execute(
            "insert into es_snapshots (stream_id, stream_version, snapshot_version, state)
             select stream_id, 1, 1, '{}' from es_streams",
        )
        .await;
    let before = whole_log(&world).await;
    assert_eq!(world.value("select es_redact('account-1', 'request 7')").await, "3");
    let after = whole_log(&world).await;
    assert_eq!(places(&before), places(&after));
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            (old.cursor(), old.event_id, old.created_at),
            (new.cursor(), new.event_id, new.created_at)
        );
        let blanked = new.data.get() == "{\"redacted\": true}" && new.metadata.get() == "{}";
        assert_eq!(blanked, new.stream_id == "account-1", "{new:?}");
    }
    assert_eq!(world.value("select string_agg(stream_id, ',') from es_snapshots").await, "account-2");
    assert_eq!(
        world
            .value("select format('%s %s-%s %s %s %s', stream_id, from_version, to_version, events, reason, redacted_by = session_user) from es_redactions")
            .await,
        "account-1 1-3 3 request 7 t"
    );
    // The exception ends with the call, and the stream goes on.
    let (mut conn, _) = session(&world).await;
    let still = "begin; select es_redact('account-2', 'again', 1, 1, '[]'); update es_events set data = '{}'";
    assert_eq!(sqlstate(&try_run(&mut conn, still).await.expect_err("the exception has ended")), "ES003");
    assert_eq!(append_any(&store, "account-1", 1).await.version, 4);
    settled(&world).await;
}

#[tokio::test]
async fn redaction_takes_a_range_and_wants_a_reason() {
    let world = World::new().await;
    append_any(&world.store(), "account-1", 4).await;
    assert_eq!(world.value("select es_redact('account-1', 'r', 2, 3, 'null')").await, "2");
    assert_eq!(
        world.value("select string_agg(stream_version::text, ',') from es_events where data = 'null'").await,
        "2,3"
    );
    for wrong in ["'account-1', ' '", "'account-1', null", "'account-9', 'r'"] {
        let error = world.try_value(&format!("select es_redact({wrong})")).await.expect_err(wrong);
        assert_eq!(sqlstate(&error), "22023", "{wrong}");
    }
    assert_eq!(world.value("select count(*) from es_redactions").await, "1");
}
