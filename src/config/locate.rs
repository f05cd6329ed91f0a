//! Which files there are to read, and where in them a key stands.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use figment::value::Dict;
use toml_edit::{Document, Item, TableLike, Value};

use super::fault::{Fault, Place, shortened};

/// Configuration is small; a larger file is some other file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One file: its values, and where they stand, by path from the outermost table. The text is not
/// kept, it may hold a password.
pub(super) struct Source {
    pub(super) data: Dict,
    keys: HashMap<Vec<String>, Spot>,
    values: HashMap<Vec<String>, Spot>,
}

/// Line and column, from 1.
type Spot = (usize, usize);

/// A text, to find lines and columns in.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// The files that `paths` name, in order; none named: the first of the default places under
/// `base`, if there is one.
pub(super) fn files(base: &Path, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<Fault>> {
    if paths.is_empty() {
        let places = ["foldd.toml", "config/foldd.toml"].map(|place| base.join(place));
        // A dangling link or an unreadable file is there, too: reading it says what is wrong.
        let found = places.into_iter().find(|p| p.symlink_metadata().is_ok());
        return Ok(found.into_iter().collect());
    }
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        let path = base.join(path);
        if path.is_dir() {
            match folder(&path, "toml") {
                Ok(inside) if inside.is_empty() => faults.push(Fault::new(
                    Place::File(path.clone()),
                    path.display().to_string(),
                    "no *.toml file in this folder",
                    "name the file itself, or put foldd.toml there",
                )),
                Ok(inside) => files.extend(inside),
                Err(fault) => faults.push(fault),
            }
        } else {
            files.push(path);
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// The files in `path` with this extension, by name. Links are followed; names that begin with a
/// dot are skipped: a mounted ConfigMap holds every file once more in a hidden folder.
pub(super) fn folder(path: &Path, extension: &str) -> Result<Vec<PathBuf>, Fault> {
    let unreadable = |error| unreadable(path, &error, "name a folder that is there and readable");
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || file.extension().is_none_or(|found| found != extension) {
            continue;
        }
        match file.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => files.push(file),
            Err(error) => {
                let remedy = "mend the link, or take it away";
                return Err(self::unreadable(&file, &error, remedy));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one file and finds its places.
pub(super) fn read(path: &Path) -> Result<Source, Fault> {
    let text = text(path)?;
    let lines = Lines::of(&text);
    let document = Document::parse(text.as_str())
        .map_err(|error| syntax_fault(path, &lines, error.span(), error.message()))?;
    let data =
        toml::from_str(&text).map_err(|error| syntax_fault(path, &lines, error.span(), error.message()))?;
    let (keys, values) = (HashMap::new(), HashMap::new());
    let mut source = Source { data, keys, values };
    source.enter(&lines, &mut Vec::new(), document.as_table());
    Ok(source)
}

impl Source {
    /// Where the value of `key` stands, or that of the nearest table around it.
    pub(super) fn value(&self, file: &Path, key: &[String]) -> Place {
        place(file, key, &self.values)
    }

    /// Where `key` itself stands.
    pub(super) fn key(&self, file: &Path, key: &[String]) -> Place {
        place(file, key, &self.keys)
    }

    fn enter(&mut self, lines: &Lines<'_>, path: &mut Vec<String>, table: &dyn TableLike) {
        for (name, _) in table.iter() {
            let Some((key, item)) = table.get_key_value(name) else { continue };
            path.push(name.to_owned());
            // Tables that dotted keys imply have no place of their own.
            if let Some(span) = key.span().or_else(|| item.span()) {
                self.keys.insert(path.clone(), lines.spot(span.start));
            }
            if let Some(span) = item.span().or_else(|| key.span()) {
                self.values.insert(path.clone(), lines.spot(span.start));
            }
            if let Some(table) = item.as_table_like() {
                self.enter(lines, path, table);
            } else if let Item::Value(Value::Array(array)) = item {
                for (index, span) in array.iter().map(Value::span).enumerate() {
                    let spot = lines.spot(span.map_or(0, |span| span.start));
                    self.values.insert([path.as_slice(), &[index.to_string()]].concat(), spot);
                }
            }
            path.pop();
        }
    }
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    fn spot(&self, at: usize) -> Spot {
        let (line, start) = self.line(at);
        (line, self.text.get(start..at).unwrap_or_default().chars().count() + 1)
    }

    /// The number of the line that holds byte `at`, from 1, and where it begins.
    fn line(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        (line, self.starts.get(line - 1).copied().unwrap_or(0))
    }
}

fn place(file: &Path, key: &[String], spots: &HashMap<Vec<String>, Spot>) -> Place {
    let found = (1..=key.len()).rev().find_map(|length| spots.get(&key[..length]));
    found.map_or_else(
        || Place::File(file.to_owned()),
        |(line, column)| Place::Line(file.to_owned(), *line, *column),
    )
}

fn text(path: &Path) -> Result<String, Fault> {
    let remedy = "name a file that is there and readable";
    let unreadable = |error| unreadable(path, &error, remedy);
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(unreadable)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let whole = || Place::File(path.to_owned());
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(Fault::new(
            whole(),
            path.display().to_string(),
            "larger than 1 MiB",
            "name a configuration file; events are brought in by `foldd import`",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
        let good = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let (line, column) = Lines::of(&good).spot(at);
        Fault::new(
            Place::Line(path.to_owned(), line, column),
            format!("byte 0x{:02x}", bytes.get(at).copied().unwrap_or_default()),
            "the file is not UTF-8",
            "save it as UTF-8",
        )
    })?;
    // Editors on Windows leave a byte order mark, which must not count as a column.
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn unreadable(path: &Path, error: &std::io::Error, remedy: &str) -> Fault {
    Fault::new(
        Place::File(path.to_owned()),
        path.display().to_string(),
        format!("cannot be read: {error}"),
        remedy,
    )
}

/// The parser's own rendering repeats the line, which may hold a password; this shows a line only
/// up to its `=`.
fn syntax_fault(path: &Path, lines: &Lines<'_>, span: Option<Range<usize>>, message: &str) -> Fault {
    let at = span.map_or(0, |span| span.start);
    let (line, column) = lines.spot(at);
    let text = lines.text.get(lines.line(at).1..).and_then(|rest| rest.lines().next());
    let text = text.unwrap_or_default().trim();
    let shown = match text.split_once('=') {
        Some((key, _)) => format!("{}= …", shortened(key)),
        None if text.contains("://") => "a URL".to_owned(),
        None if text.is_empty() => "the end of the line".to_owned(),
        None => text.to_owned(),
    };
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let remedy = if message.contains("duplicate") {
        "keep one of them"
    } else {
        "write TOML: [table], key = value, text in double quotes"
    };
    Fault::new(Place::Line(path.to_owned(), line, column), shown, message, remedy)
}
