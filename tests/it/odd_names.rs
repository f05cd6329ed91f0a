//! Odd streams, categories, types, metadata and ids, by every way in: stored exactly, or refused with the
//! reason, and then nothing is there.

use foldd::{Event, EventData, ExpectedVersion, ImportEvent};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::world::World;

/// An event whose type is what it says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Named {
    #[serde(skip)]
    kind: &'static str,
}

impl EventData for Named {
    fn event_type(&self) -> &'static str {
        self.kind
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is stored as it is.
    Stored,
    /// It is refused, by the database and the library with this, and where text is read with one of these.
    Refused(&'static str),
}
use Fate::{Refused, Stored};

struct Odd {
    stream_id: String,
    category: Option<String>,
    event_type: &'static str,
    metadata: &'static str,
    fate: Fate,
}

impl Odd {
    fn new(stream_id: &str, fate: Fate) -> Self {
        Self { stream_id: stream_id.to_owned(), category: None, event_type: "Odd", metadata: "{}", fate }
    }

    fn of_category(self, category: &str) -> Self {
        Self { category: Some(category.to_owned()), ..self }
    }

    fn of_type(self, event_type: &'static str) -> Self {
        Self { event_type, ..self }
    }

    fn with_metadata(self, metadata: &'static str) -> Self {
        Self { metadata, ..self }
    }

    /// The category that the library is given: it asks for one.
    fn category(&self) -> &str {
        self.category
            .as_deref()
            .or_else(|| self.stream_id.split_once('-').map(|split| split.0))
            .unwrap_or("odd")
    }

    /// Of several tries for the same stream, another stream each.
    fn stream(&self, way: &str) -> String {
        if self.stream_id.is_empty() { String::new() } else { format!("{}{way}", self.stream_id) }
    }

    /// The line of an import, with its metadata as they are.
    fn line(&self, way: &str) -> String {
        let mut line = json!({"stream_id": self.stream(way), "event_type": self.event_type, "data": 1});
        if let Some(category) = &self.category {
            line["category"] = json!(category);
        }
        let mut line = line.to_string();
        line.insert_str(line.len() - 1, &format!(",\"metadata\":{}", self.metadata));
        line
    }
}

/// Text that cannot be compressed to fit into an index row. The same each time.
fn noise(length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.alphanumeric()).collect()
}

fn corpus() -> Vec<Odd> {
    let long: &'static str = Box::leak(noise(10_000).into_boxed_str());
    let zeros: &'static str = Box::leak("a".repeat(10_000).into_boxed_str());
    vec![
        Odd::new("odd-1", Stored),
        Odd::new("odd-it's \"quoted\" \\ {x,y} $1 %s; drop", Stored),
        Odd::new("odd-🦀 ünï\u{301} \u{200b}\u{feff}", Stored),
        Odd::new("odd-line\nend\ttab\u{1}", Stored),
        Odd::new("  odd  -  blanks  ", Stored),
        Odd::new("💥-1", Stored),
        Odd::new("odd--", Stored),
        Odd::new("select-1", Stored).of_type("select"),
        Odd::new("odd-2", Stored).of_type("-- @on \"; $$ 🦀\n"),
        Odd::new("odd-3", Stored).of_category("it's another, \"{one}\"\\"),
        Odd::new("nodash", Stored).of_category("odd"),
        Odd::new("odd-4", Stored).of_category(zeros).of_type(zeros),
        Odd::new("odd-5", Stored).with_metadata(r#"{"n": 12345678901234567890123.5, "🦀": [null]}"#),
        Odd::new("", Refused("")),
        Odd::new("bare", Refused("has no category")),
        Odd::new("odd-\0", Refused("")),
        Odd::new("odd-6", Refused("")).of_category("a\0b"),
        Odd::new("odd-7", Refused("")).of_type("a\0b"),
        Odd::new("odd-8", Refused("")).of_type(""),
        Odd::new("odd-9", Refused("")).of_category(""),
        Odd::new(&format!("odd-{long}"), Refused("index row")),
        Odd::new("odd-10", Refused("index row")).of_category(long),
        Odd::new("odd-11", Stored).of_type(long),
    ]
}

async fn in_stream(world: &World, stream_id: &str) -> Vec<(String, String, String)> {
    sqlx::query_as("select stream_category, event_type, metadata::text from es_events where stream_id = $1")
        .bind(stream_id)
        .fetch_all(world.pool())
        .await
        .unwrap_or_default()
}

/// Holds one way in to the fate of an event. `said` is the error, where there was one.
async fn judge(world: &World, odd: &Odd, way: &str, said: Option<String>) {
    let found = in_stream(world, &odd.stream(way)).await;
    let name: String = format!("{way}: {:.40} {:?} {:.40}", odd.stream_id, odd.category, odd.event_type);
    let name: String = name.chars().take(160).collect();
    match (odd.fate, said) {
        (Stored, None) => {
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(
                (found[0].0.as_str(), found[0].1.as_str()),
                (odd.category(), odd.event_type),
                "{name}"
            );
            // The library's metadata are a value, whose numbers are no wider than 64 bits.
            assert!(way == "l" || found[0].2 == odd.metadata, "{name}: {}", found[0].2);
        }
        (Refused(told), Some(said)) => {
            assert!(said.contains(told) || said.contains("0x00"), "{name}: {said}");
            assert!(said.chars().count() < 1_200, "{name}: the value is not printed whole: {}", said.len());
            assert!(found.is_empty(), "{name}: nothing is there");
        }
        (fate, said) => panic!("{name}: {fate:?}, and it was {said:?}"),
    }
}

#[tokio::test]
async fn odd_names_come_in_exactly_or_not_at_all_by_every_way() {
    let world = World::new().await;
    let store = world.store();
    for odd in corpus() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("it is JSON");
        // The library asks for the category, so a name without one is no reason there.
        if !matches!(odd.fate, Refused("has no category")) {
            let event = Event::with_metadata(
                Named { kind: odd.event_type },
                serde_json::from_str(odd.metadata).unwrap_or_default(),
            );
            let done = store.append(&odd.stream("l"), odd.category(), ExpectedVersion::Any, &[event]).await;
            judge(&world, &odd, "l", done.err().map(|error| foldd::error::chain(&error))).await;
        }
        let event = ImportEvent {
            stream_id: odd.stream("m"),
            category: odd.category.clone(),
            event_type: odd.event_type.to_owned(),
            data: raw("1"),
            metadata: raw(odd.metadata),
            event_id: Uuid::now_v7(),
        };
        let done = store.append_many(&[event]).await;
        judge(&world, &odd, "m", done.err().map(|error| foldd::error::chain(&error))).await;
        let contract = "select es_append($1, $2, null, array[$3], array['1'::jsonb], array[$4::text::jsonb])";
        let done = sqlx::query(contract)
            .bind(odd.stream("s"))
            .bind(&odd.category)
            .bind(odd.event_type)
            .bind(odd.metadata)
            .execute(world.pool())
            .await;
        judge(&world, &odd, "s", done.err().map(|error| foldd::error::chain(&error))).await;
        std::fs::write(world.dir().join("odd.jsonl"), odd.line("i") + "\n").expect("a file");
        let done = world.foldd(&["import", "odd.jsonl", "--name", &odd.stream_id.replace('\0', "0")]).await;
        judge_verb(&world, &odd, "i", &done).await;
        // A command line takes no zero.
        let stream = odd.stream("c");
        if ![&stream, odd.event_type, odd.category()].iter().any(|text| text.contains('\0')) {
            let mut line = vec!["append", "--metadata", odd.metadata];
            if let Some(category) = &odd.category {
                line.extend(["--category", category]);
            }
            line.extend(["--", &stream, odd.event_type, "1"]);
            judge_verb(&world, &odd, "c", &world.foldd(&line).await).await;
        }
    }
}

