//! Projection files that are wrong, one mistake each, as people make them: `tests/corpus/sql`.
//!
//! What should be said stands in the front matter of each file, as comments. `when` says who finds the
//! mistake: `read` whoever reads the file, `planned` PostgreSQL when it plans the statements, `folded` nobody
//! before an event comes. Without `place` it is nowhere in the file.

use std::path::Path;

use serde::Deserialize;

use super::{IMPATIENT, TALLY};
use crate::world::World;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    when: When,
    place: Option<u32>,
    says: String,
    remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Read,
    Planned,
    Folded,
}

struct Wrong {
    name: String,
    text: String,
    expected: Expected,
}

impl Wrong {
    /// The place as it is told: which file and, where there is one, which line of it.
    fn place(&self) -> String {
        let line = self.expected.place.map(|line| format!(":{line}")).unwrap_or_default();
        format!("projections/{}.sql{line}", self.name)
    }
}

/// The corpus, in the order of its names.
fn corpus(when: &[When]) -> Vec<Wrong> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/sql");
    let mut corpus: Vec<Wrong> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| {
            let path = entry.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("it can be read");
            let comments: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# ")).collect();
            let expected = toml::from_str(&comments.join("\n"))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Wrong { name, text, expected }
        })
        .filter(|wrong| when.contains(&wrong.expected.when))
        .collect();
    corpus.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(corpus.len() > 5, "the corpus is found");
    corpus
}

/// A world with a log, a neighbour's table, and a projection that nothing is wrong with.
async fn world() -> World {
    let world =
        World::new().await.by_superusers("the daemon's role may do less than most of these mistakes need");
    world.execute("create schema neighbour; create table neighbour.tally (n bigint)").await;
    world.execute("insert into neighbour.tally values (1)").await;
    world.projection("good", TALLY);
    for word in ["1", "one", "3"] {
        world.append("order-1", "A", &format!("{{\"word\": \"{word}\"}}")).await;
    }
    world
}

/// Nothing but the good projection came of it, and nothing was lost.
async fn all_else_is_untouched(world: &World) {
    assert_eq!(world.value("select count(*) from es_events").await, "3");
    assert_eq!(world.value("select count(*) from es_streams").await, "1");
    assert_eq!(world.rows("neighbour.tally").await, ["(1)"]);
    assert_eq!(world.value("select count(*) from pg_namespace where nspname like '%check%'").await, "0");
}

#[tokio::test]
async fn check_names_each_mistake_with_place_value_and_remedy() {
    let world = world().await;
    let mut unlike = Vec::new();
    for wrong in corpus(&[When::Read, When::Planned, When::Folded]) {
        world.projection(&wrong.name, &wrong.text);
        let done = world.foldd(&["check", &format!("projections/{}.sql", wrong.name)]).await;
        let Expected { when, says, remedy, .. } = &wrong.expected;
        let is_as_expected = if *when == When::Folded {
            done.code == 0
        } else {
            let said = done.err.strip_prefix("foldd: ").unwrap_or_default();
            let is_one_line = said.lines().count() == 1 && said.contains("; ");
            done.code == 3
                && is_one_line
                && said.starts_with(&format!("{}:", wrong.place()))
                && said.contains(says)
                && said.contains(remedy)
        };
        if !is_as_expected {
            unlike.push(format!(
                "{}: {:?}\n  said {} {}",
                wrong.place(),
                wrong.expected,
                done.code,
                done.err
            ));
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
    all_else_is_untouched(&world).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_the_daemon_from_starting_and_all_are_named() {
    let world = world().await;
    let corpus = corpus(&[When::Read]);
    for wrong in &corpus {
        world.projection(&wrong.name, &wrong.text);
    }
    let done = world.foldd(&["run"]).await;
    assert_eq!(done.code, 2, "{}", done.err);
    for wrong in &corpus {
        let named =
            done.err.lines().any(|line| line.contains(&wrong.place()) && line.contains(&wrong.expected.says));
        assert!(named, "{} in {}", wrong.place(), done.err);
    }
    assert!(!done.err.contains("good.sql"), "{}", done.err);
    all_else_is_untouched(&world).await;
}

#[tokio::test]
async fn a_projection_that_cannot_be_planned_or_folded_halts_alone() {
    let world = world().await;
    let corpus = corpus(&[When::Planned, When::Folded]);
    for wrong in &corpus {
        world.projection(&wrong.name, &wrong.text);
    }
    let daemon = world.daemon_with(&IMPATIENT);
    for wrong in &corpus {
        let error = world.halted(&wrong.name).await;
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let Expected { when, place, says, remedy } = &wrong.expected;
        assert!(text("message").contains(says), "{}: {error}", wrong.name);
        assert!(!remedy.is_empty() || !text("remedy").is_empty(), "{}: {error}", wrong.name);
        assert!(text("remedy").contains(remedy), "{}: {error}", wrong.name);
        assert!(place.is_none() || text("place").ends_with(&wrong.place()), "{}: {error}", wrong.name);
        if *when == When::Folded {
            assert_eq!(error["event"]["stream_id"], "order-1", "{}: {error}", wrong.name);
            let status = world.status(&wrong.name).await;
            let before = error["event"]["position"].as_i64().expect("a position") - 1;
            let checkpoint = status["partitions"][0]["checkpoint"]["position"].as_i64().expect("a position");
            assert!(checkpoint <= before, "{}: {status}", wrong.name);
            let counted = world.value(&format!("select count(*) from {}.own", wrong.name)).await;
            assert_eq!(counted, checkpoint.to_string(), "{}: what was folded is what is kept", wrong.name);
        } else {
            let schema = format!("select count(*) from pg_namespace where nspname = '{}'", wrong.name);
            assert_eq!(world.value(&schema).await, "0", "{}: nothing was built", wrong.name);
        }
    }
    world.caught_up("good").await;
    assert_eq!(world.rows("good.tally").await, ["(A,3)"]);
    assert_eq!(world.status("good").await["phase"], "live");
    all_else_is_untouched(&world).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
