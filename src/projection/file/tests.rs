mod format;
#[rustfmt::skip]
mod wrong;

use proptest::prelude::*;

use super::*;
use crate::projection::settings::OnError;
use wrong::{WRONG, WRONG_FILES, WRONG_TABLES_AND_TESTS};

const FINES: &str = r#"/* foldd
version    = 1
categories = ["fine"]
on_error   = "quarantine_stream"
keep_previous = "24h"
*/
-- The fines, and what is paid of them.
-- @tables
create table fine (fine_id text primary key, amount numeric not null, paid numeric not null default 0);
create index on fine (amount); -- for the report

-- @on Create Fine
insert into fine (fine_id, amount) values (event.stream_id, (event.data->>'amount')::numeric);

-- @on Payment
-- A refund has a negative amount.
-- @on Refund
update fine
set paid = paid + (event.data->>'paymentAmount')::numeric /*
-- @on Not a marker */
where fine_id = event.stream_id and $$
-- @batch
$$ <> '
-- @tables';

-- @test a payment counts
-- @given fine-1 | Create Fine | {"amount": 30, "note": "a | b"}
-- @given fine-1 | Payment     | {"paymentAmount": 12} | {"actor": "me"}
select fine_id, amount, paid from fine;
-- @expect fine-1 | 30 | 12
-- @expect a \| b || \d
select 1 from fine where false
"#;

const FRONT: &str = "/* foldd\nversion = 1\ncategories = [\"a\"]\n*/\n";

fn parse(text: &str) -> Result<ProjectionFile, Vec<FileError>> {
    ProjectionFile::parse("fines", "fines.sql", text)
}

fn entry(sql: &str, line: u32) -> Entry {
    Entry { sql: sql.to_owned(), line }
}

