//! What is understood, and what is wrong use.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{Cli, DeadLetters, Until, Verb};
use crate::stream::ExpectedVersion;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["foldd"], line].concat())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_shows_how_it_is_used() {
    let cli = Cli::command();
    let verbs = cli.get_subcommands().flat_map(|verb| match verb.has_subcommands() {
        true => verb.get_subcommands().collect::<Vec<_>>(),
        false => vec![verb],
    });
    for verb in verbs {
        assert!(verb.get_about().is_some(), "{}", verb.get_name());
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{}", verb.get_name());
        // What is no table: a daemon, a demo, lines of JSON, a schema, a script.
        let own = ["run", "demo", "export", "schema", "completions"].contains(&verb.get_name());
        assert!(
            own || verb.get_arguments().any(|argument| argument.get_id() == "json"),
            "{}",
            verb.get_name()
        );
    }
}

#[test]
fn configuration_may_be_named_before_and_after_the_verb() {
    for line in [["--config", "a", "run"], ["run", "--config", "a"]] {
        assert_eq!(parse(&line).expect("good").config, [std::path::PathBuf::from("a")]);
    }
    assert_eq!(parse(&["--config", "a", "--config", "b", "run"]).expect("good").config.len(), 2);
}

#[test]
fn a_wait_is_for_exactly_one_thing() {
    let until = |line: &[&str]| {
        let Verb::Wait(wait) = parse(line).expect("good").verb else { panic!("another verb") };
        wait.until()
    };
    assert_eq!(until(&["wait", "fines", "--position", "7"]), Until::Position(7));
    assert_eq!(until(&["wait", "fines", "--cursor", "3:7"]), Until::Cursor((3, 7).into()));
    assert_eq!(until(&["wait", "fines", "--caught-up"]), Until::CaughtUp);
}

#[test]
fn dead_letters_are_selected_in_one_way_by_many_positions() {
    let line = ["dead-letters", "retry", "fines@2", "7", "8", "--why", "mended"];
    let Verb::DeadLetters(DeadLetters::Retry(retry)) = parse(&line).expect("good").verb else {
        panic!("another verb")
    };
    assert_eq!((retry.name.as_str(), retry.chosen.positions), ("fines@2", vec![7, 8]));
    assert!(!retry.chosen.all && retry.deed.if_revision.is_none());
}

#[test]
fn an_append_keeps_its_data_as_typed() {
    let line = ["append", "account-1", "Opened", "{\"n\": 1e400}", "--expected", "new"];
    let Verb::Append(append) = parse(&line).expect("good").verb else { panic!("another verb") };
    assert_eq!(append.data.get(), "{\"n\": 1e400}");
    assert_eq!(append.expected, ExpectedVersion::NoStream);
}

#[test]
fn wrong_use_says_what_is_wrong_and_exits_with_two() {
    let cases: [(&[&str], ErrorKind, &str); 18] = [
        (&["fly"], ErrorKind::InvalidSubcommand, "fly"),
        (&["run", "--data-dir", "x"], ErrorKind::MissingRequiredArgument, "--embedded"),
        (&["demo", "--for", "30"], ErrorKind::ValueValidation, "time unit needed"),
        (&["demo", "--for", "99999999999999999999s"], ErrorKind::ValueValidation, "--for"),
        (&["demo", "--for", "500years"], ErrorKind::ValueValidation, "longer than a year"),
        (&["demo", "--listen", "localhost"], ErrorKind::ValueValidation, "socket address"),
        (&["append", "a-1", "T", "{oops"], ErrorKind::ValueValidation, "not JSON"),
        (&["append", "a-1", "T", "{}", "--metadata", "[]"], ErrorKind::ValueValidation, "JSON object"),
        (&["append", "a-1", "T", "{}", "--expected", "0"], ErrorKind::ValueValidation, "new or any"),
        (&["append", "", "T", "{}"], ErrorKind::InvalidValue, "STREAM"),
        (&["wait", "fines"], ErrorKind::MissingRequiredArgument, "--caught-up"),
        (&["wait", "fines", "--caught-up", "--position", "1"], ErrorKind::ArgumentConflict, "--position"),
        (&["wait", "fines", "--cursor", "7"], ErrorKind::ValueValidation, "transaction_id:position"),
        (&["status", "--json", "--watch"], ErrorKind::ArgumentConflict, "--watch"),
        (&["pause", "fines", "--if-revision", "last"], ErrorKind::ValueValidation, "--if-revision"),
        (&["dead-letters", "retry", "fines"], ErrorKind::MissingRequiredArgument, "--all"),
        (&["dead-letters", "discard", "fines", "7", "--all"], ErrorKind::ArgumentConflict, "--all"),
        (&["log", "--limit", "0"], ErrorKind::ValueValidation, "--limit"),
    ];
    for (line, kind, told) in cases {
        let error = parse(line).expect_err("wrong use");
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line:?}: {error}");
        assert!(error.to_string().contains(told), "{line:?}: {error}");
    }
}
