//! When processes die of an event: finding it, and not dying of it for ever.
//!
//! A handler in Rust that aborts the process, or exhausts its memory, leaves nothing behind, not even an error. But its
//! lease runs out in a living server, and whoever takes it counts an unclean takeover; a checkpoint that moves sets the
//! count back. After a few in a row, none of these holders got through its first page. From then on each event is tried
//! in a page of one, with no other batch of this process under way, and is noted before the try, in a transaction of its
//! own. Should the process die now, the next holder finds the note. A process may fall silent for other reasons, a cut
//! network or a dying machine; so only an event at which several holders in a row fell silent is blamed, and parked or
//! halted on as the policy says, and a holder that turns out to be alive takes its part of the blame back. A note of a process that ended in good order, or of a server that restarted, blames
//! nobody. Handlers in SQL run in the server and cannot kill this process: they are never suspected.

use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::{Subscription, Terms, within};
use crate::engine::backlog::View;
use crate::engine::batch::{self, Body};
use crate::engine::failure::Fault;
use crate::ledger::lease::{self, Lease};
use crate::store::Link;

/// After so many unclean takeovers in a row, events are tried one by one.
const UNCLEAN: i32 = 2;
/// So many holders in a row that fell silent at an event died of it.
const CRASHES: i32 = 3;
/// So many events are tried one by one: more than a first page has.
const SUSPECTS: i64 = 1_000;

/// Whether holders died of this event.
pub(super) fn died_of(lease: &Lease, position: i64) -> bool {
    lease.crashed_position == Some(position) && lease.crashes >= CRASHES
}

/// A batch's place on the floor that all batches of the process share.
#[expect(dead_code, reason = "held, never read")]
pub(super) enum Floor<'t> {
    Shared(RwLockReadGuard<'t, ()>),
    Alone(RwLockWriteGuard<'t, ()>),
}

impl Subscription {
    /// Looks at what a fresh lease says about the holders before.
    pub(super) fn suspect(&mut self, lease: &Lease) {
        let is_ours = matches!(self.program.body, Body::Rust(_));
        let died = is_ours && (lease.unclean_takeovers >= UNCLEAN || lease.crashed_position.is_some());
        self.suspects = if died { SUSPECTS } else { 0 };
        if died {
            tracing::warn!(
                subscription = self.id(),
                unclean_takeovers = lease.unclean_takeovers,
                crashed_position = lease.crashed_position,
                "holders died one after the other: the next {SUSPECTS} events are tried one by one"
            );
        }
    }

    /// The event that is to be tried alone now; `None` when there is none.
    ///
    /// # Errors
    /// [`Fault::Crashed`] when a holder died of it already.
    pub(super) async fn next_suspect(
        &mut self,
        conn: &mut Link<'_>,
        lease: &Lease,
        view: &View,
    ) -> Result<Option<i64>, Fault> {
        let asking = batch::next_event(conn, &self.program.subscription_id, &view.horizon);
        let next = within(self.deadline, asking).await?;
        match next {
            Some(event) if died_of(lease, event.position) => {
                self.last_page = 1;
                Err(Fault::Crashed(event))
            }
            next => Ok(next.map(|event| event.position)),
        }
    }

    /// Enters the floor that all batches of the process share; alone, and noting the event, where one is suspected.
    pub(super) async fn step_in<'t>(
        &mut self,
        conn: &mut Link<'_>,
        lease: &Lease,
        suspected: Option<i64>,
        terms: &'t Terms,
    ) -> Result<Floor<'t>, Fault> {
        let Some(position) = suspected else { return Ok(Floor::Shared(terms.floor.read().await)) };
        let alone = Floor::Alone(terms.floor.write().await);
        self.mark(conn, lease, position).await?;
        Ok(alone)
    }

    /// Notes which event is tried next.
    async fn mark(&mut self, conn: &mut Link<'_>, lease: &Lease, position: i64) -> Result<(), Fault> {
        let marking = lease::mark_attempt(conn, &self.program.subscription_id, lease, position);
        match within(self.deadline, marking).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::Fenced),
            Err(fault) => Err(fault),
        }
    }

    /// One more event went well; the last one clears all others.
    pub(super) async fn cleared(&mut self, conn: &mut Link<'_>, events: i64) -> Result<(), Fault> {
        let Some(lease) = self.lease.filter(|_| self.suspects > 0) else { return Ok(()) };
        self.suspects = (self.suspects - events).max(0);
        if self.suspects == 0 {
            within(self.deadline, lease::clear_suspicion(conn, &self.program.subscription_id, &lease))
                .await?;
            tracing::info!(subscription = self.id(), "the events that were tried one by one went well");
        }
        Ok(())
    }
}
