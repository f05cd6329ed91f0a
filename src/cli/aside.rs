//! What `verify` and `build` share: finding the projection, the bar, the interrupt.

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{Failure, catalog, check, connect};
use crate::config::Loaded;
use crate::engine::scratch::{ScratchError, room};
use crate::projection::Projection;
use crate::projection::handler::Registry;
use crate::store::Link;

/// What the configuration says of a projection; `None` when it does not know it, which the database may.
pub(super) fn configured(
    loaded: &Loaded,
    registry: &Registry,
    name: &str,
) -> Result<Option<Projection>, Failure> {
    Ok(catalog::projections(loaded, registry)?.into_iter().find(|projection| projection.name == name))
}

/// An error of a copy, as the command line reports it.
pub(super) fn failure(error: &ScratchError, name: &str) -> Failure {
    Failure::Failed(check::text(&error.trouble(), name))
}

/// Lets an interrupt end what is under way.
async fn interruptible<T>(
    work: impl Future<Output = Result<T, ScratchError>>,
    name: &str,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done.map_err(|error| failure(&error, name)),
        _ = tokio::signal::ctrl_c() => Err(Failure::Failed("interrupted; nothing is left behind".to_owned())),
    }
}

/// Folds in a schema that is cleared away afterwards, whatever came of it, and with it those of processes that were killed.
pub(super) async fn in_a_room<T>(
    loaded: &Loaded,
    name: &str,
    work: impl AsyncFnOnce(&mut Link<'static>, &str) -> Result<T, ScratchError>,
) -> Result<T, Failure> {
    let refused = |error: ScratchError| failure(&error, name);
    let mut conn = connect(loaded).await?;
    room::clear(&mut conn).await.map_err(refused)?;
    let mut keeper = connect(loaded).await?;
    let mut held = keeper.begin().await?;
    let schema = room::claim(&mut held).await.map_err(refused)?;
    let done = interruptible(work(&mut conn, &schema), name).await;
    // What was interrupted may still be under way there: the server ends it when the connection closes.
    drop(conn);
    held.rollback().await?;
    let mut conn = connect(loaded).await?;
    let cleared = room::clear(&mut conn).await.map_err(refused);
    let done = done?;
    cleared.map(|()| done)
}

/// A bar over events, with their rate and what remains.
pub(super) struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let template = "{bar:30} {percent:>3} %  {human_pos} of {human_len} events  {per_sec}  {eta} left";
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, started: Instant::now() }
    }

    pub(super) fn total(&self, events: i64) {
        self.bar.set_length(events.max(0).cast_unsigned());
    }

    pub(super) fn passed(&self, events: i64) {
        self.bar.inc(events.max(0).cast_unsigned());
    }

    /// Removes the bar; returns the seconds since it began.
    pub(super) fn end(&self) -> f64 {
        self.bar.finish_and_clear();
        self.started.elapsed().as_secs_f64()
    }
}
