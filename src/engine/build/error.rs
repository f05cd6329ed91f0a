//! Why a projection cannot be built, and what to do about it.

use crate::ledger::phases::Trouble;
use crate::ledger::projections::Known;

/// Why a projection cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// A statement does not fit the database.
    #[error("{place}: {message}")]
    Statement { place: String, message: String, remedy: String, sqlstate: Option<String> },
    /// There is a schema of the projection's name that foldd did not make.
    #[error("schema {0} exists already and is not foldd's")]
    SchemaTaken(String),
    /// A stored definition is not readable by this program.
    #[error("the stored definition of {0} is not readable by this foldd")]
    UnreadableDefinition(String, #[source] serde_json::Error),
    /// The streams of a split projection would go to other partitions than before.
    #[error("{0} was split into partitions on a server that hashes stream ids otherwise")]
    OtherHash(String),
    /// An operator gave up its first build.
    #[error("the build of {0} was given up by an operator, and there is no other version")]
    GivenUp(String),
    /// The handler is Rust, and this program has none of that name.
    #[error("{0} has a Rust handler, and this program does not have it")]
    NoHandler(String),
    /// The database refused or could not be reached.
    #[error("the database reported an error")]
    Database(#[from] sqlx::Error),
}

impl BuildError {
    /// Whether it may work later, though nobody changes the definition.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Database(error) if crate::error::is_transient(error))
    }

    /// What happened and what to do, for a person.
    pub(crate) fn trouble(&self) -> Trouble {
        let (remedy, sqlstate, place) = match self {
            Self::Statement { place, remedy, sqlstate, .. } => {
                (remedy.clone(), sqlstate.clone(), Some(place.clone()))
            }
            Self::SchemaTaken(name) => (
                format!("rename the projection's file, or drop or rename schema {name} if nobody needs it"),
                None,
                None,
            ),
            Self::UnreadableDefinition(..) => {
                ("run the foldd version that wrote it, or a newer one".to_owned(), None, None)
            }
            Self::OtherHash(_) => (
                "its partitions stand at different places that mean nothing here: build it anew, or go back to a server of \
                 that version"
                    .to_owned(),
                None,
                None,
            ),
            Self::GivenUp(id) => (format!("raise `version`, or wish it again: `foldd rebuild {id}`"), None, None),
            Self::NoHandler(_) => ("run the binary that registers the handler".to_owned(), None, None),
            Self::Database(error) => {
                let unknown = "see whether PostgreSQL is up and what this role may do";
                let sqlstate = error.as_database_error().and_then(|error| error.code()).map(Into::into);
                (crate::error::remedy(error).unwrap_or(unknown).to_owned(), sqlstate, None)
            }
        };
        let message = match self {
            Self::Statement { message, .. } => message.clone(),
            Self::SchemaTaken(_)
            | Self::UnreadableDefinition(..)
            | Self::OtherHash(_)
            | Self::GivenUp(_)
            | Self::NoHandler(_)
            | Self::Database(_) => crate::error::chain(self),
        };
        Trouble { message, remedy, sqlstate, place, event: None }
    }
}

/// An error of dropping what is to be replaced: of something that hangs on its tables, it says so.
pub(super) fn in_the_way(error: sqlx::Error, half_built: &Known) -> BuildError {
    let dependent = error
        .as_database_error()
        .filter(|database| database.code().as_deref() == Some("2BP01"))
        .map(|database| database.message().to_owned());
    match dependent {
        Some(message) => BuildError::Statement {
            place: format!("schema {}", half_built.schema_name),
            message: format!("the half-built tables cannot be replaced: {message}"),
            remedy: "drop what depends on them, and create it again once the projection is live".to_owned(),
            sqlstate: None,
        },
        None => BuildError::Database(error),
    }
}
