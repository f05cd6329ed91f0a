//! The seam: what users write, and what it becomes.
//!
//! **Promise.** A projection file is one readable text. Whatever is wrong with it is said with file, line and remedy,
//! before anything is built. What runs in the database is exactly what stands in the file.
//!
//! **How.** `lexer` cuts SQL into tokens, so that markers and semicolons inside strings stay what they are; `file` reads
//! front matter, markers, statements and tests; `settings` are the keys that a configuration may override;
//! `handler` is the same in Rust; `definition` is the identity of a version, stored in the database; `sql`
//! compiles a definition into one PL/pgSQL function, which reads a page, applies it and moves the checkpoint
//! in one round trip.
//!
//! **What it never does.** It opens no connection and no file; event data never becomes SQL text.

pub(crate) mod definition;
pub(crate) mod file;
pub(crate) mod handler;
pub(crate) mod lexer;
pub(crate) mod settings;
pub(crate) mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use definition::Definition;
use file::{ProjectionFile, TestCase, faults_of_tables, validate_name};
use handler::{ErasedHandler, RustProjection};
use settings::{MissingSetting, Settings};

/// A projection as the configuration asks for it: a file or a Rust handler, and what overrides its settings.
#[derive(Clone)]
pub(crate) struct Projection {
    /// Its name, which is also its schema's.
    pub name: String,
    /// The version that is asked for.
    pub version: i32,
    /// The effective settings.
    pub settings: Settings,
    /// What the version is.
    pub definition: Definition,
    /// The `@test`s of its file.
    pub(crate) tests: Vec<TestCase>,
    /// Who applies the events, when it is not SQL: by version, since an older one goes on while a newer one is built.
    pub(crate) handlers: BTreeMap<i32, Arc<dyn ErasedHandler>>,
}

impl Projection {
    /// Joins a file with the settings that override its front matter.
    ///
    /// # Errors
    /// When neither says which version it is, or which categories it reads.
    pub(crate) fn of_file(file: &ProjectionFile, overrides: &Settings) -> Result<Self, MissingSetting> {
        let settings = file.settings.overridden_by(overrides);
        let version = settings.required_version(&file.name)?;
        Ok(Self {
            name: file.name.clone(),
            version: i32::try_from(version).unwrap_or(i32::MAX),
            definition: Definition::of_file(file, &settings)?,
            settings,
            tests: file.tests.clone(),
            handlers: BTreeMap::new(),
        })
    }

    /// Joins a registered Rust handler with the settings, and the tables, that override what the code says.
    ///
    /// # Errors
    /// With everything that is wrong with its name, its categories and its tables, one line each.
    pub(crate) fn of_rust(
        rust: &RustProjection,
        overrides: &Settings,
        tables: Option<&str>,
    ) -> Result<Self, Vec<String>> {
        let name = &rust.name;
        validate_name(name).map_err(|error| vec![error.to_string()])?;
        let declared = Settings {
            version: Some(rust.version),
            categories: rust.categories.clone(),
            all: rust.all.then_some(true),
            on_error: rust.on_error,
            ..Settings::default()
        };
        let settings = declared.overridden_by(overrides);
        let mut faults: Vec<String> =
            settings.faults().iter().map(|fault| format!("projection {name}: {fault}")).collect();
        // Lines of messages count in the text that they are about.
        let path =
            if tables.is_some() { format!("projections.{name}.tables") } else { format!("{name}.tables") };
        let tables = tables.or(rust.tables.as_deref());
        faults.extend(
            tables.into_iter().flat_map(|sql| faults_of_tables(&path, sql)).map(|fault| fault.to_string()),
        );
        let definition = Definition::of_rust(name, &path, &settings, tables);
        match (settings.required_version(name), definition) {
            (Ok(version), Ok(definition)) if faults.is_empty() => {
                let version = i32::try_from(version).unwrap_or(i32::MAX);
                let handlers = BTreeMap::from([(version, Arc::clone(&rust.handler))]);
                Ok(Self { name: name.clone(), version, definition, settings, tests: Vec::new(), handlers })
            }
            (version, definition) => {
                faults.extend(version.err().iter().map(ToString::to_string));
                faults.extend(definition.err().iter().map(ToString::to_string));
                Err(faults)
            }
        }
    }
}

impl Projection {
    /// Adds handlers of other versions, which go on while this one is built and as long as they are kept.
    #[must_use]
    pub(crate) fn beside<'r>(mut self, others: impl Iterator<Item = &'r RustProjection>) -> Self {
        for other in others {
            let version = i32::try_from(other.version).unwrap_or(i32::MAX);
            self.handlers.entry(version).or_insert_with(|| Arc::clone(&other.handler));
        }
        self
    }
}

impl fmt::Debug for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({})", self.name, self.version, self.definition.summary())
    }
}
