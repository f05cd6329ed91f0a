use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn read(bytes: &[u8]) -> Vec<Result<ImportEvent, BadLine>> {
    reader(bytes).map(|line| line.map(|line| line.event)).collect()
}

fn reader(bytes: &[u8]) -> LineReader {
    LineReader::new(Cursor::new(bytes.to_vec()), Some(bytes.len() as u64)).expect("readable")
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("in memory");
    gzip.finish().expect("in memory")
}

/// A good line with this as its data.
fn with_data(data: &str) -> String {
    format!(r#"{{"stream_id":"a-1","event_type":"E","data":{data}}}"#)
}

/// What is said about a line that stands between two good ones.
fn said(line: &[u8]) -> String {
    let good = with_data("1");
    let mut results = read(&[good.as_bytes(), line, good.as_bytes()].join(&b'\n')).into_iter();
    assert!(results.next().is_some_and(|first| first.is_ok()));
    let bad = results.next().expect("a second line").expect_err("a bad line");
    assert!(results.next().is_some_and(|last| last.is_ok()), "reading goes on behind it");
    assert!(bad.line == 2 && !bad.remedy.is_empty());
    bad.to_string()
}

#[test]
fn a_bad_line_is_named_with_its_number_reason_and_remedy() {
    let table: &[(&str, &str)] = &[
        (r#"{"stream_id":"a-1","event_type":"E"}"#, "`data` is missing; write {"),
        (r#"{"event_type":"E","data":{}}"#, "`stream_id` is missing"),
        ("{}", "`stream_id` is missing"),
        (
            r#"{"steam_id":"a-1","event_type":"E","data":{}}"#,
            "unknown key \"steam_id\"; did you mean `stream_id`?",
        ),
        (r#"{"stream_id":"a-1","type":"E","data":{}}"#, "unknown key \"type\"; "),
        (
            r#"{"stream_id":"a-1","event_type":"E","data":{},"xyzzy":1}"#,
            "unknown key \"xyzzy\"; there are stream_id, category",
        ),
        (r#"{"stream_id":7,"event_type":"E","data":{}}"#, "`stream_id` is \"7\", which is no text"),
        (r#"{"stream_id":"a-1","event_type":null,"data":{}}"#, "`event_type` is \"null\", which is no text"),
        (r#"{"stream_id":"","event_type":"E","data":{}}"#, "`stream_id` is empty"),
        (r#"{"stream_id":"a-1","event_type":"","data":{}}"#, "`event_type` is empty"),
        (r#"{"stream_id":"a-1","category":"","event_type":"E","data":{}}"#, "`category` is empty"),
        (
            r#"{"stream_id":"a-\u0000","event_type":"E","data":{}}"#,
            r"`stream_id` contains \u0000; PostgreSQL",
        ),
        (
            r#"{"stream_id":"a","event_type":"E","data":{}}"#,
            "stream \"a\" has no category in its name; name it",
        ),
        (r#"{"stream_id":"-a","event_type":"E","data":{}}"#, "stream \"-a\" has no category"),
        (r#"{"stream_id":"a-1","event_type":"E","data":1,"data":2}"#, "duplicate field `data`; keep one"),
        (r#"{"stream_id":"a-1","event_type":"E","data":1,"event_id":"no"}"#, "`event_id` is no UUID"),
        (
            r#"{"stream_id":"a-1","category":null,"event_type":"E","data":1,"event_id":7}"#,
            "`event_id` is \"7\", which is no text",
        ),
        (
            r#"{"stream_id":"a-1","event_type":"E","data":1,"metadata":[]}"#,
            "`metadata` is \"[]\", which is no object",
        ),
        (r#"["a-1","a","E",{},{},null]"#, "a list is no event"),
        ("a-1,E", "no JSON object: expected value, column 1"),
        ("7", "no JSON object"),
        (
            r#"{"stream_id":"a-1","event_type":"E","data":{]}"#,
            "no JSON object: key must be a string, column 45",
        ),
        (
            r#"{"stream_id":"a-1","event_type":"E","data":{} "#,
            "cut off (EOF while parsing an object); put each",
        ),
        (r#"{"stream_id":"a-1","event_type":"E","data":{}} {}"#, "no JSON object: trailing characters"),
    ];
    for (line, expected) in table {
        let said = said(line.as_bytes());
        assert!(said.starts_with(&format!("line 2: {expected}")), "{line}\n{said}");
    }
}

#[test]
fn text_that_jsonb_cannot_hold_is_refused() {
    let bad = [
        (r#""\u0000""#, r"\u0000"),
        (r#"{"\u0000":1}"#, r"\u0000"),
        (r#"["\\\u0000"]"#, r"\u0000"),
        (r#""\ud83d""#, r"\ud83d"),
        (r#""\ud83d\n""#, r"\ud83d"),
        (r#""\ud83d\ud83d\ude00""#, r"\ud83d"),
        (r#""\uDE00\ud83d""#, r"\uDE00"),
    ];
    for (data, escape) in bad {
        let said = said(with_data(data).as_bytes());
        assert!(said.contains(&format!("`data` contains {escape}, which is no character")), "{said}");
    }
    let in_metadata = r#"{"stream_id":"a-1","event_type":"E","data":1,"metadata":{"a":"\u0000"}}"#;
    assert!(said(in_metadata.as_bytes()).contains(r"`metadata` contains \u0000"));
    assert!(said(b"{\"stream_id\":\"a-1\xff\"}").contains("byte 18 is no UTF-8"));
    for data in [r#""\\u0000""#, r#""\ud83d\ude00 \u00e4 \\ud83d""#, r#""\u0001\"\\""#] {
        assert!(read(with_data(data).as_bytes())[0].is_ok(), "{data}");
    }
}

#[test]
fn payloads_pass_as_they_are_written() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for data in ["1e400", "-0.10", "null", r#"{"b": 1,  "a":[ 2 ]}"#, r#""\u00e4""#, &deep] {
        let event = read(with_data(data).as_bytes()).remove(0).expect(data);
        assert_eq!(event.data.get(), data);
        assert_eq!((event.metadata.get(), event.category), ("{}", None));
    }
    let id = "0192f0c1-7a4e-7c55-9d0a-3f2f6b8e1c11";
    let line = format!(
        r#"{{"stream_id":"1","category":"a","event_type":"E","data":1,"metadata":{{"x":1}},"event_id":"{id}"}}"#
    );
    let event = read(line.as_bytes()).remove(0).expect("a good line");
    assert_eq!((event.event_id.to_string().as_str(), event.metadata.get()), (id, r#"{"x":1}"#));
    assert_eq!(event.category.as_deref(), Some("a"));
}

#[test]
fn a_given_category_is_for_events_that_name_none() {
    let lines = "{\"stream_id\":\"7\",\"event_type\":\"E\",\"data\":1}\n\
                 {\"stream_id\":\"8\",\"category\":\"own\",\"event_type\":\"E\",\"data\":1}";
    let events: Vec<_> = reader(lines.as_bytes()).with_category(Some("given".to_owned())).collect();
    let categories: Vec<_> = events.into_iter().map(|line| line.expect("good").event.category).collect();
    assert_eq!(categories, [Some("given".to_owned()), Some("own".to_owned())]);
}

#[test]
fn line_ends_marks_and_empty_lines_of_every_kind_are_read() {
    let good = with_data("1");
    let text = format!("\u{feff}{good}\r\n\r\n  \n\n{good}\n{{}}");
    for bytes in [text.clone().into_bytes(), zipped(text.as_bytes())] {
        let results = read(&bytes);
        assert!(results.len() == 3 && results[0].is_ok() && results[1].is_ok());
        assert_eq!(results[2].as_ref().expect_err("a bad line").line, 6);
    }
    for nothing in [&b""[..], b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", &zipped(b"")] {
        assert!(read(nothing).is_empty());
    }
}

#[test]
fn the_parts_of_a_gzip_file_are_read_as_one_and_counted_as_they_lie() {
    let lines = format!("{}\n", with_data("1")).repeat(1000);
    let bytes = [zipped(lines.as_bytes()), zipped(lines.as_bytes())].concat();
    let mut reader = reader(&bytes);
    let progress = reader.progress();
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 2000);
    assert_eq!((progress.read(), progress.total()), (bytes.len() as u64, Some(bytes.len() as u64)));
}

#[test]
fn a_damaged_input_ends_with_one_complaint() {
    let lines = format!("{}\n", with_data("1")).repeat(100);
    let bytes = zipped(lines.as_bytes());
    let results = read(&bytes[..bytes.len() - 9]);
    let (last, before) = results.split_last().expect("something");
    assert!(before.iter().all(Result::is_ok));
    let said = last.as_ref().expect_err("a complaint").to_string();
    assert!(said.contains("cannot be read any further"), "{said}");
}

#[test]
fn a_line_beyond_all_measure_is_skipped_in_bounded_memory() {
    let good = with_data("1");
    let rest = format!("\n{good}\n");
    let endless = std::io::repeat(b' ').take(MAX_LINE_BYTES * 3);
    let input = Cursor::new(format!("{good}\n")).chain(endless).chain(Cursor::new(rest));
    let mut reader = LineReader::new(input, None).expect("readable");
    assert!(reader.next().is_some_and(|first| first.is_ok()));
    let bad = reader.next().expect("a second line").expect_err("too long");
    assert_eq!((bad.line, bad.reason.as_str()), (2, "longer than 64 MiB"));
    assert!(reader.buffer.capacity() as u64 <= 2 * MAX_LINE_BYTES + 2);
    assert!(reader.next().is_some_and(|last| last.is_ok()));
    assert!(reader.buffer.capacity() <= KEPT_BYTES && reader.line == 3);
    assert!(reader.next().is_none() && reader.next().is_none());
}

#[test]
fn a_line_without_an_id_gets_one_from_its_place_and_content() {
    let (one, two) = (with_data("1"), with_data("2"));
    let ids = |text: &str, name: Option<&str>| -> Vec<Uuid> {
        reader(text.as_bytes()).with_name(name).map(|line| line.expect("good").event.event_id).collect()
    };
    let text = format!("{one}\n\n{one}\n{two}\n");
    let first = ids(&text, None);
    assert_eq!(first, ids(&text.replace('\n', " \r\n"), None), "what ends a line does not count");
    assert!(first.is_sorted() && first[0] != first[1]);
    let given = ids(&text, Some("mine"));
    assert_ne!(first[0], given[0]);
    assert_eq!(given[..2], ids(&format!("{one}\n\n{one}\n{one}"), Some("mine"))[..2]);
    assert_ne!(given[2], ids(&format!("{one}\n\n{one}\n{one}"), Some("mine"))[2]);
}
