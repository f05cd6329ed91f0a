//! Where an export goes: standard output, or a file that appears when it is complete. Blocking.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;

use crate::cli::Failure;

/// What the reader hands over.
pub(super) enum Part {
    /// Whole lines.
    Lines(Vec<u8>),
    /// That was all. Without it, what came is incomplete.
    End,
}

/// An open target.
pub(super) enum Target {
    /// Standard output, or what is there and no ordinary file, such as a named pipe.
    Stream(Box<dyn Write + Send>),
    /// A file in the making.
    File(Making),
}

/// A file under a passing name beside its place. Dropped, it is removed.
pub(super) struct Making {
    sink: Option<Sink>,
    part: PathBuf,
    place: PathBuf,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Target {
    /// Opens a file, or standard output for `-`, before anything is read.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Stream(Box::new(io::stdout())));
        }
        let unusable = |why: String| Failure::Usage(format!("{}: cannot be written: {why}", path.display()));
        // A link stays a link to the new file.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        match fs::metadata(&place) {
            Ok(found) if found.is_dir() => {
                return Err(unusable("it is a folder; name a file in it".to_owned()));
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&place);
                let file = file.map_err(|error| unusable(error.to_string()))?;
                return Ok(Self::Stream(Box::new(file)));
            }
            Ok(_) | Err(_) => {}
        }
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let part = place.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let file = File::create(&part).map_err(|error| unusable(error.to_string()))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let sink = if name.ends_with(".gz") {
            Sink::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Sink::Plain(file)
        };
        Ok(Self::File(Making { sink: Some(sink), part, place }))
    }

    /// Writes what comes. A file takes its place when the end was among it.
    pub(super) fn write_all(mut self, mut parts: mpsc::Receiver<Part>) -> io::Result<()> {
        while let Some(part) = parts.blocking_recv() {
            match (part, &mut self) {
                (Part::Lines(lines), Self::Stream(out)) => out.write_all(&lines)?,
                (Part::Lines(lines), Self::File(making)) => match &mut making.sink {
                    Some(Sink::Plain(file)) => file.write_all(&lines)?,
                    Some(Sink::Gzip(gzip)) => gzip.write_all(&lines)?,
                    None => {}
                },
                (Part::End, Self::Stream(out)) => return out.flush(),
                (Part::End, Self::File(making)) => return making.finish(),
            }
        }
        Ok(())
    }
}

impl Making {
    fn finish(&mut self) -> io::Result<()> {
        let file = match self.sink.take() {
            None => return Ok(()),
            Some(Sink::Plain(file)) => file,
            Some(Sink::Gzip(gzip)) => gzip.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&self.part, &self.place)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Gone already when the file took its place.
        let _ = fs::remove_file(&self.part);
    }
}
