//! The workers: each owns one connection and lends it to whoever's turn it is.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::roster::Roster;
use crate::backoff::Backoff;
use crate::engine::backlog::View;
use crate::metrics::ConnectionRole;
use crate::mutants::planted;
use crate::store::Link;

/// Works until cancelled. A batch in hand is finished first: cancelling is only looked at between turns.
pub(crate) async fn work(
    daemon: Arc<Daemon>,
    roster: Arc<Roster>,
    mut views: watch::Receiver<Option<Arc<View>>>,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::default();
    // Nobody has a turn before the first look at the log.
    if cancel.run_until_cancelled(views.wait_for(Option::is_some)).await.is_none() {
        return;
    }
    loop {
        let connecting = daemon.connector.connect("worker", daemon.limits());
        let wait = match cancel.run_until_cancelled(connecting).await {
            None => return,
            Some(Ok(conn)) => {
                daemon.opened(ConnectionRole::Worker);
                let ended = session(&daemon, &roster, &views, &cancel, conn, &mut backoff).await;
                daemon.closed(ConnectionRole::Worker);
                if ended == Ended::Cancelled {
                    return;
                }
                backoff.next()
            }
            Some(Err(error)) => {
                tracing::warn!("a worker cannot connect: {}", crate::error::chain(&error));
                backoff.next()
            }
        };
        if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Cancelled,
    Spoilt,
}

/// Turns on one connection, until it is spoilt. A spoilt one is dropped, never reused: what it still does is unknown.
async fn session(
    daemon: &Daemon,
    roster: &Roster,
    views: &watch::Receiver<Option<Arc<View>>>,
    cancel: &CancellationToken,
    mut conn: Link<'static>,
    backoff: &mut Backoff,
) -> Ended {
    loop {
        let Some((index, mut subscription)) = cancel.run_until_cancelled(roster.next()).await else {
            conn.close().await;
            return Ended::Cancelled;
        };
        let Some(view) = views.borrow().clone() else { return Ended::Spoilt };
        let turn = subscription.turn(&mut conn, &view, &daemon.terms, daemon.trusted_until()).await;
        roster.give_back(index, subscription, turn.next);
        if turn.spoilt && !planted("connection-reused-after-cancel") {
            return Ended::Spoilt;
        }
        backoff.reset();
    }
}
