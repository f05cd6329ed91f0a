//! What is said about each thing that can be wrong.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::{Environment, load};
use super::Folder;

/// Bad files: the text, how the only fault begins, and what its remedy says.
const BAD_FILES: &[(&str, &str, &str)] = &[
    ("[daemon]\nwrokers = 3", "foldd.toml:2:1: daemon.wrokers: unknown key", "did you mean workers?"),
    ("nope = 1", "foldd.toml:1:1: nope: unknown key", "known here: projection_dirs, database"),
    ("[nope]\nx = 1", "foldd.toml:1:2: nope: unknown key", "known here"),
    (
        "[daemon]\nworkers = \"many\"",
        "foldd.toml:2:11: daemon.workers = \"many\": expected a whole number, found text",
        "workers = 4",
    ),
    ("[daemon]\nworkers = 0", "foldd.toml:2:11: daemon.workers = 0: out of range", "1 to 256"),
    ("[daemon]\nworkers = -1", "foldd.toml:2:11: daemon.workers = -1: out of range", "workers = 4"),
    (
        "[daemon]\nworkers = 2.5",
        "foldd.toml:2:11: daemon.workers = 2.5: expected a whole number, found a fraction",
        "workers = 4",
    ),
    (
        "[daemon]\nmax_page_bytes = 99999999999",
        "foldd.toml:2:18: daemon.max_page_bytes = 99999999999: out of range",
        "67108864",
    ),
    ("[daemon]\nworkers = 99999999999999999999", "foldd.toml:2:", "write"),
    ("daemon.workers = 0", "foldd.toml:1:18: daemon.workers = 0", "1 to 256"),
    ("daemon = { workers = 0 }", "foldd.toml:1:22: daemon.workers = 0", "1 to 256"),
    ("daemon = 5", "foldd.toml:1:10: daemon = 5: expected a table", "[daemon]"),
    (
        "projections.a = [2]",
        "foldd.toml:1:17: projections.a: expected a table, found a list",
        "[projections.a]",
    ),
    ("[[daemon]]\nworkers = 3", "foldd.toml:1:1: daemon: expected a table, found a list", "[daemon]"),
    (
        "[daemon]\nlease = 10",
        "foldd.toml:2:9: daemon.lease = 10: expected text in quotes, found a number",
        "lease = \"10s\"",
    ),
    ("[daemon]\nlease = \"10\"", "foldd.toml:2:9: daemon.lease = \"10\": not a duration", "lease = \"10s\""),
    (
        "[daemon]\nlease = \"99999999999999999999s\"",
        "foldd.toml:2:9: daemon.lease = \"99999999999999999999s\": not a duration",
        "lease = \"10s\"",
    ),
    ("[daemon]\nlease = \"584542046090years 6months\"", "foldd.toml:2:9: daemon.lease", "10m"),
    ("[daemon]\nlease = \"999ms\"", "foldd.toml:2:9: daemon.lease = 999ms: out of range", "1s to 10m"),
    (
        "[daemon]\npoll_interval = \"4s\"",
        "default: daemon.lease = 10s: shorter than three times poll_interval",
        "12s",
    ),
    (
        "[daemon]\nbatch_timeout = \"2s\"",
        "foldd.toml:2:17: daemon.batch_timeout = 2s: out of range",
        "twice catch_up_batch",
    ),
    ("[daemon]\nlive_batch = \"2s\"", "default: daemon.catch_up_batch = 1s: out of range", "live_batch"),
    (
        "[daemon]\ndead_letter_retention = \"5min\"",
        "foldd.toml:2:25: daemon.dead_letter_retention = 5m: out of range",
        "give 1h to 10years",
    ),
    (
        "[daemon]\ndrain_timeout = \"0s\"",
        "foldd.toml:2:17: daemon.drain_timeout = 0s: out of range",
        "catch_up_batch",
    ),
    (
        "[daemon]\nmigrate = \"on-start\"",
        "foldd.toml:2:11: daemon.migrate = \"on-start\": unknown word",
        "on_start",
    ),
    ("[daemon]\nmigrate = 0", "foldd.toml:2:11: daemon.migrate = 0: expected text in quotes", "on_start"),
    (
        "[ops]\nlisten = \"localhost\"",
        "foldd.toml:2:10: ops.listen = \"localhost\": invalid socket address",
        "127.0.0.1:3653",
    ),
    (
        "[ops]\nlisten = \"0.0.0.0:99999\"",
        "foldd.toml:2:10: ops.listen = \"0.0.0.0:99999\": invalid socket address",
        "127.0.0.1:3653",
    ),
    ("[log]\nformat = \"jsn\"", "foldd.toml:2:10: log.format = \"jsn\": unknown word", "did you mean json?"),
    ("[log]\nlevel = \"inof\"", "foldd.toml:2:9: log.level = \"inof\": inof is no level", "info"),
    ("[log]\nlevel = \"foldd=loud\"", "foldd.toml:2:9: log.level = \"foldd=loud\": not a filter", "info"),
    (
        "projection_dirs = \"p\"",
        "foldd.toml:1:19: projection_dirs = \"p\": expected a list, found text",
        "[\"projections\"]",
    ),
    (
        "projection_dirs = [\"p\", 3]",
        "foldd.toml:1:25: projection_dirs.1 = 3: expected text in quotes",
        "[\"projections\"]",
    ),
    ("[projections.Fines]", "foldd.toml:1:14: projections.\"Fines\": not a projection name", "call it fines"),
    ("[projections.'a\"b']", "foldd.toml:1:14: projections.\"a\\\"b\": not a projection name", "call it a_b"),
    ("[projections.\"💥\"]", "foldd.toml:1:14: projections.\"💥\": not a projection name", "a to z"),
    ("[projections.pg_x]", "foldd.toml:1:14: projections.\"pg_x\": not a projection name", "PostgreSQL"),
    ("[projections.a]\nversion = 0", "foldd.toml:2:11: projections.a.version = 0: out of range", "1 to"),
    (
        "[projections.a]\npartitions = 70000",
        "foldd.toml:2:14: projections.a.partitions = 70000: out of range",
        "1024",
    ),
    (
        "[projections.a]\non_error = \"halts\"",
        "foldd.toml:2:12: projections.a.on_error = \"halts\": unknown word",
        "did you mean halt?",
    ),
    (
        "[projections.a]\ncategories = \"a\"",
        "foldd.toml:2:14: projections.a.categories = \"a\": expected a list",
        "a list of names",
    ),
    (
        "[projections.a]\ntables = \"create table t ()\"",
        "foldd.toml:2:10: projections.a.tables = …: only Rust",
        "handler",
    ),
    ("[daemon]\nworkers = 3\n  workers = 4", "foldd.toml:3:3: workers = …: duplicate key", "keep one"),
    ("[daemon]\n[log]\n[daemon]", "foldd.toml:3:", "keep one"),
    ("[daemon\nworkers = 3", "foldd.toml:1:8: [daemon", "write TOML"),
    ("[daemon]\nworkers = ", "foldd.toml:2:1", "write TOML"),
    ("\u{feff}[daemon]\r\nworkers = 0\r\n", "foldd.toml:2:11: daemon.workers = 0", "1 to 256"),
    ("# äöü\n[projections]\n\"ä\" = {}", "foldd.toml:3:1: projections.\"ä\"", "a to z"),
];

