//! The house rules, as absences: floors, SQL, spawning, clocks, environment, metrics' names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each room of `src/`; a file imports from floors below, or from siblings.
fn floor(room: &str) -> Option<u8> {
    Some(match room {
        "event" | "stream" | "cursor" | "aggregate" | "error" | "backoff" | "metrics" | "mutants" => 0,
        "store" => 1,
        "ledger" => 2,
        "projection" => 3,
        "engine" => 4,
        "supervisor" => 5,
        "ops" | "cli" | "config" | "logging" | "embedded" | "daemon" | "demo" | "hosting" | "lib"
        | "main" => 6,
        _ => return None,
    })
}

struct Source {
    path: String,
    room: String,
    /// The text without comments and without what only tests compile.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 40, "the sources are found");
    files
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.to_string_lossy().contains("/tests/"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            let below = path.strip_prefix(&root).expect("it is below src");
            let room = below.iter().next().expect("it has a name").to_string_lossy();
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = product
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            Source {
                path: below.to_string_lossy().into_owned(),
                room: room.trim_end_matches(".rs").to_owned(),
                code,
            }
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The rooms that a file names after `crate::`, in imports and in paths.
fn rooms_named(code: &str) -> Vec<String> {
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => {
                group.split('}').next().unwrap_or_default().split(',').map(first_word).collect::<Vec<_>>()
            }
            None => vec![first_word(rest)],
        })
        .collect()
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|char| char.is_ascii_lowercase() || *char == '_').collect()
}

#[test]
fn no_import_points_to_a_floor_above() {
    let mut wrong = Vec::new();
    for source in sources() {
        let from =
            floor(&source.room).unwrap_or_else(|| panic!("{} stands in no room of the plan", source.path));
        for room in rooms_named(&source.code) {
            if floor(&room).is_some_and(|to| to > from) {
                wrong.push(format!("{} imports {room}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn http_and_command_line_do_not_know_each_other() {
    for source in sources() {
        let named = rooms_named(&source.code);
        assert!(source.room != "ops" || !named.contains(&"cli".to_owned()), "{}", source.path);
        assert!(source.room != "cli" || !named.contains(&"ops".to_owned()), "{}", source.path);
    }
}

/// Which folders may hold a piece of text, and why nobody else may.
fn only_in(needles: &[&str], allowed: &[&str], why: &str) {
    let wrong: Vec<_> = sources()
        .iter()
        .filter(|source| !allowed.iter().any(|place| source.path.starts_with(place)))
        .flat_map(|source| {
            needles
                .iter()
                .filter(|needle| source.code.contains(**needle))
                .map(|needle| format!("{}: {needle}", source.path))
        })
        .collect();
    assert!(wrong.is_empty(), "{why}: {wrong:#?}");
}

#[test]
fn sql_stands_only_where_it_belongs() {
    only_in(
        &["sqlx::query", "raw_sql("],
        &["store/", "ledger/", "projection/", "engine/build", "engine/batch", "engine/scratch"],
        "SQL belongs to the log, the books, the compiler and what builds",
    );
}

#[test]
fn each_table_has_one_owner_file() {
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let tables = [
        "es_snapshots",
        "es_migrations",
        "es_replicas",
        "es_projections",
        "es_phases",
        "es_incarnation",
        "es_operator_log",
    ];
    for source in sources() {
        for table in tables {
            let writes = ["insert into ", "update ", "delete from "].map(|verb| format!("{verb}{table} "));
            if writes.iter().any(|write| source.code.contains(write.as_str())) {
                owners.entry(table).or_default().push(source.path.clone());
            }
        }
    }
    for (table, files) in owners {
        assert_eq!(files.len(), 1, "{table} is written by {files:?}");
    }
}

#[test]
fn checkpoints_move_only_through_es_advance() {
    for source in sources() {
        let moves =
            source.code.contains("set last_transaction_id") || source.code.contains("last_position =");
        // Adoption fills nulls of a foreign table before it is anybody's checkpoint.
        assert!(!moves || source.path.starts_with("store/adopt"), "{}", source.path);
    }
}

#[test]
fn the_machine_is_a_pure_function_without_a_catch_all() {
    let machine =
        sources().into_iter().find(|source| source.path == "engine/machine.rs").expect("there is a machine");
    assert!(!machine.code.contains(".await"));
    assert!(!machine.code.contains("\n        _ =>"));
}

#[test]
fn nobody_but_the_supervisor_spawns() {
    // A reader of a blocking file gets a thread, which ends with its file.
    only_in(&["tokio::spawn", ".spawn("], &["supervisor/", "embedded"], "the supervisor owns every task");
}

#[test]
fn nobody_but_the_configuration_reads_the_environment() {
    only_in(
        &["env::var", "vars_os"],
        &["config/", "embedded", "mutants"],
        "the configuration reads the environment",
    );
}

#[test]
fn nobody_but_metrics_names_a_metric() {
    only_in(
        &["metrics::gauge!", "metrics::counter!", "metrics::histogram!", "\"foldd_lag"],
        &["metrics"],
        "one list of metrics",
    );
}

#[test]
fn nobody_reads_the_wall_clock() {
    only_in(&["SystemTime", "Utc::now", "Local::now"], &[], "time comes from PostgreSQL");
}

/// What a link behind `#` may say: headings as they are written in addresses, and names given by hand.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    });
    let named = page.split("name=\"").skip(1).filter_map(|rest| rest.split('"').next());
    headings.chain(named.map(str::to_owned)).collect()
}

#[test]
fn every_link_of_the_readme_and_the_docs_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("there are docs").flatten().map(|entry| entry.path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let mut found = 0;
    for page in pages.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).expect("it can be read");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            assert!(target.exists(), "{} links to {link}", page.display());
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).expect("it can be read"));
                assert!(
                    there.iter().any(|one| one == anchor),
                    "{} links to {link}: {there:?}",
                    page.display()
                );
            }
            found += 1;
        }
    }
    assert!(found > 40, "the links are found: {found}");
}
