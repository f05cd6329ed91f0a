//! What a configured version means beside the versions that there are: a pure function.
//!
//! The higher version wins, wherever it comes from: while a new configuration is rolled out, pods with the old one keep
//! their hands off what the new ones began, whenever they start. What an operator took back stays taken back.

use super::BuildError;
use crate::ledger::phases::Trouble;
use crate::ledger::projections::Known;
use crate::projection::Projection;
use crate::projection::definition::Definition;

/// What is to be done about the configured version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'k> {
    /// Nothing: what there is, is run.
    Nothing,
    /// There is none yet: build the first one.
    First,
    /// Discard what was never live and build the configured one in its place.
    Instead(&'k Known),
    /// Build it beside the live one.
    Beside(&'k Known),
    /// Discard what is being built beside the live one, and build the configured one there.
    BesideInstead { live: &'k Known, discarded: &'k Known },
}

/// What is to be done, and what a person must know.
#[derive(Debug)]
pub(super) struct Decision<'k> {
    pub(super) step: Step<'k>,
    /// Why what runs is not what the configuration asks for.
    pub(super) notice: Option<Trouble>,
}

impl Decision<'_> {
    fn quiet(step: Step<'_>) -> Decision<'_> {
        Decision { step, notice: None }
    }

    fn hands_off(notice: Trouble) -> Decision<'static> {
        Decision { step: Step::Nothing, notice: Some(notice) }
    }
}

/// Reads a stored definition.
pub(super) fn stored(known: &Known) -> Result<Definition, BuildError> {
    serde_json::from_str(known.definition.get())
        .map_err(|source| BuildError::UnreadableDefinition(known.projection_id.clone(), source))
}

/// Decides; `known` are all versions of the name, in rising order.
pub(super) fn decide<'k>(wanted: &Projection, known: &'k [Known]) -> Result<Decision<'k>, BuildError> {
    let live = known.iter().find(|known| known.role == "live");
    let building = known.iter().rev().find(|known| known.role == "building");
    let Some(live) = live else {
        let given_up =
            |known: &&Known| known.version == wanted.version && known.withdrawn && !known.to_rebuild;
        return match (building, known.iter().find(given_up)) {
            (Some(building), _) => unfinished(wanted, building, Step::Instead(building)),
            (None, Some(given_up)) => Err(BuildError::GivenUp(given_up.projection_id.clone())),
            (None, None) => Ok(Decision::quiet(Step::First)),
        };
    };
    if wanted.version < live.version {
        return Ok(Decision::hands_off(lower(wanted, known, live)));
    }
    if wanted.version == live.version {
        let applied = stored(live)?;
        let same = applied.same_as(&wanted.definition);
        return Ok(if same {
            Decision::quiet(Step::Nothing)
        } else {
            Decision::hands_off(changed(wanted, live, &applied))
        });
    }
    match building {
        Some(building) => unfinished(wanted, building, Step::BesideInstead { live, discarded: building }),
        None => match known.iter().find(|known| known.version == wanted.version && known.withdrawn) {
            Some(withdrawn) => Ok(Decision::hands_off(taken_back(wanted, withdrawn, live))),
            None => Ok(Decision::quiet(Step::Beside(live))),
        },
    }
}

/// Beside a version that is being built: the same goes on, a higher one replaces it, and of two definitions of one version
/// the one that somebody is folding stays.
fn unfinished<'k>(
    wanted: &Projection,
    building: &'k Known,
    replace: Step<'k>,
) -> Result<Decision<'k>, BuildError> {
    if wanted.version > building.version {
        return Ok(Decision::quiet(replace));
    }
    let begun = stored(building)?;
    if wanted.version == building.version && begun.same_as(&wanted.definition) {
        return Ok(Decision::quiet(Step::Nothing));
    }
    if wanted.version < building.version {
        let message = format!(
            "version {} is configured, and version {} is being built",
            wanted.version, building.version
        );
        let remedy = format!(
            "raise the version in the configuration, or give the build up: `foldd cancel {}`",
            wanted.name
        );
        return Ok(Decision::hands_off(trouble(wanted, message, remedy)));
    }
    if !building.held_elsewhere {
        return Ok(Decision::quiet(replace));
    }
    let message = format!(
        "another running replica builds version {} from another definition; that one stays in force\n{}",
        building.version,
        begun.diff(&wanted.definition)
    );
    let remedy = format!(
        "raise `version`, or give the build up with `foldd cancel {}` and raise `version` or rebuild",
        wanted.name
    );
    Ok(Decision::hands_off(trouble(wanted, message, remedy)))
}

fn changed(wanted: &Projection, live: &Known, applied: &Definition) -> Trouble {
    let message = format!(
        "the definition of version {} changed; the one applied stays in force\n{}",
        live.version,
        applied.diff(&wanted.definition)
    );
    trouble(wanted, message, "raise `version`, or take the change back".to_owned())
}

fn lower(wanted: &Projection, known: &[Known], live: &Known) -> Trouble {
    let message =
        format!("version {} is configured, but version {} is live already", wanted.version, live.version);
    let kept = known.iter().any(|known| known.role == "previous" && known.version == wanted.version);
    let remedy = if kept {
        format!(
            "versions only rise: `foldd rollback {}` makes version {} live again",
            wanted.name, wanted.version
        )
    } else {
        "versions only rise: write the live version, or the old definition under a higher one".to_owned()
    };
    trouble(wanted, message, remedy)
}

