//! `config show`: the effective configuration, secrets masked.

use serde_json::Value as Json;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use super::load::Loaded;

impl Loaded {
    /// As a `foldd.toml`, each value with where it comes from.
    pub(crate) fn show_toml(&self) -> String {
        let mut document = DocumentMut::new();
        *document.as_table_mut() = self.table(&mut Vec::new(), &self.show_json());
        document.to_string()
    }

    /// As JSON, in the shape of the file.
    pub(crate) fn show_json(&self) -> Json {
        serde_json::to_value(&self.config).unwrap_or_default()
    }

    /// Every value with its key, as in `daemon.workers`, and where it comes from; secrets masked.
    pub(crate) fn show_entries(&self) -> Vec<Json> {
        let mut entries = Vec::new();
        self.collect(&mut Vec::new(), &self.show_json(), &mut entries);
        entries
    }

    fn collect(&self, path: &mut Vec<String>, json: &Json, entries: &mut Vec<Json>) {
        let Some(table) = json.as_object() else {
            let keys: Vec<&str> = path.iter().map(String::as_str).collect();
            let from = self.place(&keys).to_string();
            entries.push(serde_json::json!({ "key": path.join("."), "value": json, "from": from }));
            return;
        };
        for (key, json) in table {
            path.push(key.clone());
            self.collect(path, json, entries);
            path.pop();
        }
    }

    fn table(&self, path: &mut Vec<String>, json: &Json) -> Table {
        let mut table = Table::new();
        table.set_implicit(true);
        for (key, json) in json.as_object().into_iter().flatten() {
            path.push(key.clone());
            let item = if json.is_object() {
                Item::Table(self.table(path, json))
            } else {
                let keys: Vec<&str> = path.iter().map(String::as_str).collect();
                let mut value = plain(json);
                value.decor_mut().set_suffix(format!("  # {}", comment(&self.place(&keys).to_string())));
                Item::Value(value)
            };
            table.insert(key, item);
            path.pop();
        }
        table
    }
}

/// One value as TOML. TOML has no null; keys without a value are left out before.
fn plain(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(""),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(plain).collect::<Array>()),
        Json::Object(table) => {
            let pairs = table.iter().map(|(key, value)| (key.as_str(), plain(value)));
            Value::InlineTable(pairs.collect::<InlineTable>())
        }
    }
}

/// A file's name may hold a line break, which would end the comment.
fn comment(place: &str) -> String {
    place.replace(char::is_control, " ")
}
