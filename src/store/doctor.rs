//! The doctor: looks at everything that order rests on, and says of each thing how it is and what to do.

use serde::Serialize;

use super::health::unsound;
use super::order::{Home, Order, skipped};
use super::{Link, Result, blockers, glance, why_daemons_cannot_prove};

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// As it must be.
    Good,
    /// Nothing is lost, but somebody should know.
    Poor,
    /// Events are lost or held up until somebody acts.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: &'static str,
    /// How it is.
    pub(crate) health: Health,
    /// What was found.
    pub(crate) finding: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn good(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, health: Health::Good, finding: finding.into(), remedy: None }
    }

    fn poor(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, health: Health::Poor, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    fn bad(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { health: Health::Bad, ..Self::poor(check, finding, remedy) }
    }
}

/// Examines everything. On a standby only what can be seen there.
pub(crate) async fn examine(conn: &mut Link<'_>) -> Result<Vec<Finding>> {
    let in_recovery: bool = sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut *conn).await?;
    let mut findings = vec![if in_recovery {
        Finding::poor(
            "server",
            "it is in recovery, a standby: readers see the log up to the oldest transaction that was running",
            "connect to the primary to examine all of it",
        )
    } else {
        Finding::good("server", "it is a primary")
    }];
    findings.push(match unsound(conn).await? {
        Some((problem, remedy)) => Finding::bad("indexes and positions", problem, remedy),
        None => {
            Finding::good("indexes and positions", "every index is there; positions are drawn one by one")
        }
    });
    findings.push(positions(conn).await?);
    if !in_recovery {
        findings.push(stamps(conn).await?);
        findings.push(home(conn).await?);
    }
    findings.push(passed_unseen(conn).await?);
    findings.push(inversions(conn).await?);
    let unproven = why_daemons_cannot_prove(conn).await?;
    let tier = u8::from(unproven.is_none());
    findings.push(match unproven {
        None => Finding::good("horizon", "tier 1: readers go past whoever has not appended"),
        Some(reason) => Finding::poor(
            "horizon",
            format!("tier 0: every open transaction of the cluster holds up the readers, because {reason}"),
            "alter table es_events alter column transaction_id set default es_stamp(); \
             grant execute on function es_raise_stamp_floor(xid8) to the daemon's role",
        ),
    });
    findings.push(holders(conn, tier).await?);
    findings.push(sight(conn).await?);
    findings.push(subscriber(conn).await?);
    Ok(findings)
}

async fn stamps(conn: &mut Link<'_>) -> Result<Finding> {
    let Order { greatest_stamp, next_transaction_id, is_ahead } = Order::read(conn).await?;
    let found = format!("the greatest stamp is {greatest_stamp}, the next transaction {next_transaction_id}");
    Ok(if is_ahead {
        Finding::bad(
            "stamps",
            format!("{found}: the log was restored into a younger cluster; readers would lose events"),
            "stop the daemons, then run `foldd rebase`",
        )
    } else {
        Finding::good("stamps", found)
    })
}

async fn home(conn: &mut Link<'_>) -> Result<Finding> {
    let home = Home::read(conn).await?;
    Ok(if home.moved() {
        Finding::poor(
            "cluster",
            format!(
                "the log came from cluster {} and is now in {}: restored, copied or upgraded",
                home.noted_system, home.system
            ),
            "nothing if stamps and checkpoints are good; the next daemon notes the new one",
        )
    } else {
        Finding::good("cluster", format!("{}, timeline {}", home.system, home.timeline))
    })
}

async fn passed_unseen(conn: &mut Link<'_>) -> Result<Finding> {
    let skipped = skipped(conn).await?;
    let Some(worst) = skipped.iter().max_by_key(|skipped| skipped.events) else {
        return Ok(Finding::good("checkpoints", "none has passed an event unseen"));
    };
    Ok(Finding::bad(
        "checkpoints",
        format!(
            "{} has passed {} events unseen, from position {} on",
            worst.witness, worst.events, worst.first_position
        ),
        "stop the daemons, then run `foldd rebase --repair`",
    ))
}

