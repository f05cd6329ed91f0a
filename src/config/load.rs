//! From files and variables to a [`Config`], or to every fault at once.

use std::path::{Path, PathBuf};

use figment::error::{Actual, Error, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Deserialize;

use super::environment::{Environment, Variable};
use super::fault::{ConfigError, Fault, Place};
use super::locate::{self, Source};
use super::{Config, check, explain};

/// A configuration and where each of its values comes from.
pub(crate) struct Loaded {
    /// The effective values, relative paths resolved.
    pub(crate) config: Config,
    /// The operating system's user, for whoever signs what they do.
    pub(crate) user: String,
    /// Whether a terminal may be given colours.
    pub(crate) colours: bool,
    pub(super) origins: Origins,
}

/// The layers, and what they became when laid over each other.
pub(super) struct Origins {
    layers: Vec<Layer>,
    figment: Figment,
    merged: Value,
}

/// One file or one variable; later layers go over earlier ones.
struct Layer {
    name: String,
    data: Dict,
    from: From,
}

enum From {
    File {
        path: PathBuf,
        source: Box<Source>,
    },
    /// The text stays at hand for what looks like a number and means text.
    Variable {
        key: Vec<String>,
        text: String,
    },
}

/// More than anybody mends in one go; also what ends the search for faults.
const MAX_FAULTS: usize = 100;

/// Reads and checks everything. `base` is the working folder; tests give another.
pub(super) fn load(base: &Path, paths: &[PathBuf], environment: &Environment) -> Result<Loaded, ConfigError> {
    let (mut layers, mut faults) = (Vec::new(), Vec::new());
    match locate::files(base, paths) {
        Ok(files) => files.iter().for_each(|file| collect(Layer::file(file), &mut layers, &mut faults)),
        Err(missing) => faults.extend(missing),
    }
    for variable in environment.keys() {
        collect(variable.map(Layer::variable), &mut layers, &mut faults);
    }
    settle(&mut layers, &mut faults, "ops", ["token", "token_file"]);
    if !settle(&mut layers, &mut faults, "database", ["url", "url_file"])
        && let Some(url) = environment.database_url()
    {
        collect(url.map(Layer::variable), &mut layers, &mut faults);
    }
    let origins = Origins::merge(layers);
    let mut config = origins.extract(&mut faults);
    faults.extend(check::faults(&config, &origins));
    if !faults.is_empty() {
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        return Err(ConfigError { faults });
    }
    origins.resolve_paths(base, &mut config);
    let colours = !environment.no_color() && !environment.is_dumb();
    Ok(Loaded { config, user: environment.user(), colours, origins })
}

impl Loaded {
    /// Where the value of a key comes from, for example of `["daemon", "workers"]`.
    pub(crate) fn place(&self, key: &[&str]) -> Place {
        self.origins.place(key)
    }
}

impl Origins {
    fn merge(layers: Vec<Layer>) -> Self {
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        // Layers know no profiles, so everything is in the default one.
        let merged = figment.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default));
        Origins { layers, figment, merged: Value::from(merged.unwrap_or_default()) }
    }

    /// Where the value of `key` was given.
    pub(super) fn place(&self, key: &[&str]) -> Place {
        let key = owned(key);
        self.layer(&key).map_or(Place::Default, |layer| layer.place(&key, Source::value))
    }

    /// Where `key` itself was written, for what is wrong with a name.
    pub(super) fn place_of_name(&self, key: &[&str]) -> Place {
        let key = owned(key);
        self.layer(&key).map_or(Place::Default, |layer| layer.place(&key, Source::key))
    }

    /// The configuration without what is wrong, and what is wrong. serde stops at the first
    /// fault, so each one is noted and taken out, and the rest is read again.
    fn extract(&self, faults: &mut Vec<Fault>) -> Config {
        let mut kept = self.merged.clone();
        for key in lists_for_tables(&kept) {
            let mut error = Error::from(Kind::InvalidType(Actual::Seq, "a map".to_owned()));
            error.path = key;
            faults.push(explain::fault(&error, self.blame(&error), None));
            replace(&mut kept, &error.path, None);
        }
        for _ in 0..MAX_FAULTS {
            let error = match Config::deserialize(&kept) {
                Ok(config) => return config,
                Err(error) => error,
            };
            if let Some(text) = self.meant_as_text(&error) {
                replace(&mut kept, &error.path, Some(text));
                continue;
            }
            faults.push(explain::fault(&error, self.blame(&error), find(&self.merged, &error.path)));
            if !replace(&mut kept, &error.path, None) {
                break;
            }
        }
        Config::default()
    }

    /// A variable carries no type: digits are text where text is expected.
    fn meant_as_text(&self, error: &Error) -> Option<Value> {
        let Kind::InvalidType(found, _) = &error.kind else { return None };
        let layer = self.layer(&error.path)?;
        match &layer.from {
            From::Variable { key, text } if *key == error.path && !matches!(found, Actual::Str(_)) => {
                Some(Value::from(text.as_str()))
            }
            From::Variable { .. } | From::File { .. } => None,
        }
    }

    fn blame(&self, error: &Error) -> Place {
        let about_name = matches!(error.kind, Kind::UnknownField(..));
        let what = if about_name { Source::key } else { Source::value };
        self.layer(&error.path).map_or(Place::Default, |layer| layer.place(&error.path, what))
    }

    /// The layer that gave the value at `key`.
    fn layer(&self, key: &[String]) -> Option<&Layer> {
        let tag = find(&self.merged, key)?.tag();
        let metadata = self.figment.get_metadata(tag)?;
        self.layers.iter().find(|layer| layer.name == metadata.name)
    }

    fn resolve_paths(&self, base: &Path, config: &mut Config) {
        let resolve = |key: &[&str], path: &mut PathBuf| {
            let folder = match self.layer(&owned(key)).map(|layer| &layer.from) {
                Some(From::File { path, .. }) => path.parent().unwrap_or(base),
                Some(From::Variable { .. }) | None => base,
            };
            *path = folder.join(&*path);
        };
        for dir in &mut config.projection_dirs {
            resolve(&["projection_dirs"], dir);
        }
        if let Some(file) = &mut config.database.url_file {
            resolve(&["database", "url_file"], file);
        }
        if let Some(file) = &mut config.ops.token_file {
            resolve(&["ops", "token_file"], file);
        }
        if let Some(dir) = &mut config.embedded.data_dir {
            resolve(&["embedded", "data_dir"], dir);
        }
    }
}

