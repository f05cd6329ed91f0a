//! Odd events, by every way in: either stored exactly and exported again, or refused with place, value and remedy.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use foldd::{Event, EventData, ExpectedVersion, ImportEvent, ReadDirection, StreamQuery};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::world::World;

/// What becomes of an event.
enum Fate {
    /// It is stored, and its data reads like this.
    Stored(String),
    /// It is refused: what an import says, and what the database says.
    Refused(&'static str, &'static str),
}

struct Odd {
    name: &'static str,
    stream_id: String,
    data: String,
    fate: Fate,
}

fn odd(name: &'static str, data: &str, stored: &str) -> Odd {
    let fate = Fate::Stored(stored.to_owned());
    Odd { name, stream_id: "odd-1".to_owned(), data: data.to_owned(), fate }
}

fn same(name: &'static str, data: &str) -> Odd {
    odd(name, data, data)
}

fn bad(name: &'static str, data: &str, line: &'static str, database: &'static str) -> Odd {
    let fate = Fate::Refused(line, database);
    Odd { name, stream_id: "odd-1".to_owned(), data: data.to_owned(), fate }
}

fn on(stream_id: String, odd: Odd) -> Odd {
    Odd { stream_id, ..odd }
}

/// Text that cannot be compressed to fit into an index row.
fn noise(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.alphanumeric()).collect()
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