#[test]
fn each_mistake_in_a_file_is_told_with_place_value_and_remedy() {
    let (name, key) =
        (format!("[projections.{}]", "x".repeat(10_000)), format!("[daemon]\n{} = 1", "x".repeat(10_000)));
    let long = [
        (name.as_str(), "foldd.toml:1:14: projections.\"xxx", "call it"),
        (key.as_str(), "foldd.toml:2:1: daemon.xxx", "known here"),
    ];
    for (text, begins, remedy) in BAD_FILES.iter().copied().chain(long) {
        let said = Folder::with(&[("foldd.toml", text)]).said(&[], &[]);
        let shown: String = text.chars().take(80).collect();
        assert!(said.starts_with(begins), "{shown}\n  said {said}\n  not  {begins}");
        assert!(said.contains(remedy), "{shown}\n  said {said}\n  not  {remedy}");
        assert_eq!(said.lines().count(), 1, "{shown}\n{said}");
    }
}

#[test]
fn each_mistake_in_the_environment_is_told_by_variable() {
    let cases = [
        ("FOLDD__DAEMON__WROKERS", "3", "unknown key", "did you mean FOLDD__DAEMON__WORKERS?"),
        ("foldd__daemon__workers", "0", "daemon.workers = 0: out of range", "1 to 256"),
        ("FOLDD__DAEMON__WORKERS", "many", "expected a whole number", "workers = 4"),
        ("FOLDD__DAEMON__WORKERS", "", "daemon.workers = \"\": expected a whole number", "workers = 4"),
        ("FOLDD__DAEMON__LEASE", "10", "daemon.lease = ", "lease = \"10s\""),
        ("FOLDD__DAEMON", "x", "expected a table", "[daemon]"),
        ("FOLDD__", "x", "unknown key", "known here"),
        ("FOLDD__PROJECTIONS__FINES__VESRION", "2", "unknown key", "FOLDD__PROJECTIONS__FINES__VERSION?"),
        (
            "FOLDD__DATABASE__URL",
            "mysql://u:hunter2@h/d",
            "mysql://u:***@h/d: the scheme is not postgres",
            "postgres://",
        ),
        (
            "DATABASE_URL",
            "postgres://u:hunter2#@h/d",
            "postgres://u:***@h/d: not a database URL",
            "percent-encoded",
        ),
    ];
    for (name, value, problem, remedy) in cases {
        let said = Folder::new().said(&[], &[(name, value)]);
        assert!(said.starts_with(&format!("{name}: ")), "{said}");
        assert!(said.contains(problem) && said.contains(remedy), "{name}={value}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn values_that_are_not_utf_8_and_keys_in_two_cases_are_told() {
    let bad = OsString::from_vec(vec![0xff]);
    let environment: Environment = [("FOLDD__LOG__LEVEL", bad.clone()), ("PATH", bad)].into_iter().collect();
    let error = load::load(&Folder::new().0, &[], &environment).err().expect("bad");
    assert!(
        error.to_string().starts_with("FOLDD__LOG__LEVEL: FOLDD__LOG__LEVEL: the value is not UTF-8"),
        "{error}"
    );

    let twice = [("FOLDD__DAEMON__WORKERS", "3"), ("foldd__daemon__workers", "4")];
    let said = Folder::new().said(&[], &twice);
    assert!(said.contains("the same key as FOLDD__DAEMON__WORKERS"), "{said}");
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_their_places() {
    let folder = Folder::with(&[(
        "foldd.toml",
        "[daemon]\nwrokers = 1\nworkers = 0\nlease = 1\n[log]\nlevel = \"inof\"\n",
    )]);
    let said = folder.said(&[], &[("FOLDD__OPS__LISTEN", "x"), ("FOLDD__NOPE", "1")]);
    let places: Vec<_> = said.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(
        places,
        [
            "foldd.toml:2:1",
            "foldd.toml:3:11",
            "foldd.toml:4:9",
            "foldd.toml:6:9",
            "FOLDD__NOPE",
            "FOLDD__OPS__LISTEN"
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_told_with_the_reason() {
    let folder = Folder::with(&[("empty/.hidden.toml", "x"), ("a.toml", "")]);
    folder.put("large.toml", &vec![b'#'; (1 << 20) + 1]);
    folder.put("latin.toml", b"# gr\xfc\xdfe");
    std::os::unix::fs::symlink("gone", folder.0.join("foldd.toml")).expect("a link");
    let cases: [(&[&str], &str, &str); 6] = [
        (&["missing.toml"], "missing.toml: missing.toml: cannot be read: No such file", "name a file"),
        (&["empty"], "empty: empty: no *.toml file", "put foldd.toml there"),
        (&["large.toml"], "large.toml: large.toml: larger than 1 MiB", "foldd import"),
        (&["latin.toml"], "latin.toml:1:5: byte 0xfc: the file is not UTF-8", "save it as UTF-8"),
        (&["a.toml/b.toml"], "a.toml/b.toml: a.toml/b.toml: cannot be read: Not a directory", "name a file"),
        (&[], "foldd.toml: foldd.toml: cannot be read: No such file", "name a file"),
    ];
    for (paths, begins, remedy) in cases {
        let said = folder.said(paths, &[]);
        assert!(said.starts_with(begins) && said.contains(remedy), "{paths:?}: {said}");
    }
}

#[test]
fn a_broken_line_with_a_password_is_not_repeated() {
    for text in [
        "[database]\nurl = \"postgres://u:hunter2@h/d",
        "[database]\npostgres://u:hunter2@h/d",
        "[database]\npassword = \"hunter2\"",
    ] {
        let said = Folder::with(&[("foldd.toml", text)]).said(&[], &[]);
        assert!(!said.contains("hunter2"), "{said}");
    }
}
