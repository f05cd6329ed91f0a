//! Mistakes in what is configured, as processes meet them: what each key takes is tested beside the code that
//! reads it; here it is what a person sees, which exit code a script gets, and that nothing was done.

use std::process::Stdio;

use crate::fold::TALLY;
use crate::world::World;

/// The verbs that read a configuration, and do their work only after it.
const VERBS: [&[&str]; 8] = [
    &["run"],
    &["demo", "--for", "1s"],
    &["migrate"],
    &["check"],
    &["config", "show"],
    &["append", "order-1", "Placed", "{}"],
    &["status"],
    &["wait", "tally", "--caught-up"],
];

/// Bytes of `foldd.toml`, and how what is said begins.
fn files() -> Vec<(&'static str, Vec<u8>, String)> {
    let long = "x".repeat(10_000);
    let case =
        |name, text: &str, said: &str| (name, text.as_bytes().to_vec(), format!("foldd: foldd.toml:{said}"));
    vec![
        case(
            "an unknown key",
            "[daemon]\nwrokers = 3",
            "2:1: daemon.wrokers: unknown key; did you mean workers?",
        ),
        case(
            "a wrong value",
            "[daemon]\nworkers = \"many\"",
            "2:11: daemon.workers = \"many\": expected a whole number",
        ),
        case("a key twice", "[daemon]\nworkers = 3\nworkers = 4", "3:1: workers = …: duplicate key"),
        case("a byte order mark and CRLF", "\u{feff}[daemon]\r\nworkers = 0\r\n", "2:11: daemon.workers = 0"),
        case(
            "quotes in a name",
            "[projections.'a\"b']",
            "1:14: projections.\"a\\\"b\": not a projection name",
        ),
        case("emoji in a name", "[projections.\"💥\"]", "1:14: projections.\"💥\": not a projection name"),
        case("a name without end", &format!("[projections.{long}]"), "1:14: projections.\"xxx"),
        case("a text without end", &format!("[log]\nlevel = \"{long}\""), "2:9: log.level = \"xxx"),
        case(
            "a reserved schema",
            "[projections.pg_catalog]",
            "1:14: projections.\"pg_catalog\": not a projection name",
        ),
        case("a duration that overflows", "[daemon]\nlease = \"99999999999999999999s\"", "2:9: daemon.lease"),
        case(
            "a duration of ages",
            "[projections.a]\nkeep_previous = \"99999999years\"",
            "2:17: projections.a.keep_previous",
        ),
        (
            "not UTF-8",
            b"[log]\n# gr\xfc\xdfe".to_vec(),
            "foldd: foldd.toml:2:5: byte 0xfc: the file is not UTF-8".to_owned(),
        ),
        ("10 MB", vec![b'#'; 10 << 20], "foldd: foldd.toml: foldd.toml: larger than 1 MiB".to_owned()),
    ]
}

#[tokio::test]
async fn a_mistake_in_the_file_ends_every_verb_with_two_before_anything_is_done() {
    let world = World::bare().await;
    world.projection("tally", TALLY);
    for (number, (name, bytes, begins)) in files().into_iter().enumerate() {
        std::fs::write(world.dir().join("foldd.toml"), &bytes).expect("a file");
        // All verbs read alike, so each file meets a few of them, and all verbs are met.
        for verb in VERBS.iter().skip(number % 4).step_by(4) {
            let done = world.foldd(verb).await;
            assert_eq!(done.code, 2, "{name}: {verb:?}: {}", done.err);
            let said = done.err.replace(&format!("{}/", world.dir().display()), "");
            assert!(said.starts_with(&begins), "{name}: {verb:?}:\n  said {said}\n  not  {begins}");
            assert!(said.contains("; ") && said.lines().count() == 1, "{name}: {said}");
            assert!(said.chars().count() < 600, "{name}: {} characters", said.chars().count());
        }
    }
    assert_eq!(world.value("select count(*) from pg_tables where schemaname = 'public'").await, "0");
}

#[tokio::test]
async fn every_mistake_of_files_and_environment_is_told_at_once() {
    let world = World::bare().await;
    world.configure("[daemon]\nworkers = 0\nwrokers = 1");
    let mut command = world.command(&["check"]);
    command.env("FOLDD__LOG__LEVEL", "inof").env("FOLDD__NOPE", "1").stdin(Stdio::null());
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for told in ["daemon.workers = 0", "daemon.wrokers", "FOLDD__LOG__LEVEL", "FOLDD__NOPE"] {
        assert_eq!(said.matches(told).count(), 1, "{told}: {said}");
    }
}

