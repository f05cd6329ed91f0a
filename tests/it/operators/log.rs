//! The log of operators.

use serde_json::json;

use super::{folded, json as printed, ok, refused};

#[tokio::test]
async fn an_entry_says_who_did_what_why_and_what_was_before() {
    let world = folded().await;
    let nothing = ok(&world, &["log"]).await;
    assert!(nothing.contains("no operator did anything yet"), "{nothing}");
    ok(&world, &["pause", "tally", "--by", "ada", "--why", "the disk is full"]).await;
    refused(&world, 3, &["resume", "tally", "--timeout", "1ms"]).await;
    let log = printed(&world.foldd(&["log", "--json"]).await);
    let entry = &log[1];
    assert_eq!(
        (&entry["verb"], &entry["projection"], &entry["who"], &entry["why"]),
        (&json!("pause"), &json!("tally@1"), &json!("ada"), &json!("the disk is full")),
        "{log}"
    );
    assert_eq!(entry["db_role"], "foldd_daemon");
    assert_eq!(entry["before"], json!({ "phase": "standby", "paused": false }));
    assert_eq!(entry["after"], json!({ "phase": "paused", "paused": true }));
    assert_eq!(log[0]["verb"], "resume", "the newest first");
    assert!(log[0]["who"].as_str().is_some_and(|who| !who.is_empty()), "{log}");
    let table = ok(&world, &["log", "tally"]).await;
    for part in ["ada", "standby to paused", "the disk is full", "tally@1"] {
        assert!(table.contains(part), "no {part} in {table}");
    }
    for (name, entries) in [("tally", 2), ("tally@1", 2)] {
        let log = printed(&world.foldd(&["log", name, "--json"]).await);
        assert_eq!(log.as_array().map(Vec::len), Some(entries), "{name}");
    }
    let last = printed(&world.foldd(&["log", "--limit", "1", "--json"]).await);
    assert_eq!(last.as_array().map(Vec::len), Some(1));
    assert!(refused(&world, 1, &["log", "tallies"]).await.contains("tally@1"));
}

#[tokio::test]
async fn the_operating_systems_user_signs_unless_another_is_named() {
    let world = folded().await;
    for (user, verb, signs) in [("grace", "pause", "grace"), ("", "resume", "user ")] {
        let mut command = world.command(&[verb, "tally", "--timeout", "1ms"]);
        command.env("USER", user).env_remove("LOGNAME");
        let ended = tokio::task::spawn_blocking(move || command.output()).await.expect("its thread ends");
        ended.expect("it starts");
        let signed = world.value("select who from es_operator_log order by entry_id desc limit 1").await;
        assert!(signed.starts_with(signs), "{signed}");
    }
    assert_eq!(world.value("select count(*) from es_operator_log").await, "2");
}