/// The sequence that positions are drawn from must not be behind them: logical replication carries no sequences.
async fn positions(conn: &mut Link<'_>) -> Result<Finding> {
    let (drawn, head): (Option<i64>, i64) = sqlx::query_as(
        "select es_drawn_position(), (select coalesce(max(global_position), 0) from es_events)",
    )
    .fetch_one(conn)
    .await?;
    let drawn = drawn.unwrap_or(0);
    Ok(if drawn < head {
        Finding::bad(
            "position sequence",
            format!("the next position drawn would be {}, but the log already reaches {head}", drawn + 1),
            format!("select setval(pg_get_serial_sequence('es_events', 'global_position'), {head})"),
        )
    } else {
        Finding::good("position sequence", format!("drawn up to {drawn}, the log reaches {head}"))
    })
}

/// Streams whose versions do not come in the order in which the log is read. One walk along the stream index.
async fn inversions(conn: &mut Link<'_>) -> Result<Finding> {
    let found: Option<(i64, String)> = sqlx::query_as(
        "select count(*), min(stream_id) from (
             select stream_id, (transaction_id, global_position)
                        < lag((transaction_id, global_position)) over (partition by stream_id order by stream_version)
                        as falls
             from es_events) walked
         where falls having count(*) > 0",
    )
    .fetch_optional(conn)
    .await?;
    Ok(match found {
        None => Finding::good("streams", "each is read in the order of its versions"),
        Some((events, stream)) => Finding::poor(
            "streams",
            format!("{events} events are read before an earlier version of their stream, as in '{stream}'"),
            "a writer inserted them without es_append; let it append by es_append, and see `order_guard`",
        ),
    })
}

async fn holders(conn: &mut Link<'_>, tier: u8) -> Result<Finding> {
    let seen = glance(conn).await?;
    let open = blockers(conn, 1.0, tier).await?;
    let holding: Vec<_> = open.iter().filter(|blocker| blocker.holds).map(ToString::to_string).collect();
    if !holding.is_empty() {
        let withheld = if seen.withholds { "committed events wait for" } else { "nothing waits yet for" };
        return Ok(Finding::poor(
            "open transactions",
            format!("{withheld} {}", holding.join("; ")),
            "end it, and set idle_in_transaction_session_timeout for writers' roles",
        ));
    }
    let harmless: Vec<_> = open.iter().map(ToString::to_string).collect();
    Ok(Finding::good(
        "open transactions",
        if harmless.is_empty() {
            "none has been open for more than a second".to_owned()
        } else {
            format!("readers go past {}", harmless.join("; "))
        },
    ))
}

async fn sight(conn: &mut Link<'_>) -> Result<Finding> {
    let sees: bool = sqlx::query_scalar("select pg_has_role(current_user, 'pg_read_all_stats', 'usage')")
        .fetch_one(conn)
        .await?;
    Ok(if sees {
        Finding::good("statistics", "this role sees state and age of every session")
    } else {
        Finding::poor(
            "statistics",
            "this role does not see state and age of other roles' sessions",
            "grant pg_read_all_stats to this role",
        )
    })
}

async fn subscriber(conn: &mut Link<'_>) -> Result<Finding> {
    let replicated: bool = sqlx::query_scalar(
        "select exists (select from pg_subscription_rel where srrelid = 'es_events'::regclass)",
    )
    .fetch_one(conn)
    .await?;
    Ok(if replicated {
        Finding::poor(
            "logical replication",
            "es_events is filled by a subscription, which carries neither sequences nor the floor",
            "read here only with tier 0 in mind; before appending here, end the subscription, set the sequence, rebase",
        )
    } else {
        Finding::good("logical replication", "es_events is filled by no subscription")
    })
}