fn corpus() -> Vec<Odd> {
    let digits = "-12345678901234567890123456789012345678";
    let large = format!("\"{}\"", noise(20 << 20));
    let overflow = "value overflows numeric format";
    vec![
        bad(
            "a character 0",
            r#""\u0000""#,
            r"`data` contains \u0000, which is no character; PostgreSQL",
            "unsupported Unicode escape sequence",
        ),
        bad(
            "half a pair",
            r#"{"a":"\ud83d"}"#,
            r"`data` contains \ud83d",
            "invalid input syntax for type json",
        ),
        bad(
            "the other half",
            r#"["\ude00"]"#,
            r"`data` contains \ude00",
            "invalid input syntax for type json",
        ),
        odd("more than a float", "1e400", &format!("1{}", "0".repeat(400))),
        bad("more than numeric", "1e200000", overflow, overflow),
        same("38 digits", digits),
        same("38 digits behind the point", "0.00000000000000000000000000000000000001"),
        same("5,000 deep", &nested(5_000)),
        bad(
            "200,000 deep",
            &nested(200_000),
            "stack depth limit exceeded; nest the data less deeply",
            "stack depth",
        ),
        same("20 MB", &large),
        same("an array", "[1, 2, [3]]"),
        same("an empty array", "[]"),
        same("a number", "-0.10"),
        same("a text", "\"text\""),
        same("true", "true"),
        same("null", "null"),
        odd("a key twice", r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
        same("other scripts", r#"{"ключ": "值 🦀 \u0001\"\\"}"#),
        odd("escapes", r#""\ud83e\udd80\u00e4\/""#, "\"🦀ä/\""),
        on(
            "odd".to_owned(),
            bad("no dash", "1", "stream \"odd\" has no category in its name", "has no category"),
        ),
        on(
            "-1".to_owned(),
            bad("no word", "1", "stream \"-1\" has no category in its name", "has no category"),
        ),
        on(String::new(), bad("no stream", "1", "`stream_id` is empty", "needs a stream_id")),
        on(format!("odd-{}", noise(10_000)), bad("an id without end", "1", "index row ", "index row ")),
        on(format!("odd-{}", "a".repeat(10_000)), same("a long id that packs well", "1")),
    ]
}

fn line(odd: &Odd) -> String {
    let stream_id = &odd.stream_id;
    format!("{{\"stream_id\":\"{stream_id}\",\"event_type\":\"Odd\",\"data\":{}}}\n", odd.data)
}

fn good(n: usize) -> String {
    format!("{{\"stream_id\":\"good-{n}\",\"event_type\":\"Good\",\"data\":{n}}}\n")
}

/// Whether the last event of its stream holds exactly this.
async fn is_stored(world: &World, stream_id: &str, data: &str) -> bool {
    sqlx::query_scalar(
        "select coalesce((select data::text = $2 from es_events where stream_id = $1
                          order by stream_version desc limit 1), false)",
    )
    .bind(stream_id)
    .bind(data)
    .fetch_one(world.pool())
    .await
    .expect("it can be looked at")
}

#[tokio::test]
async fn each_odd_event_is_imported_exactly_or_refused_by_line() {
    let world = World::new().await;
    for (n, odd) in corpus().iter().enumerate() {
        let name = format!("{n}.jsonl");
        std::fs::write(world.dir().join(&name), good(n) + &line(odd) + &good(n)).expect("a file");
        let done = world.foldd(&["import", &name]).await;
        let good = world.value(&format!("select count(*) from es_events where stream_id = 'good-{n}'")).await;
        match &odd.fate {
            Fate::Stored(data) => {
                assert_eq!((done.code, good.as_str()), (0, "2"), "{}: {}", odd.name, done.err);
                assert!(is_stored(&world, &odd.stream_id, data).await, "{} is stored exactly", odd.name);
            }
            Fate::Refused(said, _) => {
                assert_eq!((done.code, good.as_str()), (1, "1"), "{}: {}", odd.name, done.err);
                let expected = format!("foldd: line 2: {said}");
                assert!(done.err.starts_with(&expected), "{}: {}", odd.name, done.err);
                assert!(done.err.contains("; ") && done.err.contains("1 events imported"), "{}", done.err);
                assert!(done.err.len() < 1_000, "{}: the value is not printed whole", odd.name);
            }
        }
    }
}

#[tokio::test]
async fn bad_lines_are_skipped_reported_and_counted_and_the_daemon_folds_the_rest() {
    let world = World::new().await;
    world.projection(
        "odds",
        "/* foldd\nversion = 1\ncategories = [\"odd\", \"good\"]\n*/\n-- @tables\n\
         create table odds (event_type text primary key, n bigint not null, bytes bigint not null);\n-- @batch\n\
         insert into odds select event_type, count(*), sum(length(data::text)) from batch group by 1\n\
         on conflict (event_type) do update set n = odds.n + excluded.n, bytes = odds.bytes + excluded.bytes;\n",
    );
    let daemon = world.daemon();
    let corpus = corpus();
    let text: String = corpus.iter().enumerate().map(|(n, odd)| line(odd) + &good(n)).collect();
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"{\"stream_id\":\"odd-\xff\"}\n[1]\nnonsense\n");
    bytes.extend_from_slice(good(999).as_bytes());
    std::fs::write(world.dir().join("odd.jsonl"), &bytes).expect("a file");
    let done = world.foldd(&["import", "odd.jsonl", "--skip-bad", "--report", "bad.jsonl"]).await;
    assert_eq!(done.code, 0, "{}", done.err);

    let is_bad = |odd: &&Odd| matches!(odd.fate, Fate::Refused(..));
    let mut expected: Vec<u64> = corpus
        .iter()
        .zip((1_u64..).step_by(2))
        .filter(|(odd, _)| is_bad(odd))
        .map(|(_, line)| line)
        .collect();
    let end = corpus.len() as u64 * 2;
    expected.extend([end + 1, end + 2, end + 3]);
    let report = std::fs::read_to_string(world.dir().join("bad.jsonl")).expect("the report is there");
    let reported: Vec<serde_json::Value> =
        report.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let lines: Vec<u64> = reported.iter().filter_map(|bad| bad["line"].as_u64()).collect();
    assert_eq!(lines, expected);
    assert!(reported.iter().all(|bad| bad["reason"].is_string() && bad["remedy"].is_string()));
    assert!(done.out.contains(&format!("{} bad lines skipped", expected.len())), "{}", done.out);
    assert!(done.err.contains("line 1: `data` contains"), "{}", done.err);
    let stored = corpus.len() + 1 + corpus.len() - corpus.iter().filter(is_bad).count();
    assert_eq!(world.value("select count(*) from es_events").await, stored.to_string());

    world.caught_up("odds").await;
    assert_eq!(world.value("select sum(n) from odds.odds").await, stored.to_string());
    assert_eq!(world.status("odds").await["phase"], "live");
    assert_eq!(daemon.stop().await.code(), Some(0));

    // A skipped line that was mended comes in when the import is resumed.
    let mended = String::from_utf8_lossy(&bytes).replace(r#""\u0000""#, "\"mended\"");
    std::fs::write(world.dir().join("odd.jsonl"), mended).expect("a file");
    let done = world.foldd(&["import", "odd.jsonl", "--skip-bad", "--resume"]).await;
    assert!(done.code == 0 && done.out.contains("1 events imported"), "{} {}", done.out, done.err);
    assert!(done.out.contains(&format!("{stored} were there already")), "{}", done.out);
}

#[tokio::test]
async fn beyond_the_first_bad_lines_only_the_report_goes_on() {
    let world = World::new().await;
    std::fs::write(world.dir().join("bad.jsonl"), "nonsense\n".repeat(15_000)).expect("a file");
    let done = world.foldd(&["import", "bad.jsonl", "--skip-bad", "--report", "report.jsonl"]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let about_lines = done.err.lines().filter(|line| !line.ends_with("/s")).count();
    assert_eq!(about_lines, 21, "{}", done.err);
    assert_eq!(done.out.trim(), "0 events imported; 15000 bad lines skipped");
    let report = std::fs::read_to_string(world.dir().join("report.jsonl")).expect("the report is there");
    assert_eq!(report.lines().count(), 15_000);
    let done = world.foldd(&["import", "bad.jsonl", "--skip-bad", "--report", "no/such/report"]).await;
    assert!(
        done.code == 2 && done.err.contains("--report no/such/report: cannot be written"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn inputs_that_cannot_be_read_are_named() {
    let world = World::new().await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let text: String = (0..5_000).map(good).collect();
    gzip.write_all(text.as_bytes()).expect("in memory");
    let whole = gzip.finish().expect("in memory");
    std::fs::write(world.dir().join("cut.jsonl.gz"), &whole[..whole.len() / 2]).expect("a file");
    for more in [&[][..], &["--skip-bad", "--resume"]] {
        let done = world.foldd(&[&["import", "cut.jsonl.gz"], more].concat()).await;
        assert_eq!(done.code, 1);
        assert!(done.err.contains("the input cannot be read any further"), "{}", done.err);
        let stored: u64 = world.value("select count(*) from es_events").await.parse().expect("a number");
        assert!(stored > 1_000, "what could be read is in: {stored}");
        assert!(done.err.contains(&format!("line {}: ", stored + 1)), "{}", done.err);
    }
    // The whole file then brings in the rest.
    std::fs::write(world.dir().join("cut.jsonl.gz"), &whole).expect("a file");
    assert_eq!(world.foldd(&["import", "cut.jsonl.gz", "--resume"]).await.code, 0);
    assert_eq!(world.value("select count(*) from es_events").await, "5000");

    std::fs::write(world.dir().join("empty.jsonl"), "").expect("a file");
    let done = world.foldd(&["import", "empty.jsonl"]).await;
    assert_eq!((done.code, done.out.trim()), (0, "0 events imported"));
    for (file, said) in [
        ("projections", "projections: cannot be read: it is a folder"),
        ("missing.jsonl", "missing.jsonl: cannot be read: No such file"),
        ("foldd.toml/x", "foldd.toml/x: cannot be read: Not a directory"),
    ] {
        let done = world.foldd(&["import", file]).await;
        assert!(done.code == 2 && done.err.contains(said), "{file}: {} {}", done.code, done.err);
    }
}

/// The longest word that a command line takes, roughly.
const LONGEST_WORD: usize = 100_000;

#[tokio::test]
async fn each_odd_event_is_appended_by_hand_exactly_or_refused() {
    let world = World::new().await;
    for odd in corpus().iter().filter(|odd| odd.data.len() < LONGEST_WORD) {
        let done = world.foldd(&["append", "--", &odd.stream_id, "Odd", &odd.data]).await;
        match &odd.fate {
            Fate::Stored(data) => {
                assert_eq!(done.code, 0, "{}: {}", odd.name, done.err);
                assert!(is_stored(&world, &odd.stream_id, data).await, "{} is stored exactly", odd.name);
            }
            Fate::Refused(_, said) => {
                let usage =
                    odd.stream_id.is_empty() || done.err.contains("which is no character; PostgreSQL");
                assert_eq!(done.code, if usage { 2 } else { 1 }, "{}: {}", odd.name, done.err);
                assert!(usage || done.err.contains(said), "{}: {}", odd.name, done.err);
                assert!(!done.err.contains("at line"), "{}: {}", odd.name, done.err);
            }
        }
    }
    let done = world.foldd(&["append", "odd-1", "Odd", "{"]).await;
    assert!(done.code == 2 && done.err.contains("not JSON"), "{}", done.err);
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Raw(Box<RawValue>);

impl EventData for Raw {
    fn event_type(&self) -> &'static str {
        "Odd"
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("the corpus is JSON")
}

#[tokio::test]
async fn each_odd_event_is_appended_by_programs_exactly_or_refused() {
    let world = World::new().await;
    let store = world.store();
    for odd in corpus() {
        let many = store
            .append_many(&[ImportEvent {
                stream_id: odd.stream_id.clone(),
                category: None,
                event_type: "Odd".to_owned(),
                data: raw(&odd.data),
                metadata: raw("{}"),
                event_id: Uuid::now_v7(),
            }])
            .await;
        let contract = sqlx::query("select es_append($1, null, null, array['Odd'], array[$2::text::jsonb])")
            .bind(&odd.stream_id)
            .bind(&odd.data)
            .execute(world.pool())
            .await;
        let library = {
            let event = Event::new(Raw(raw(&odd.data)));
            store.append(&odd.stream_id, "odd", ExpectedVersion::Any, &[event]).await.map(|_| ())
        };
        match &odd.fate {
            Fate::Stored(data) => {
                assert!(library.is_ok() && many.is_ok(), "{}: {library:?} {many:?}", odd.name);
                contract.unwrap_or_else(|error| panic!("{}: {error}", odd.name));
                assert!(is_stored(&world, &odd.stream_id, data).await, "{} is stored exactly", odd.name);
                let query =
                    StreamQuery { direction: ReadDirection::Backward, from_version: None, limit: Some(1) };
                let read = store.read_stream(&odd.stream_id, query).await.expect("it can be read");
                assert!(read.iter().any(|event| event.data.get() == data), "{} is read exactly", odd.name);
            }
            Fate::Refused(_, said) => {
                let error = contract.expect_err(odd.name).to_string();
                // A name without a dash is a name, for who gives the category.
                let named = odd.stream_id == "odd" || odd.stream_id == "-1";
                assert!(many.is_err() && library.is_err() != named, "{}", odd.name);
                assert!(error.contains(said), "{}: {error}", odd.name);
            }
        }
    }
}
