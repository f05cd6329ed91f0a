//! Import and export as processes: what is in stays in, what is run again doubles nothing, what goes out comes in again.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::world::{PATIENCE, World};

/// Writes a file into the world's folder.
fn file(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.dir().join(name);
    std::fs::write(&path, text).expect("a file can be written");
    path
}

/// So many lines without ids, over some streams of the category `order`.
fn lines(count: usize, streams: usize) -> String {
    (1..=count)
        .map(|n| {
            let stream = n % streams;
            format!(
                "{{\"stream_id\":\"order-{stream}\",\"event_type\":\"Imported\",\"data\":{{\"n\":{n}}}}}\n"
            )
        })
        .collect()
}

async fn count(world: &World) -> String {
    world.value("select count(*) from es_events").await
}

#[tokio::test]
async fn an_import_run_again_doubles_nothing_and_says_what_to_do() {
    let world = World::new().await;
    file(&world, "a.jsonl", &lines(25_000, 100));
    let first = world.foldd(&["import", "a.jsonl"]).await;
    assert_eq!(first.code, 0, "{}", first.err);
    let again = world.foldd(&["import", "a.jsonl"]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("up to line 25000; --resume goes on"), "{}", again.err);
    let resumed = world.foldd(&["import", "a.jsonl", "--resume"]).await;
    assert_eq!(resumed.code, 0, "{}", resumed.err);
    assert!(resumed.out.contains("0 events imported; 25000 were there already"), "{}", resumed.out);
    assert_eq!(count(&world).await, "25000");

    // The file has grown; nothing else has to be said.
    let longer = lines(25_010, 100);
    file(&world, "a.jsonl", &longer);
    let resumed = world.foldd(&["import", "a.jsonl", "--resume"]).await;
    assert!(resumed.out.starts_with("10 events imported in "), "{}", resumed.out);

    // Its packed copy has the same name, and standard input is what --name says.
    let path = world.dir().join("a.jsonl.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(path).expect("a file"), Compression::fast());
    gzip.write_all(longer.as_bytes()).and_then(|()| gzip.try_finish()).expect("it can be written");
    let resumed = world.foldd(&["import", "a.jsonl.gz", "--resume"]).await;
    assert!(resumed.out.contains("25010 were there already"), "{}", resumed.out);
    file(&world, "b.jsonl", &longer);
    let named = world.foldd(&["import", "b.jsonl", "--resume", "--name", "a.jsonl"]).await;
    assert!(named.out.contains("25010 were there already"), "{}", named.out);
    assert_eq!(count(&world).await, "25010");
}

#[tokio::test]
async fn a_line_that_changed_since_is_an_error_that_names_it() {
    let world = World::new().await;
    let text = lines(3_000, 10);
    file(&world, "a.jsonl", &text);
    assert_eq!(world.foldd(&["import", "a.jsonl"]).await.code, 0);
    file(&world, "a.jsonl", &text.replace("{\"n\":1234}", "{\"n\":4321}"));
    let changed = world.foldd(&["import", "a.jsonl", "--resume"]).await;
    assert_eq!(changed.code, 1);
    assert!(changed.err.contains("line 1234: was imported already, with another content"), "{}", changed.err);
    // A line more at the top shifts all others: nothing of that is taken for new.
    file(&world, "a.jsonl", &format!("{}{text}", lines(1, 10).replace("order-1", "order-7")));
    let shifted = world.foldd(&["import", "a.jsonl", "--resume"]).await;
    assert!(shifted.code == 1 && shifted.err.contains("line 1: was imported already"), "{}", shifted.err);
    assert_eq!(count(&world).await, "3000");
}

#[tokio::test]
async fn lines_with_ids_of_their_own_are_known_by_them() {
    let world = World::new().await;
    let line = |n: u32, stream: &str| {
        format!(
            "{{\"stream_id\":\"{stream}\",\"event_type\":\"E\",\"data\":{n},\
             \"event_id\":\"00000000-0000-4000-8000-{n:012}\"}}\n"
        )
    };
    let text: String = (1..=10).map(|n| line(n, "a-1")).collect();
    file(&world, "first.jsonl", &text[..text.len() / 2]);
    file(&world, "all.jsonl", &text);
    assert_eq!(world.foldd(&["import", "first.jsonl"]).await.code, 0);
    let refused = world.foldd(&["import", "all.jsonl"]).await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("line 1: event_id 00000000-0000-4000-8000-000000000001 is in the log already")
    );
    assert!(refused.err.contains("--resume skips what is there already"), "{}", refused.err);
    // The same id twice in a file is one event when it is resumed …
    file(&world, "all.jsonl", &format!("{text}{}", line(3, "a-1")));
    let resumed = world.foldd(&["import", "all.jsonl", "--resume"]).await;
    assert!(
        resumed.out.contains("5 events imported") && resumed.out.contains("6 were there"),
        "{}",
        resumed.out
    );
    // … but not when it stands for something else.
    file(&world, "other.jsonl", &format!("{}{}{}", line(20, "a-1"), line(4, "a-2"), line(21, "a-1")));
    let twin = world.foldd(&["import", "other.jsonl", "--resume"]).await;
    assert_eq!(twin.code, 1);
    assert!(twin.err.contains("line 2: event_id 00000000-0000-4000-8000-000000000004 is in the log already, as 'E', version 4 of stream 'a-1'"), "{}", twin.err);
    assert!(twin.err.contains("1 events imported in"), "{}", twin.err);
    // Without --resume, a repeated id is a bad line, named.
    file(&world, "twice.jsonl", &format!("{}{}{}", line(30, "a-1"), line(31, "a-1"), line(30, "a-1")));
    let twice = world.foldd(&["import", "twice.jsonl"]).await;
    assert!(twice.code == 1 && twice.err.contains("line 3: event_id"), "{}", twice.err);
    assert_eq!(count(&world).await, "13");
}

