//! What is said about bad lines: the first ones to standard error, all of them into the report.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::lines::BadLine;
use crate::cli::Failure;

/// More than this scrolls away what matters.
const SHOWN: u64 = 20;

/// The bad lines of one import.
pub(super) struct Complaints {
    report: Option<(PathBuf, BufWriter<File>)>,
    count: u64,
}

impl Complaints {
    /// Opens the report, where one is wanted.
    pub(super) fn open(report: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let file = File::create(path).map_err(|error| {
                Failure::Usage(format!("--report {}: cannot be written: {error}", path.display()))
            })?;
            Ok::<_, Failure>((path.to_path_buf(), BufWriter::new(file)))
        };
        Ok(Self { report: report.map(open).transpose()?, count: 0 })
    }

    /// How many lines were skipped.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes the bad lines of one block. The first that may not be skipped is the error.
    pub(super) fn about(&mut self, mut bad: Vec<BadLine>, skip: bool) -> Result<(), String> {
        bad.sort_by_key(|bad| bad.line);
        for bad in bad {
            if !skip || bad.ends {
                return Err(bad.to_string());
            }
            self.count += 1;
            match self.count {
                ..=SHOWN => eprintln!("{bad}"),
                _ if self.count == SHOWN + 1 => eprintln!("… and more bad lines, which are counted"),
                _ => {}
            }
            if let Some((_, report)) = &mut self.report {
                let written = serde_json::to_writer(&mut *report, &bad).map_err(std::io::Error::from);
                written.and_then(|()| report.write_all(b"\n")).map_err(|error| self.unwritten(&error))?;
            }
        }
        // With each block, so that a killed import has said what it saw.
        self.flush()
    }

    /// Ends the report.
    pub(super) fn close(&mut self, outcome: &mut Result<(), String>) {
        let flushed = self.flush();
        if outcome.is_ok() {
            *outcome = flushed;
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        match &mut self.report {
            None => Ok(()),
            Some((_, report)) => report.flush().map_err(|error| self.unwritten(&error)),
        }
    }

    fn unwritten(&self, error: &std::io::Error) -> String {
        let path = self.report.as_ref().map(|(path, _)| path.display().to_string()).unwrap_or_default();
        format!("the report {path} cannot be written any further: {error}")
    }
}
