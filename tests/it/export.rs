//! Export: the log as lines, whole or not at all, and the same lines again after an import.

use std::io::Read;
use std::process::Stdio;

use flate2::read::GzDecoder;

use crate::world::{World, real_log};

/// Waits until everything committed can be read: other tests share the server, and so the horizon.
async fn readable(world: &World) {
    let sql = "select es_horizon() > (select max(transaction_id) from es_events)";
    world.eventually("the horizon passes the log", async || world.value(sql).await == "true").await;
}

async fn exported(world: &World, args: &[&str]) -> String {
    readable(world).await;
    let done = world.foldd(&[&["export"], args].concat()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    done.out
}

#[tokio::test]
async fn export_import_export_is_the_identity() {
    let world = World::new().await;
    let long = "x".repeat(20_000);
    for (stream, data) in [
        ("account-1", "{\"b\": 1, \"a\": {\"b\": 2, \"b\": 3}}"),
        ("account-1", "1e400"),
        ("account-ä🦀", "\"\\u0001 \\\\ \\\" ☃\""),
        ("order-1", "-12345678901234567890.1234567890123456780"),
        ("order-1", "[1, [], {}, null, \"\"]"),
        (&format!("order-{long}"), "null"),
        ("order-2", &format!("{}{}", "[".repeat(3_000), "]".repeat(3_000))),
    ] {
        world.append(stream, "Something \"odd\"", data).await;
    }
    let sql = "select es_append('nodash', 'cat', null, array['E'], array['{}']::jsonb[], array['{\"who\": \"ada\"}']::jsonb[])";
    world.execute(sql).await;
    world.execute("select es_append('order-3', null, null, array_agg('E' || n), array_agg(to_jsonb(n))) from generate_series(1, 12000) n").await;
    let first = exported(&world, &[]).await;
    assert_eq!(first.lines().count(), 12_008);
    assert!(first.contains("\"data\":{\"a\": {\"b\": 3}, \"b\": 1}"), "as jsonb prints it");

    let other = World::new().await;
    std::fs::write(other.dir().join("log.jsonl"), &first).expect("a file");
    assert_eq!(other.foldd(&["import", "log.jsonl"]).await.code, 0);
    assert!(first == exported(&other, &[]).await, "the same bytes");
    // Into the same log, an export is there already.
    let again = other.foldd(&["import", "log.jsonl", "--resume"]).await;
    assert!(again.out.contains("12008 were there already"), "{}", again.out);
}

#[tokio::test]
async fn a_category_or_what_came_since_a_cursor_is_exported() {
    let world = World::new().await;
    world.append("account-1", "A", "1").await;
    world.append("order-1", "B", "2").await;
    let account = exported(&world, &["--category", "account"]).await;
    assert!(account.contains("\"account-1\"") && account.lines().count() == 1, "{account}");
    assert_eq!(exported(&world, &["--category", "nobody"]).await, "");
    let done = world.foldd(&["export", "part.jsonl"]).await;
    let cursor = done.out.trim().rsplit(' ').next().expect("a cursor").to_owned();
    world.append("order-2", "C", "3").await;
    let since = exported(&world, &["--from", &cursor]).await;
    assert!(since.contains("\"order-2\"") && since.lines().count() == 1, "{since}");
    assert_eq!(world.foldd(&["export", "--from", "7"]).await.code, 2);
}

#[tokio::test]
async fn a_file_is_whole_or_not_there() {
    let world = World::new().await;
    world.execute("select es_append('order-3', null, null, array_agg('E' || n), array_agg(to_jsonb(n))) from generate_series(1, 30000) n").await;
    readable(&world).await;
    let done = world.foldd(&["export", "log.jsonl.gz"]).await;
    assert!(done.code == 0 && done.out.starts_with("30000 events exported in "), "{} {}", done.out, done.err);
    let mut text = String::new();
    let file = std::fs::File::open(world.dir().join("log.jsonl.gz")).expect("it is there");
    GzDecoder::new(file).read_to_string(&mut text).expect("it is packed");
    assert_eq!(text.lines().count(), 30_000);

    // One that fails leaves the old file and nothing else.
    std::fs::write(world.dir().join("kept.jsonl"), "old").expect("a file");
    world.execute("alter table es_events rename column metadata to hidden").await;
    let failed = world.foldd(&["export", "kept.jsonl"]).await;
    assert_eq!(failed.code, 1, "{}", failed.out);
    world.execute("alter table es_events rename column hidden to metadata").await;
    assert_eq!(std::fs::read_to_string(world.dir().join("kept.jsonl")).expect("it is there"), "old");
    let mut names: Vec<_> = std::fs::read_dir(world.dir())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["foldd.toml", "kept.jsonl", "log.jsonl.gz", "projections"]);

    for (file, said) in [("projections", "it is a folder"), ("no/such.jsonl", "No such file")] {
        let done = world.foldd(&["export", file]).await;
        assert!(done.code == 2 && done.err.contains(said), "{file}: {}", done.err);
    }
    // What is no ordinary file is written to, never replaced.
    assert_eq!(world.foldd(&["export", "/dev/null"]).await.code, 0);
    assert!(!std::fs::metadata("/dev/null").expect("it is there").is_file());
    let full = world.foldd(&["export", "/dev/full"]).await;
    assert!(full.code == 1 && full.err.contains("/dev/full: cannot be written: No space"), "{}", full.err);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let world = World::new().await;
    world.execute("select es_append('order-3', null, null, array_agg('E' || n), array_agg(to_jsonb(n))) from generate_series(1, 30000) n").await;
    readable(&world).await;
    let mut child = world.command(&["export"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut first = [0; 10];
    let mut out = child.stdout.take().expect("it is piped");
    out.read_exact(&mut first).expect("there is a line");
    drop(out);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[tokio::test]
async fn the_real_log_goes_out_and_in_unchanged() {
    let Some(log) = real_log() else { return };
    let world = World::new().await;
    let done = world.foldd(&["import", &log.display().to_string()]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    eprintln!("{}", done.out.trim());
    let done = world.foldd(&["import", "--resume", &log.display().to_string()]).await;
    assert!(done.out.contains("561470 were there already"), "{}", done.out);
    readable(&world).await;
    let done = world.foldd(&["export", "log.jsonl"]).await;
    assert!(done.out.starts_with("561470 events exported"), "{} {}", done.out, done.err);
    eprintln!("{}", done.out.trim());
    let other = World::new().await;
    let path = world.dir().join("log.jsonl").display().to_string();
    assert_eq!(other.foldd(&["import", &path]).await.code, 0);
    readable(&other).await;
    let done = other.foldd(&["export", "log.jsonl"]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let read = |world: &World| std::fs::read(world.dir().join("log.jsonl")).expect("it is there");
    assert!(read(&world) == read(&other), "the same bytes");
}