#[test]
fn the_example_is_read_with_its_lines() {
    let file = parse(FINES).expect("well-formed");
    assert_eq!(file.settings.version, Some(1));
    assert_eq!(file.settings.on_error, Some(OnError::QuarantineStream));
    assert_eq!(file.settings.keep_previous.map(|time| time.as_secs()), Some(86_400));
    let tables = file.tables.expect("has tables");
    assert_eq!(tables.line, 9);
    assert!(
        tables.sql.starts_with("create table fine") && tables.sql.ends_with("on fine (amount)"),
        "{}",
        tables.sql
    );
    let Handlers::PerEvent(on) = file.handlers else { panic!("per event") };
    let types: Vec<(&str, u32)> = on
        .iter()
        .flat_map(|on| &on.types)
        .map(|event_type| (event_type.name.as_str(), event_type.line))
        .collect();
    assert_eq!(types, [("Create Fine", 12), ("Payment", 15), ("Refund", 17)]);
    assert_eq!(on[1].body.line, 18);
    assert!(
        on[1].body.sql.starts_with("update fine\nset") && on[1].body.sql.ends_with("-- @tables'"),
        "{}",
        on[1].body.sql
    );
    assert_eq!(file.tests.len(), 1);
    let test = &file.tests[0];
    assert_eq!((test.name.as_str(), test.line), ("a payment counts", 26));
    assert_eq!(test.given[0].data, r#"{"amount": 30, "note": "a | b"}"#);
    assert_eq!(
        (test.given[1].stream_id.as_str(), test.given[1].event_type.as_str(), test.given[1].line),
        ("fine-1", "Payment", 28)
    );
    assert_eq!(test.given[1].metadata.as_deref(), Some(r#"{"actor": "me"}"#));
    assert_eq!(test.checks.len(), 2);
    assert_eq!(test.checks[0].query, entry("select fine_id, amount, paid from fine", 29));
    assert_eq!(
        test.checks[0].expected[0],
        ExpectedRow { line: 30, cells: vec!["fine-1".into(), "30".into(), "12".into()] }
    );
    assert_eq!(test.checks[0].expected[1].cells, ["a | b", "", r"\d"]);
    assert_eq!(
        test.checks[1],
        Check { query: entry("select 1 from fine where false", 32), expected: vec![] }
    );
}

#[test]
fn byte_order_mark_and_crlf_change_nothing_but_line_breaks_inside() {
    let foreign = format!("\u{feff}{}", FINES.replace('\n', "\r\n"));
    let (file, foreign) = (parse(FINES).expect("well-formed"), parse(&foreign).expect("well-formed"));
    assert_eq!(file.settings, foreign.settings);
    let Handlers::PerEvent(on) = &foreign.handlers else { panic!("per event") };
    assert_eq!((on[0].types[0].name.as_str(), on[1].body.line), ("Create Fine", 18));
    assert!(on[1].body.sql.starts_with("update fine\r\nset"));
    assert_eq!(file.tests[0].given, foreign.tests[0].given);
}

#[test]
fn batches_run_in_order() {
    let file = parse(&format!(
        "{FRONT}-- @batch\nwith a as (select 1) insert into t select * from a\n--@batch\n delete from t ;"
    ))
    .expect("well-formed");
    assert_eq!(
        file.handlers,
        Handlers::PerBatch(vec![
            entry("with a as (select 1) insert into t select * from a", 6),
            entry("delete from t", 8),
        ])
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let with_handler = |text: &str| format!("{FRONT}{text}\n-- @batch\ndelete from t");
    let below = WRONG.iter().map(|wrong| (format!("{FRONT}{}", wrong.0), wrong));
    let before = WRONG_TABLES_AND_TESTS.iter().map(|wrong| (with_handler(wrong.0), wrong));
    let whole = WRONG_FILES.iter().map(|wrong| (wrong.0.to_owned(), wrong));
    let mut unlike = Vec::new();
    for (text, (_, line, column, message)) in below.chain(before).chain(whole) {
        let errors = parse(&text).expect_err(&text);
        let printed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = format!("fines.sql:{line}:{column}: {message}");
        if printed.len() != 1 || !printed[0].starts_with(&expected) {
            unlike.push((text, expected, printed));
        }
    }
    assert!(unlike.is_empty(), "{unlike:#?}");
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_in_order() {
    let text = "/* foldd\nfoo = 1\nversion = \"x\"\npartitions = 0\n*/\n-- @on A\nselect 1;\n-- @tables\ndrop table t;\n-- @wat\n";
    let errors = ProjectionFile::parse("Fines", "fines.sql", text).expect_err("wrong");
    let places: Vec<(u32, u32)> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(1, 1), (2, 1), (3, 11), (4, 14), (7, 1), (9, 1), (10, 1)]);
    assert!(matches!(errors[0].fault, Fault::Name(_)));
}

#[test]
fn sizes_are_bounded() {
    let fill = MAX_FILE_BYTES - FRONT.len() - "-- @batch\ndelete from t".len();
    let fits = format!("{FRONT}-- @batch\ndelete from t{}", " ".repeat(fill));
    assert!(parse(&fits).is_ok());
    let errors = parse(&format!("{fits} ")).expect_err("too large");
    assert_eq!(errors[0].fault, Fault::TooLarge { bytes: MAX_FILE_BYTES + 1, limit: MAX_FILE_BYTES });
    let errors = parse(&format!("{FRONT}{}", "-- @x\n".repeat(100_000))).expect_err("wrong");
    assert_eq!(errors.len(), 50);
    let long = format!("{FRONT}-- @{}\n-- @batch\ndelete from t", "x".repeat(100_000));
    assert!(parse(&long).expect_err("wrong")[0].to_string().len() < 300);
}

#[test]
fn words_that_look_like_others_are_let_through() {
    let handlers = [
        "insert into t select x.into, y as returning from batch",
        "with update as (select 1), insert as (select 2) merge into t using update on true when matched then delete",
        "with recursive a(n) as (values (1) union select n + 1 from a) search depth first by n set o insert into t select n from a",
        "with x as (delete from t returning *) insert into u select * from x",
        "insert into t values (json_value('1', '$' returning int))",
        "insert into t values ('commit; -- @on B', $$; drop table t$$, \"into\")",
    ];
    for handler in handlers {
        assert_eq!(
            parse(&format!("{FRONT}-- @on A\n{handler};")).map_err(|errors| errors[0].to_string()).err(),
            None
        );
    }
    let tables = "create table events (event text, batch int); create type batch as enum ('a'); comment on table events is 'drop';
        create or replace view v as select 1; create materialized view m as select 1; alter table events add x int;
        create unique index if not exists i on events (event); create constraint trigger c after insert on events execute function f();
        create function f() returns int language sql begin atomic select 1; select 2; end; create sequence s; create domain d as int";
    assert_eq!(
        parse(&format!("{FRONT}-- @tables\n{tables}\n-- @batch\ndelete from t"))
            .map_err(|errors| errors[0].to_string())
            .err(),
        None
    );
}

/// Pieces of which files can be put together, mostly wrongly.
fn any_piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "/* foldd\n",
            "*/",
            "version = 1\n",
            "categories = [\"a\"]\n",
            "all = true\n",
            "-- @tables\n",
            "-- @on A\n",
            "-- @on B b\n",
            "-- @batch\n",
            "-- @test t\n",
            "-- @given a-1 | A | {}\n",
            "-- @given",
            "-- @expect 1 | 2\n",
            "-- @",
            "delete from t;\n",
            "with ",
            "select 1\n",
            "create table ",
            "event",
            "(",
            ")",
            "'",
            "\"",
            "$$",
            ";",
            "\n",
            "\r\n",
            " ",
            "|",
            "é",
            "/*",
            "\u{feff}",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec(any_piece(), 0..25), has_front in any::<bool>()) {
        let text = format!("{}{}", if has_front { FRONT } else { "" }, pieces.concat());
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.line >= 1 && error.column >= 1 && !error.to_string().contains('\0'));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(
        version in 1..=i32::MAX.unsigned_abs(),
        types in prop::collection::btree_set("[A-Z][a-zé ]{0,8}[a-z|'\"$]", 1..6),
        gaps in prop::collection::vec("(\n|\r\n| -- note\n|/\\* -- @on X\n \\*/){0,3}", 6),
        stacked in any::<bool>(),
    ) {
        let mut text = format!("/* foldd\nversion = {version}\nall = true\n*/\n");
        let mut expected = Vec::new();
        for ((at, name), gap) in types.iter().enumerate().zip(&gaps) {
            text.push_str(&format!("{gap}\n-- @on {name} \n{gap}"));
            if stacked && at + 1 < types.len() {
                continue;
            }
            text.push_str(&format!("\ndelete from t{at}\nwhere '\n-- @batch\n' = '';{gap}"));
            expected.push(format!("delete from t{at}\nwhere '\n-- @batch\n' = ''"));
        }
        let file = parse(&text).map_err(|errors| TestCaseError::fail(format!("{errors:?}\n{text}")))?;
        prop_assert_eq!(file.settings.version, Some(version));
        let Handlers::PerEvent(on) = file.handlers else { return Err(TestCaseError::fail("per event")) };
        let read: Vec<&String> = on.iter().flat_map(|on| &on.types).map(|event_type| &event_type.name).collect();
        prop_assert_eq!(read, types.iter().collect::<Vec<_>>());
        let lines: Vec<&str> = text.split('\n').collect();
        for (on, sql) in on.iter().zip(&expected) {
            prop_assert_eq!(&on.body.sql, sql);
            let first = usize::try_from(on.body.line).unwrap_or_default();
            prop_assert_eq!(lines[first - 1], sql.split('\n').next().unwrap_or_default());
        }
        prop_assert_eq!(on.len(), expected.len());
    }
}