impl Layer {
    fn file(path: &Path) -> Result<Self, Fault> {
        let mut source = Box::new(locate::read(path)?);
        let data = std::mem::take(&mut source.data);
        let name = path.display().to_string();
        Ok(Layer { name, data, from: From::File { path: path.to_owned(), source } })
    }

    fn variable(variable: Variable) -> Self {
        let Variable { name, path: key, value: text } = variable;
        let Ok(value) = text.parse::<Value>();
        let nested =
            key.iter().rev().fold(value, |inner, key| Value::from(Dict::from([(key.clone(), inner)])));
        let data = nested.into_dict().unwrap_or_default();
        Layer { name, data, from: From::Variable { key, text } }
    }

    fn place(&self, key: &[String], find: impl Fn(&Source, &Path, &[String]) -> Place) -> Place {
        match &self.from {
            From::File { path, source } => find(source, path, key),
            From::Variable { .. } => Place::Variable(self.name.clone()),
        }
    }

    fn table(&mut self, name: &str) -> Option<&mut Dict> {
        match self.data.get_mut(name) {
            Some(Value::Dict(_, table)) => Some(table),
            Some(_) | None => None,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.data.clone())]))
    }
}

fn collect(layer: Result<Layer, Fault>, layers: &mut Vec<Layer>, faults: &mut Vec<Fault>) {
    match layer {
        Ok(layer) => layers.push(layer),
        Err(fault) => faults.push(fault),
    }
}

/// A secret and the file that holds it, such as `url` and `url_file`, are two ways to say one thing: the later layer
/// takes both away from the earlier ones, and naming both in one place is a fault. Whether any names it.
fn settle(layers: &mut [Layer], faults: &mut Vec<Fault>, table: &str, keys: [&'static str; 2]) -> bool {
    // All variables are one place: they have no order.
    let mut winner: Option<(bool, &str)> = None;
    for layer in layers.iter_mut().rev() {
        let variable = matches!(layer.from, From::Variable { .. });
        let place = |key: &str, layer: &Layer| layer.place(&owned(&[table, key]), Source::value);
        let Some(found) = layer.table(table) else { continue };
        let named: Vec<&str> = keys.into_iter().filter(|key| found.contains_key(*key)).collect();
        let both = match (winner, named.first()) {
            (Some((true, other)), Some(key)) if variable => *key != other,
            _ => named.len() > 1,
        };
        if winner.is_some_and(|(by_variable, _)| !(by_variable && variable)) {
            found.retain(|key, _| !keys.contains(&key.as_str()));
        } else if let Some(key) = named.first() {
            winner = Some((variable, key));
            if both {
                let value = format!("{table}.{} and {table}.{}", keys[0], keys[1]);
                faults.push(Fault::new(place(key, layer), value, "both are given", "keep one of the two"));
            }
        }
    }
    winner.is_some()
}

/// Keys that hold a list where a table belongs. serde takes a list for a struct, field by field.
fn lists_for_tables(config: &Value) -> Vec<Vec<String>> {
    let lists = |key: &[&str]| -> Vec<Vec<String>> {
        let table = find(config, &owned(key)).and_then(Value::as_dict);
        let lists = table.into_iter().flatten().filter(|(_, value)| value.as_array().is_some());
        lists.map(|(name, _)| [&owned(key), [name.clone()].as_slice()].concat()).collect()
    };
    let mut found = lists(&[]);
    found.retain(|key| key[0] != "projection_dirs");
    found.extend(lists(&["projections"]));
    found
}

fn owned(key: &[&str]) -> Vec<String> {
    key.iter().copied().map(str::to_owned).collect()
}

fn find<'v>(value: &'v Value, key: &[String]) -> Option<&'v Value> {
    key.iter().try_fold(value, |value, key| match value {
        Value::Dict(_, dict) => dict.get(key),
        Value::Array(_, items) => items.get(key.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// Puts `new` at `key`, or takes away what is there; a bad element takes its whole list along.
/// False when nothing is there.
fn replace(value: &mut Value, key: &[String], new: Option<Value>) -> bool {
    let (Some((first, rest)), Value::Dict(_, dict)) = (key.split_first(), value) else {
        return false;
    };
    match dict.get_mut(first) {
        Some(inner @ Value::Dict(..)) if !rest.is_empty() => replace(inner, rest, new),
        Some(inner) => {
            match new {
                Some(new) => *inner = new,
                None => drop(dict.remove(first)),
            }
            true
        }
        None => false,
    }
}
