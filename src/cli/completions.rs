//! `foldd completions`: what a shell needs to complete our verbs and options.

use clap::CommandFactory;

use super::args::{Cli, Completions};
use super::{Failure, print};

/// Carries the verb out.
pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "foldd", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| Failure::Failed(format!("the script is no text: {error}")))?;
    print(script.trim_end())
}
