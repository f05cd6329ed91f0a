//! Whether the process can do its work. Lag is no part of it: a replica that is behind is needed most.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// One thing that must be in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Check {
    /// Nobody has looked yet.
    #[default]
    Pending,
    /// It is in order.
    Passed,
    /// It is not. Both texts are for everybody who can reach the port: no URL, no user, no payload.
    Failed {
        /// What is wrong.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Check {
    /// What is wrong and what to do, or `None` if it is in order.
    pub(super) fn trouble(&self) -> Option<(&str, &str)> {
        match self {
            Self::Passed => None,
            Self::Pending => Some(("not checked yet", "wait a moment: the process is starting")),
            Self::Failed { reason, remedy } => Some((reason, remedy)),
        }
    }
}

/// What `/readyz` tells. Begins with everything pending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    /// The configuration and the projection files.
    pub(crate) configuration: Check,
    /// The schema is the one this version needs.
    pub(crate) migrations: Check,
    /// The database answers.
    pub(crate) database: Check,
    /// The process is about to end.
    pub(crate) draining: bool,
}

impl Readiness {
    /// What is out of order, by name.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        self.checks()
            .into_iter()
            .filter_map(|(name, trouble)| trouble.map(|(reason, remedy)| (name, reason, remedy)))
    }

    fn checks(&self) -> [(&'static str, Option<(&str, &str)>); 4] {
        let draining = ("the process is about to end", "use another replica, or wait for the next start");
        [
            ("configuration", self.configuration.trouble()),
            ("migrations", self.migrations.trouble()),
            ("database", self.database.trouble()),
            ("draining", self.draining.then_some(draining)),
        ]
    }
}

/// `{"configuration":{"ok":true},…,"database":{"ok":false,"reason":…,"remedy":…},"draining":{"ok":true}}`
impl Serialize for Readiness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct One<'a> {
            ok: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            remedy: Option<&'a str>,
        }
        let checks = self.checks();
        let mut map = serializer.serialize_map(Some(checks.len()))?;
        for (name, trouble) in checks {
            let (reason, remedy) = trouble.unzip();
            map.serialize_entry(name, &One { ok: trouble.is_none(), reason, remedy })?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Readiness};

    #[test]
    fn a_process_is_ready_when_all_checks_pass_and_it_stays() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.troubles().count(), 3);
        readiness.configuration = Check::Passed;
        readiness.migrations = Check::Passed;
        readiness.database = Check::Passed;
        assert_eq!(readiness.troubles().count(), 0);
        readiness.draining = true;
        let names: Vec<_> = readiness.troubles().map(|(name, ..)| name).collect();
        assert_eq!(names, ["draining"]);
    }
}