fn taken_back(wanted: &Projection, withdrawn: &Known, live: &Known) -> Trouble {
    let message = format!(
        "version {} is configured, and an operator took it back; version {} stays live",
        withdrawn.version, live.version
    );
    let remedy =
        format!("raise `version` to try again; `foldd log {}` says who took it back and why", wanted.name);
    trouble(wanted, message, remedy)
}

fn trouble(wanted: &Projection, message: String, remedy: String) -> Trouble {
    Trouble { message, remedy, sqlstate: None, place: Some(wanted.definition.path.clone()), event: None }
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::{Step, decide};
    use crate::ledger::projections::Known;
    use crate::projection::Projection;
    use crate::projection::file::ProjectionFile;
    use crate::projection::settings::Settings;

    fn projection(version: i32, column: &str) -> Projection {
        let text = format!(
            "/* foldd\nversion = {version}\ncategories = [\"fine\"]\n*/\n-- @tables\ncreate table fine ({column} text);\n\
             -- @on Fined\ninsert into fine values (event.stream_id);\n"
        );
        let file = ProjectionFile::parse("fines", "fines.sql", &text).expect("it is right");
        Projection::of_file(&file, &Settings::default()).expect("it is complete")
    }

    fn known(version: i32, role: &str) -> Known {
        let definition = to_raw_value(&projection(version, "id").definition).expect("it is JSON");
        Known {
            version,
            generation: 1,
            projection_id: format!("fines@{version}"),
            role: role.to_owned(),
            schema_name: "fines".to_owned(),
            schema_oid: 1,
            definition,
            is_built: role != "building",
            withdrawn: false,
            to_rebuild: false,
            held_elsewhere: false,
        }
    }

    /// What is done, in a word, and whether somebody is told something.
    fn decided(wanted: &Projection, known: &[Known]) -> (&'static str, bool) {
        let decision = decide(wanted, known).expect("definitions are readable");
        let step = match decision.step {
            Step::Nothing => "nothing",
            Step::First => "first",
            Step::Instead(_) => "instead",
            Step::Beside(_) => "beside",
            Step::BesideInstead { .. } => "beside, instead",
        };
        (step, decision.notice.is_some())
    }

    #[test]
    fn a_higher_version_is_built_and_a_lower_one_keeps_its_hands_off() {
        assert_eq!(decided(&projection(1, "id"), &[]), ("first", false));
        let live = [known(2, "live")];
        assert_eq!(decided(&projection(2, "id"), &live), ("nothing", false));
        assert_eq!(decided(&projection(3, "id"), &live), ("beside", false));
        assert_eq!(decided(&projection(1, "id"), &live), ("nothing", true));
        assert_eq!(decided(&projection(2, "changed"), &live), ("nothing", true));
    }

    #[test]
    fn what_is_being_built_goes_on_unless_it_is_overtaken() {
        let rolled = [known(1, "live"), known(2, "building")];
        assert_eq!(decided(&projection(1, "id"), &rolled), ("nothing", false), "an old pod of the roll");
        assert_eq!(decided(&projection(2, "id"), &rolled), ("nothing", false));
        assert_eq!(decided(&projection(3, "id"), &rolled), ("beside, instead", false));
        assert_eq!(decided(&projection(1, "id"), &[known(2, "building")]), ("nothing", true));
        assert_eq!(decided(&projection(3, "id"), &[known(2, "building")]), ("instead", false));
    }

    #[test]
    fn of_two_definitions_of_one_version_the_one_that_somebody_folds_stays() {
        let mut building = known(2, "building");
        for live in [None, Some(known(1, "live"))] {
            for held in [false, true] {
                building.held_elsewhere = held;
                let versions: Vec<Known> = live.iter().chain([&building]).map(copy).collect();
                let (step, told) = decided(&projection(2, "changed"), &versions);
                assert_eq!((step == "nothing", told), (held, held), "{versions:?}");
            }
        }
    }

    #[test]
    fn what_was_taken_back_is_not_built_again_unasked() {
        for role in ["previous", "retired"] {
            let mut back = known(2, role);
            back.withdrawn = true;
            let versions = [known(1, "live"), back];
            assert_eq!(decided(&projection(2, "id"), &versions), ("nothing", true));
            assert_eq!(decided(&projection(3, "id"), &versions), ("beside", false));
        }
        assert_eq!(
            decided(&projection(2, "id"), &[known(1, "retired"), known(2, "live")]),
            ("nothing", false)
        );
    }

    #[test]
    fn a_first_build_that_was_given_up_is_not_begun_again_unless_somebody_wishes_it() {
        let mut given_up = known(1, "retired");
        given_up.withdrawn = true;
        let refused =
            decide(&projection(1, "id"), std::slice::from_ref(&given_up)).expect_err("it was given up");
        assert!(refused.to_string().contains("fines@1"), "{refused}");
        assert_eq!(decided(&projection(2, "id"), std::slice::from_ref(&given_up)), ("first", false));
        given_up.to_rebuild = true;
        assert_eq!(decided(&projection(1, "id"), &[given_up]), ("first", false));
    }

    fn copy(of: &Known) -> Known {
        let mut copy = known(of.version, &of.role);
        copy.held_elsewhere = of.held_elsewhere;
        copy
    }
}