/// File names that are no projection's, and what is said.
const NAMES: [(&str, &str); 9] = [
    ("Fines", "call it \"fines\""),
    ("fi\"nes", "call it \"fi_nes\""),
    ("it's mine", "call it \"it_s_mine\""),
    ("💥", "choose another"),
    ("fines__v2", "call it \"fines_v2\""),
    ("public", "choose another"),
    ("foldd", "choose another"),
    ("pg_fines", "call it \"fines\""),
    ("a; drop table t; --", "call it \"a_drop_table_t\""),
];

#[tokio::test]
async fn files_whose_names_cannot_be_projections_are_named_with_one_that_can() {
    let world = World::new().await;
    let long = "x".repeat(200);
    let names = NAMES.into_iter().chain([(long.as_str(), "longer than 40 bytes; call it \"xxx")]);
    for (name, remedy) in names {
        world.projection(name, TALLY);
        for (verb, code) in [("check", 3), ("run", 2)] {
            let done = world.foldd(&[verb]).await;
            assert_eq!(done.code, code, "{name}: {}", done.err);
            assert!(
                done.err.contains("cannot name a projection") && done.err.contains(remedy),
                "{name}: {}",
                done.err
            );
        }
        std::fs::remove_file(world.dir().join(format!("projections/{name}.sql"))).expect("it is there");
    }
    assert_eq!(world.value("select count(*) from es_projections").await, "0");
}

#[tokio::test]
async fn words_that_sql_reserves_name_projections_like_any_other() {
    let world = World::new().await;
    let words = ["select", "user", "table", "order", "all", "null", "group", "default"];
    let text = TALLY.replace("tally", "\"order\"");
    for word in words {
        world.projection(word, &text);
    }
    world.append("order-1", "Placed", "{}").await;
    assert_eq!(world.foldd(&["check"]).await.code, 0);
    let daemon = world.daemon();
    for word in words {
        world.caught_up(word).await;
        assert_eq!(world.rows(&format!("\"{word}\".\"order\"")).await, ["(Placed,1)"], "{word}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn projection_files_that_cannot_be_read_are_named_and_keep_the_daemon_from_starting() {
    let world = World::new().await;
    world.projection("good", TALLY);
    let folder = world.dir().join("projections");
    for (name, bytes, told) in [
        ("latin", Some(b"/* foldd */ -- gr\xfc\xdfe".to_vec()), "is not UTF-8 at byte 17"),
        ("large", Some(vec![b'-'; 10 << 20]), "has 10485760 bytes"),
        ("hollow", Some(Vec::new()), "the file is empty; begin with"),
        ("dangling", None, "cannot be read: No such file"),
    ] {
        let path = folder.join(format!("{name}.sql"));
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).expect("a file"),
            None => std::os::unix::fs::symlink("gone", &path).expect("a link"),
        }
        for (verb, code) in [("check", 3), ("run", 2)] {
            let done = world.foldd(&[verb]).await;
            assert_eq!(done.code, code, "{name}: {}", done.err);
            assert!(
                done.err.contains(&format!("{name}.sql")) && done.err.contains(told),
                "{name}: {}",
                done.err
            );
            assert!(!done.err.contains("good.sql"), "{name}: {}", done.err);
        }
        std::fs::remove_file(path).expect("it is there");
    }
    std::fs::remove_dir_all(&folder).expect("it is there");
    for verb in ["check", "run"] {
        let done = world.foldd(&[verb]).await;
        assert!(matches!(done.code, 2 | 3), "{}", done.code);
        assert!(done.err.contains("projection_dirs") && done.err.contains("cannot be read"), "{}", done.err);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_by_whoever_wants_it() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has an address").to_string();
    world.configure("");
    let text = std::fs::read_to_string(world.dir().join("foldd.toml")).expect("it is there");
    std::fs::write(world.dir().join("foldd.toml"), text.replace("127.0.0.1:0", &address)).expect("a file");
    for verb in [
        &["run"][..],
        &["run", "--embedded", "--data-dir", "data"],
        &["demo", "--for", "1s", "--listen", &address],
    ] {
        let done = world.foldd(verb).await;
        assert_eq!(done.code, 1, "{verb:?}: {}", done.err);
        assert!(done.err.contains(&address) && done.err.contains("ops.listen"), "{verb:?}: {}", done.err);
    }
    assert!(!world.dir().join("data").exists(), "no server is started for a daemon that cannot be");
}
