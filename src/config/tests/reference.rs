//! The reference page `docs/configuration.md`, written from the schema that `foldd config schema` prints. A test keeps
//! it current; `make docs` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::config::Config;

const HEAD: &str = "# Configuration\n\n\
    Written from the schema (`foldd config schema`) by `make docs`; a test keeps it current.\n\n\
    foldd reads `./foldd.toml` or `./config/foldd.toml`; `--config PATH` names another file, or a folder of `*.toml` files, and \
    may be given more than once: later ones win. Any key can also come from the environment, which wins over files: two \
    underscores stand between the words of its path, as in `FOLDD__DAEMON__WORKERS=8`. `DATABASE_URL` fills in when nothing else \
    names a database. `foldd config show` prints what is in force and where each value comes from, with passwords masked. \
    Durations are written as `10s`, `250ms`, `1h 30m`.\n";

/// Compares a generated page with the one in the repository, or writes it when `FOLDD_WRITE_DOCS` is set.
pub(crate) fn holds_or_writes(path: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("FOLDD_WRITE_DOCS").is_some() {
        std::fs::write(&file, page).expect("the page can be written");
    }
    let stands = std::fs::read_to_string(&file).expect("the page is there");
    assert!(stands == page, "{path} is not what the code says: run `make docs`");
}

fn page(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    table(&mut page, schema, schema, "");
    page
}

/// One table of the file: its keys that are values, then the tables in it.
fn table(page: &mut String, schema: &Value, of: &Value, path: &str) {
    let properties = of["properties"].as_object().into_iter().flatten();
    let (mut rows, mut tables) = (String::new(), Vec::new());
    for (key, property) in properties {
        let whole = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let meant = resolved(schema, property);
        let said = text(property).or_else(|| text(meant)).unwrap_or_default();
        if meant["properties"].is_object() {
            tables.push((whole, said, meant));
        } else if meant["additionalProperties"].is_object() {
            let inner = resolved(schema, &meant["additionalProperties"]);
            tables.push((format!("{whole}.NAME"), said, inner));
        } else {
            let default = property.get("default").filter(|value| !value.is_null());
            let default = default.map_or_else(String::new, |value| format!("`{value}`"));
            writeln!(rows, "| `{key}` | {} | {default} | {said} |", kind(property, meant))
                .expect("text takes text");
        }
    }
    if !rows.is_empty() {
        page.push_str("\n| key | value | default | what it does |\n|---|---|---|---|\n");
        page.push_str(&rows);
    }
    for (path, said, inner) in tables {
        write!(page, "\n## `[{path}]`\n\n{said}\n").expect("text takes text");
        table(page, schema, inner, &path);
    }
}

/// What a property refers to, through references and through `null` beside it.
fn resolved<'v>(schema: &'v Value, property: &'v Value) -> &'v Value {
    let one_of = property["anyOf"].as_array().into_iter().flatten().find(|one| one["type"] != "null");
    let property = one_of.unwrap_or(property);
    match property["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        Some(name) => &schema["$defs"][name],
        None => property,
    }
}

fn text(of: &Value) -> Option<String> {
    Some(of["description"].as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What may be written: the words, or the type.
fn kind(property: &Value, meant: &Value) -> String {
    let words: Vec<String> = match (meant["enum"].as_array(), meant["oneOf"].as_array()) {
        (Some(words), _) => {
            words.iter().filter(|word| !word.is_null()).map(|word| format!("`{word}`")).collect()
        }
        (None, Some(cases)) => cases.iter().map(|case| format!("`{}`", case["const"])).collect(),
        (None, None) => Vec::new(),
    };
    if !words.is_empty() {
        return words.join(", ");
    }
    let name = match property["type"].as_array() {
        Some(types) => types.iter().find(|name| *name != "null").and_then(Value::as_str),
        None => property["type"].as_str(),
    };
    match name {
        Some("array") => "list of texts".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        other => panic!("the page has no word for {other:?}: {property}"),
    }
}

#[test]
fn the_reference_of_the_configuration_is_current() {
    let page = page(&Config::schema());
    for key in ["| `workers` |", "| `url_file` |", "## `[projections.NAME]`", "| `on_error` | `\"halt\"`"] {
        assert!(page.contains(key), "{key}: {page}");
    }
    holds_or_writes("docs/configuration.md", &page);
}
