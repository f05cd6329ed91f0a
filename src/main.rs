//! The stock `foldd` binary. A binary with Rust handlers looks the same, with a registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    foldd::main()
}