async fn judge_verb(world: &World, odd: &Odd, way: &str, done: &crate::world::Done) {
    let refused = (done.code != 0).then(|| done.err.clone());
    if let Some(said) = &refused {
        assert!(matches!(done.code, 1 | 2), "{}", done.code);
        assert!(said.contains("; ") || done.code == 2, "a remedy: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    judge(world, odd, way, refused).await;
}

#[tokio::test]
async fn the_same_id_twice_is_refused_by_every_way_and_says_where_it_is() {
    let world = World::new().await;
    let id = "0192f0c1-7a4e-7c55-9d0a-3f2f6b8e1c11";
    let uuid: Uuid = id.parse().expect("it is one");
    assert_eq!(world.foldd(&["append", "odd-1", "Odd", "1", "--event-id", id]).await.code, 0);
    let told = format!("event_id {id} is already in the log, as version 1 of stream 'odd-1'");
    let store = world.store();
    for stream in ["odd-1", "odd-2"] {
        let line = world.foldd(&["append", stream, "Odd", "1", "--event-id", id]).await;
        assert_eq!(line.code, 1, "{}", line.err);
        let file = format!(
            "{{\"stream_id\":\"{stream}\",\"event_type\":\"Other\",\"data\":1,\"event_id\":\"{id}\"}}\n"
        );
        std::fs::write(world.dir().join("odd.jsonl"), file).expect("a file");
        let import = world.foldd(&["import", "odd.jsonl"]).await;
        assert_eq!(import.code, 1, "{}", import.err);
        assert!(
            import.err.contains("version 1 of stream 'odd-1'") && import.err.contains("--resume"),
            "{}",
            import.err
        );
        let event = Event::new(Named { kind: "Odd" }).with_id(uuid);
        let library = store.append(stream, "odd", ExpectedVersion::Any, &[event]).await.expect_err("twice");
        let event = ImportEvent {
            stream_id: stream.to_owned(),
            category: None,
            event_type: "Odd".to_owned(),
            data: RawValue::from_string("1".to_owned()).expect("it is JSON"),
            metadata: RawValue::from_string("{}".to_owned()).expect("it is JSON"),
            event_id: uuid,
        };
        let many = store.append_many(std::slice::from_ref(&event)).await.expect_err("twice");
        for said in [line.err, foldd::error::chain(&library), foldd::error::chain(&many)] {
            assert!(said.contains(&told), "{said}");
        }
        let own = [
            ImportEvent { event_id: Uuid::nil(), ..event.clone() },
            ImportEvent { event_id: Uuid::nil(), ..event },
        ];
        let many = store.append_many(&own).await.expect_err("twice in one append");
        assert!(matches!(many, foldd::EventStoreError::DuplicateEvent { .. }), "{many:?}");
        let contract = format!(
            "select es_append('{stream}', null, null, array['Odd'], array['1'::jsonb], null, array['{id}'::uuid])"
        );
        let contract = world.try_value(&contract).await.expect_err("twice");
        let code = contract.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("ES002"), "{contract}");
    }
    assert_eq!(world.value("select count(*) from es_events").await, "1");
    assert_eq!(world.value("select count(*) from es_streams").await, "1");
}
