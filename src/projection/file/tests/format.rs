//! The format as a whole: what is printed is read again, wherever white space and comments stand; and a
//! definition is the same however it is laid out and wherever it was kept.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{
    Check, Entry, EventType, ExpectedRow, Given, Handlers, OnEntry, ProjectionFile, TestCase,
};
use crate::projection::definition::Definition;
use crate::projection::settings::{Cutover, MAX_PARTITIONS, MAX_VERSION, OnError, Settings};

/// What may stand between any two things without meaning anything.
const NOISE: [&str; 6] = [
    "",
    "\n",
    "-- a note\n",
    "\n /* -- @on Nothing\n*/ \n",
    "-- no @on marker \n\t\n",
    "-- ünïcödé 💥 ' \" $$ (\n",
];
/// Statements whose texts look like something else.
const STATEMENTS: [&str; 8] = [
    "insert into t (a) values (event.data->>'amount')",
    "update t set a = a - -1, b = 'it''s; -- @on X' where c = E'\\'\\\\'",
    "delete from t where a = '\n-- @tables\n'",
    "insert into \"T;\" select $q$ -- @batch\n'$q$, $$ ; $$ from u -- not the end\n where b",
    "with x as (select 1) insert into t select * from x /* c /* nested */ ; */ where true",
    "merge into t using u on t.a = u.a when matched then do nothing",
    "UPDATE t\n   SET a = (select max(b) from u),\n       c = 💥.\"\"\"\"",
    "delete from t where a @> array[1, 2]::int[] and b ~ '\\d'",
];
const TABLES: [&str; 4] = [
    "create table t (a bigint primary key, b text default 'x;')",
    "create unique index on t (lower(b)) -- ; no end\n where a > 0",
    "create function f() returns int language sql as $f$ select 1; $f$",
    "comment on table t is '-- @test'",
];
const QUERIES: [&str; 3] = ["select a, b from t order by 1", "values ('-- @expect', 1)", "table t"];
const DATA: [&str; 5] = [
    "{}",
    r#"{"a": "b | c", "n": 1e400}"#,
    "[1, [2]]",
    r#""text | \" -- ""#,
    "-12345678901234567890123456789",
];

/// A text that grows, and knows its lines.
#[derive(Default)]
struct Printed(String);

impl Printed {
    /// Adds a text, and says on which line it begins.
    fn add(&mut self, text: &str) -> u32 {
        let line = 1 + self.0.matches('\n').count();
        self.0.push_str(text);
        u32::try_from(line).unwrap_or_default()
    }

    fn line(&mut self, text: &str) -> u32 {
        let line = self.add(text);
        self.0.push('\n');
        line
    }
}

/// The text of a file, and the file with the lines that it has there. `noise` is used in turn.
fn printed(mut file: ProjectionFile, noise: &[&str]) -> (String, ProjectionFile) {
    let mut text = Printed::default();
    let mut noise = noise.iter().cycle();
    let mut gap = |text: &mut Printed| {
        text.add(noise.next().unwrap_or(&""));
    };
    text.line("/* foldd");
    let settings = serde_json::to_value(&file.settings).expect("settings are JSON");
    for (key, value) in settings.as_object().into_iter().flatten() {
        text.line(&format!("{key} = {value}"));
    }
    text.line("*/");
    if let Some(tables) = &mut file.tables {
        gap(&mut text);
        text.line("-- @tables");
        gap(&mut text);
        tables.line = text.line(&tables.sql);
        text.line(";");
    }
    let statement = |text: &mut Printed, body: &mut Entry| {
        body.line = text.add(&body.sql);
        text.line("\n;");
    };
    match &mut file.handlers {
        Handlers::PerEvent(entries) => {
            for OnEntry { types, body } in entries {
                for event_type in types {
                    gap(&mut text);
                    event_type.line = text.line(&format!("  -- @on \t {}  ", event_type.name));
                }
                gap(&mut text);
                statement(&mut text, body);
            }
        }
        Handlers::PerBatch(entries) => {
            for body in entries {
                gap(&mut text);
                text.line("--@batch");
                gap(&mut text);
                statement(&mut text, body);
            }
        }
    }
    for test in &mut file.tests {
        gap(&mut text);
        test.line = text.line(&format!("-- @test {}", test.name));
        for given in &mut test.given {
            let Given { stream_id, event_type, data, metadata, .. } = &*given;
            let metadata = metadata.as_ref().map(|metadata| format!(" | {metadata}")).unwrap_or_default();
            let line = format!("-- @given {stream_id} | {event_type} | {data}{metadata}");
            given.line = text.line(&line);
        }
        for check in &mut test.checks {
            gap(&mut text);
            statement(&mut text, &mut check.query);
            for row in &mut check.expected {
                let cells: Vec<_> = row.cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                row.line = text.line(&format!("-- @expect {}", cells.join(" | ")));
            }
        }
    }
    (text.0, file)
}

fn entry(sql: impl Into<String>) -> Entry {
    Entry { sql: sql.into(), line: 0 }
}