/// What it says on the way, as (what stands before the count, the count); each line ends in a rate.
fn progress(said: &str) -> Vec<(&str, &str)> {
    let told = |line| -> Option<(&str, &str)> {
        let (before, rate) = str::strip_suffix(line, "/s")?.split_once(" events, ")?;
        let (before, count) = before.rsplit_once(": ").unwrap_or(("", before));
        rate.parse::<u64>().ok().map(|_| (before, count))
    };
    said.lines().map(|line| told(line).unwrap_or_else(|| panic!("no progress: {line}"))).collect()
}

#[tokio::test]
async fn an_import_tells_how_far_it_is_and_at_the_end_what_it_did() {
    let world = World::new().await;
    file(&world, "a.jsonl", &lines(35_000, 100));
    let done = world.foldd(&["import", "a.jsonl"]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    // Three blocks of ten thousand; behind the rest of it stands the summary.
    let told = progress(&done.err);
    let tenths: Vec<u32> =
        told.iter().filter_map(|(read, _)| read.strip_suffix("0 % read")?.parse().ok()).collect();
    assert_eq!(told.iter().map(|told| told.1).collect::<Vec<_>>(), ["10000", "20000", "30000"]);
    assert!(tenths.len() == 3 && tenths.is_sorted_by(|one, next| one < next), "{}", done.err);
    assert!(tenths.iter().all(|tenths| (2..10).contains(tenths)), "{}", done.err);
    assert!(done.out.starts_with("35000 events imported in ") && done.out.contains("/s), up to cursor "));
    assert_eq!(done.out.lines().count(), 1);

    // Of standard input nobody knows the length.
    let mut command = world.command(&["import", "-", "--name", "b"]);
    let input = std::fs::File::open(file(&world, "b.jsonl", &lines(35_000, 100))).expect("a file");
    let mut cat = std::process::Command::new("cat");
    let mut cat = cat.stdin(input).stdout(Stdio::piped()).spawn().expect("there is a cat");
    command.stdin(cat.stdout.take().expect("it has an output"));
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it starts");
    cat.wait().expect("it ends");
    assert!(output.status.success());
    assert_eq!(progress(&String::from_utf8_lossy(&output.stderr)), [("", "10000"), ("", "20000")]);

    let done = world.foldd(&["import", "a.jsonl", "--resume", "--json"]).await;
    let summary: serde_json::Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((&summary["imported"], &summary["already_there"]), (&0.into(), &35_000.into()), "{summary}");
    assert!(summary["cursor"].is_null() && summary["seconds"].is_number(), "{summary}");
    file(&world, "c.jsonl", &format!("{}nonsense\n{}", lines(2, 2), lines(1, 1)));
    let done = world.foldd(&["import", "c.jsonl", "--skip-bad", "--quiet", "--json"]).await;
    let summary: serde_json::Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((&summary["imported"], &summary["bad_lines"]), (&3.into(), &1.into()), "{summary}");
    assert!(summary["cursor"].as_str().is_some_and(|cursor| cursor.parse::<foldd::Cursor>().is_ok()));
    assert!(summary["events_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{summary}");
    file(&world, "d.jsonl", &lines(35_000, 100));
    assert_eq!(world.foldd(&["import", "d.jsonl", "--quiet"]).await.err, "", "--quiet is quiet");
}

/// Killed at random moments, again and again, beside appenders to the same streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_import_killed_anywhere_loses_and_doubles_nothing_beside_live_appenders() {
    const LINES: usize = 60_000;
    const STREAMS: usize = 200;
    let given = std::env::var("FOLDD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("FOLDD_TEST_SEED={seed}");
    let world = World::new().await;
    file(&world, "a.jsonl", &lines(LINES, STREAMS));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stop = &stop;
    let appenders = (0..4_u64).map(|who| {
        let world = &world;
        async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(who));
            let (mut appended, mut longest) = (0_u64, Duration::ZERO);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let stream = format!("order-{}", random.usize(..STREAMS));
                let asked = Instant::now();
                world.append(&stream, "Live", "{}").await;
                longest = longest.max(asked.elapsed());
                appended += 1;
            }
            (appended, longest)
        }
    });
    let import = async {
        let mut kills = 0;
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let mut command = world.command(&["import", "a.jsonl", "--resume", "--quiet"]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
            let patience = Duration::from_millis(if kills < 8 { random.u64(30..630) } else { 60_000 });
            let started = Instant::now();
            let ended = loop {
                if let Some(status) = child.try_wait().expect("it can be waited for") {
                    break Some(status);
                }
                if started.elapsed() > patience {
                    child.kill().expect("it can be killed");
                    child.wait().expect("it ends");
                    break None;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            match ended {
                Some(status) => {
                    assert!(status.success(), "seed {seed}: the import ends well");
                    break;
                }
                None => kills += 1,
            }
            assert!(started.elapsed() < PATIENCE * 2);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        kills
    };
    let (kills, live) = tokio::join!(import, futures_util::future::join_all(appenders));
    let longest = live.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
    let live: u64 = live.into_iter().map(|(appended, _)| appended).sum();
    eprintln!("{kills} kills, {live} live events, the longest append took {longest:?}");
    assert_eq!(count(&world).await, (LINES as u64 + live).to_string(), "seed {seed}");
    verify_streams(&world, seed).await;
    let in_order = "select count(*) from (
        select (data->>'n')::int - lag((data->>'n')::int) over (partition by stream_id order by stream_version) as step
        from es_events where event_type = 'Imported') steps where step <> 200";
    assert_eq!(
        world.value(in_order).await,
        "0",
        "seed {seed}: each stream has the lines in the order of the file"
    );
    let again = world.foldd(&["import", "a.jsonl", "--resume"]).await;
    assert!(again.out.contains(&format!("{LINES} were there already")), "{}", again.out);
}

/// Versions without gaps, stamps that never fall along a stream, and positions that rise with it.
async fn verify_streams(world: &World, seed: u64) {
    let wrong = "select count(*) from (
        select stream_version - row_number() over w as gap,
               transaction_id < lag(transaction_id) over w as falls,
               transaction_id = lag(transaction_id) over w and global_position < lag(global_position) over w as crosses
        from es_events window w as (partition by stream_id order by stream_version)
    ) checked where gap <> 0 or falls or crosses";
    assert_eq!(world.value(wrong).await, "0", "seed {seed}: versions and stamps are right");
    let behind = "select count(*) from es_streams s where stream_version <>
        (select max(stream_version) from es_events e where e.stream_id = s.stream_id)";
    assert_eq!(world.value(behind).await, "0", "seed {seed}");
}