fn settings() -> impl Strategy<Value = Settings> {
    let names = || {
        vec("[a-zé'\"{][a-z0-9_é\\\\ ,-]{0,6}[a-z0-9💥]", 1..4).prop_map(|mut names| {
            names.sort();
            names.dedup();
            names
        })
    };
    let whose = prop_oneof![names().prop_map(Some), Just(None)];
    let numbers = (option::of(1..=MAX_VERSION), option::of(1..=MAX_PARTITIONS), option::of(1..u32::MAX));
    let on_error = option::of(select(vec![OnError::Halt, OnError::QuarantineStream, OnError::SkipEvent]));
    let cutover = option::of(select(vec![Cutover::Automatic, Cutover::Manual]));
    let seconds = option::of((0_u64..=315_360_000).prop_map(std::time::Duration::from_secs));
    (whose, numbers, option::of(names()), on_error, cutover, seconds).prop_map(
        |(categories, (version, partitions, most), extension_schemas, on_error, cutover, keep_previous)| {
            Settings {
                version,
                all: categories.is_none().then_some(true),
                categories,
                on_error,
                partitions,
                extension_schemas,
                cutover,
                keep_previous,
                events_per_second: most,
                max_quarantined_streams: most,
                order_guard: most.map(|most| most % 2 == 0),
            }
        },
    )
}

fn handlers() -> impl Strategy<Value = Handlers> {
    let statement = || select(STATEMENTS.to_vec()).prop_map(entry);
    let on = (btree_set("[A-Z\"'(][a-zé ;$|-]{0,8}[a-z.💥]", 1..7), vec((1..3_usize, statement()), 6))
        .prop_map(|(names, bodies)| {
            let mut names: Vec<_> = names.into_iter().map(|name| EventType { name, line: 0 }).collect();
            let mut entries = Vec::new();
            for (stacked, body) in bodies {
                if !names.is_empty() {
                    let types = names.split_off(names.len().saturating_sub(stacked));
                    entries.push(OnEntry { types, body });
                }
            }
            Handlers::PerEvent(entries)
        });
    prop_oneof![on, vec(statement(), 1..4).prop_map(Handlers::PerBatch)]
}

fn tests() -> impl Strategy<Value = Vec<TestCase>> {
    let given =
        ("[a-z]{1,5}-[0-9a-f]{1,4}", "[A-Z][a-zé ]{0,6}[a-z]", select(DATA.to_vec()), option::of(Just("{}")))
            .prop_map(|(stream_id, event_type, data, metadata)| Given {
                line: 0,
                stream_id,
                event_type,
                data: data.to_owned(),
                metadata: metadata.map(str::to_owned),
            });
    let row = vec("([a-z0-9|\\\\'é][a-z |\\\\]{0,4}[a-z0-9|'💥])?", 1..4)
        .prop_filter("a row says something", |cells| cells.iter().any(|cell| !cell.is_empty()))
        .prop_map(|cells| ExpectedRow { line: 0, cells });
    let check = (select(QUERIES.to_vec()), vec(row, 0..3))
        .prop_map(|(query, expected)| Check { query: entry(query), expected });
    let test = ("[a-z][a-zé 0-9:'-]{0,12}[a-z]", vec(given, 0..3), vec(check, 1..3))
        .prop_map(|(name, given, checks)| TestCase { name, line: 0, given, checks });
    vec(test, 0..3).prop_map(|mut tests| {
        tests.sort_by(|one, other| one.name.cmp(&other.name));
        tests.dedup_by(|one, other| one.name == other.name);
        tests
    })
}

fn files() -> impl Strategy<Value = ProjectionFile> {
    let tables =
        option::of(vec(select(TABLES.to_vec()), 1..4).prop_map(|tables| entry(tables.join("\n;\n"))));
    (settings(), tables, handlers(), tests()).prop_map(|(settings, tables, handlers, tests)| ProjectionFile {
        name: "fines".to_owned(),
        path: "fines.sql".to_owned(),
        settings,
        tables,
        handlers,
        tests,
    })
}

fn parsed(text: &str) -> Result<ProjectionFile, TestCaseError> {
    ProjectionFile::parse("fines", "fines.sql", text)
        .map_err(|errors| TestCaseError::fail(format!("{}\n{text}", errors[0])))
}

fn noise() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(NOISE.to_vec()), 1..8)
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(file in files(), noise in noise(), foreign in any::<bool>()) {
        let (text, file) = printed(file, &noise);
        prop_assert_eq!(&parsed(&text)?, &file, "{}", text);
        if foreign {
            // Line breaks inside of statements stay as they are, so only the others are compared.
            let read = parsed(&format!("\u{feff}{}", text.replace('\n', "\r\n")))?;
            prop_assert_eq!((&read.settings, read.tests.len()), (&file.settings, file.tests.len()));
        }
    }

    #[test]
    fn a_definition_is_the_same_in_any_layout_and_after_it_was_stored(
        file in files(), one in noise(), other in noise(),
    ) {
        let definition = |noise: &[&str]| -> Result<Definition, TestCaseError> {
            let file = parsed(&printed(file.clone(), noise).0)?;
            Definition::of_file(&file, &file.settings).map_err(|error| TestCaseError::fail(error.to_string()))
        };
        let (one, other) = (definition(&one)?, definition(&other)?);
        prop_assert!(one.same_as(&other), "{}", one.diff(&other));
        prop_assert_eq!(one.diff(&other), "");
        let stored = serde_json::to_string(&one).expect("it is JSON");
        let read: Definition = serde_json::from_str(&stored).expect("it is a definition");
        prop_assert_eq!(read.identity(), one.identity());
        prop_assert_eq!(read, one);
    }
}
