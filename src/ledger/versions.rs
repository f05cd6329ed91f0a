//! What becomes of versions: one takes the place of another, is given up, or is retired.
//!
//! **Promise.** A verb of an operator is a wish in the books: it is recorded with who and why, or refused, and whichever
//! daemon can carries it out. What waits says for what.
//!
//! **How.** The steps themselves are functions in the database (`migrations/0013_versions.sql`), each of them one
//! transaction: a process that dies in the middle of one has done nothing. A step that cannot have its locks within a
//! fraction of `deadlock_timeout` lets everybody go on, and is tried again.
//!
//! **What it never does.** It builds nothing: a version that is wished anew is laid out by the next
//! [`prepare`](crate::engine::build::prepare).

use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use super::deeds;
use super::projections;
use super::wishes::{self, Refusal, Signature};
use crate::store::Link;

/// What an operator can wish of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Build it anew, beside itself.
    Rebuild,
    /// Take the place of the live version.
    Cutover,
    /// Give the place back to the version before.
    Rollback,
    /// Give up what is being built.
    Cancel,
    /// Drop the tables and books of a version that is not live, or of a projection that nobody configures.
    Retire,
}

impl Verb {
    /// As it stands in the books and is typed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Cutover => "cutover",
            Self::Rollback => "rollback",
            Self::Cancel => "cancel",
            Self::Retire => "retire",
        }
    }
}

/// A wish that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wished {
    /// The version that it is about: of a rollback the one that is to be live again.
    pub(crate) id: String,
    pub(crate) revision: i64,
}

/// A version, as far as a wish asks.
struct Subject {
    id: String,
    role: String,
    withdrawn: bool,
    is_hosted: bool,
}

/// Enters a wish.
///
/// # Errors
/// When there is no version that it could be about, when somebody did something since the operator looked, or when what is
/// wished would hurt readers: a live version is retired only when no running daemon has it configured.
pub(crate) async fn wish(
    conn: &mut Link<'_>,
    verb: Verb,
    name: &str,
    signature: &Signature<'_>,
) -> Result<Wished, Refusal> {
    let mut unit = conn.begin().await?;
    let subject = subject(&mut unit, verb, name).await?;
    if let Some(expected) = signature.if_revision {
        let revision: i64 = sqlx::query_scalar(
            "select coalesce(max(entry_id), 0) from es_operator_log where subscription_id = $1",
        )
        .bind(&subject.id)
        .fetch_one(&mut unit)
        .await?;
        if revision != expected {
            return Err(Refusal::Changed { id: subject.id, expected, revision });
        }
    }
    let before = json!({ "role": subject.role });
    let after = json!({ "wished": verb.as_str() });
    let revision = deeds::note(&mut unit, verb.as_str(), &subject.id, signature, before, after).await?;
    projections::set_wish(&mut unit, &subject.id, verb.as_str(), revision).await?;
    unit.commit().await?;
    Ok(Wished { id: subject.id, revision })
}

/// The version that a verb is about.
async fn subject(unit: &mut Link<'_>, verb: Verb, name: &str) -> Result<Subject, Refusal> {
    let rows = sqlx::query(
        "select p.projection_id, p.role, p.withdrawn,
                exists (select from es_replicas r where r.lease_until > clock_timestamp()
                          and exists (select from unnest(r.hosts) h where split_part(h, '/', 1) = p.projection_id)) as is_hosted
         from es_projections p
         where $1 in (p.projection_name, p.projection_name || '@' || p.version, p.projection_id)
         order by p.version, p.generation for update",
    )
    .bind(name)
    .fetch_all(&mut *unit)
    .await?;
    let mut versions = Vec::new();
    for row in rows {
        versions.push(Subject {
            id: row.try_get(0)?,
            role: row.try_get(1)?,
            withdrawn: row.try_get(2)?,
            is_hosted: row.try_get(3)?,
        });
    }
    if versions.iter().all(|version| version.role == "retired" && !version.withdrawn) {
        return Err(wishes::unknown(unit, name).await?);
    }
    let roles: Vec<String> = versions.iter().map(|version| version.role.clone()).collect();
    let has = |role: &str| roles.iter().any(|known| known == role);
    let fits = |version: &Subject| match verb {
        Verb::Rebuild => {
            version.role == "live" || version.role == "retired" && version.withdrawn && !has("live")
        }
        Verb::Cutover | Verb::Cancel => version.role == "building",
        Verb::Rollback => version.role == "previous",
        // A previous version first; a live one only where nobody runs it any more.
        Verb::Retire => version.role == "previous" || version.role == "live" && !version.is_hosted,
    };
    let refused = match verb {
        Verb::Rebuild if has("building") => Some("it is being built already; `foldd cancel` gives that up"),
        Verb::Cutover if !has("building") => {
            Some("no version of it is being built; raise `version` in its file")
        }
        Verb::Cancel if !has("building") => Some("no version of it is being built"),
        Verb::Rollback if !has("previous") => {
            Some("no previous version of it is kept; raise `version` with the old definition instead")
        }
        Verb::Retire if !has("previous") && !has("live") => {
            Some("only its build is there; `foldd cancel` gives that up")
        }
        Verb::Rebuild | Verb::Cutover | Verb::Cancel | Verb::Rollback | Verb::Retire => None,
    };
    let found = versions.into_iter().rev().filter(fits).min_by_key(|version| version.role == "live");
    match (refused, found) {
        (None, Some(subject)) => Ok(subject),
        (Some(why), _) => Err(Refusal::Selection(format!("nothing to {} of {name}: {why}", verb.as_str()))),
        (None, None) if verb == Verb::Retire => Err(Refusal::Selection(format!(
            "{name} is live and a running daemon has it configured: remove it from the configuration first, then retire it"
        ))),
        (None, None) => {
            Err(Refusal::Selection(format!("nothing to {} of {name}: it was never live", verb.as_str())))
        }
    }
}

/// How a wish stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) role: String,
    /// Whether it is still to be carried out.
    pub(crate) open: bool,
    /// What it waits for.
    pub(crate) waiting_for: Option<String>,
    /// Whether any daemon is running.
    pub(crate) daemon_runs: bool,
}

/// How a wish about a version stands; `None` when the version is gone.
pub(crate) async fn standing(conn: &mut Link<'_>, id: &str) -> sqlx::Result<Option<Standing>> {
    let row = sqlx::query(
        "select role, wish is not null, waiting_for, exists (select from es_replicas where lease_until > clock_timestamp())
         from es_projections where projection_id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Standing {
            role: row.try_get(0)?,
            open: row.try_get(1)?,
            waiting_for: row.try_get(2)?,
            daemon_runs: row.try_get(3)?,
        })
    })
    .transpose()
}

/// Something that is to be done about a version now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) projection_id: String,
    /// `cutover`, `rollback`, `cancel` or `retire`.
    pub(crate) verb: String,
    /// Who wishes it, and why; foldd itself when nobody does.
    pub(crate) who: String,
    pub(crate) why: Option<String>,
    /// What it was last said to wait for.
    pub(crate) waiting_for: Option<String>,
    /// The running replica that holds its first partition, and is to do it; anybody while none does.
    pub(crate) holder: Option<Uuid>,
}

/// What is to be done now, and has been recorded or follows from the configuration.
pub(crate) async fn due(conn: &mut Link<'_>) -> sqlx::Result<Vec<Due>> {
    let rows = sqlx::query(
        "select d.projection_id, d.verb, coalesce(l.who, 'foldd') as who, l.why, d.waiting_for,
                (select s.holder from es_subscriptions s join es_replicas r on r.replica_id = s.holder
                 where s.projection_id = d.projection_id and s.partition = 0 and r.lease_until > clock_timestamp()) as holder
         from foldd.es_due d left join es_operator_log l on d.is_wished and l.entry_id = d.wish_revision
         order by d.projection_id",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Due {
                projection_id: row.try_get("projection_id")?,
                verb: row.try_get("verb")?,
                who: row.try_get("who")?,
                why: row.try_get("why")?,
                waiting_for: row.try_get("waiting_for")?,
                holder: row.try_get("holder")?,
            })
        })
        .collect()
}

/// Tries it once. `None` when it is done, else what it waits for.
pub(crate) async fn carry_out(conn: &mut Link<'_>, due: &Due) -> sqlx::Result<Option<String>> {
    let mut unit = conn.begin().await?;
    // Readers queue behind our lock: this is how long the longest of them waits.
    sqlx::query(
        "select set_config('lock_timeout', t.ms, true), set_config('statement_timeout', case when $1 then t.ms else
                    current_setting('statement_timeout') end, true)
         from (select greatest(1, (extract(epoch from current_setting('deadlock_timeout')::interval) * 400)::integer)::text as ms) t",
    )
    .bind(matches!(due.verb.as_str(), "cutover" | "rollback"))
    .execute(&mut unit)
    .await?;
    let statement = match due.verb.as_str() {
        "cutover" | "rollback" => "select foldd.es_take_place($1, $2, $3, $4)",
        _ => "select foldd.es_retire($1, $2, $3, $4)::text",
    };
    let tried: sqlx::Result<Option<String>> = sqlx::query_scalar(statement)
        .bind(&due.projection_id)
        .bind(&due.verb)
        .bind(&due.who)
        .bind(&due.why)
        .fetch_one(&mut unit)
        .await;
    match tried {
        Ok(Some(reason)) if !reason.is_empty() => {
            unit.rollback().await?;
            Ok(Some(reason))
        }
        Ok(_) => {
            unit.commit().await?;
            Ok(None)
        }
        Err(error) => {
            let Some(database) = error.as_database_error() else { return Err(error) };
            let code = database.code().unwrap_or_default().into_owned();
            let message = database.message().to_owned();
            let remedy = crate::error::remedy(&error).map(str::to_owned);
            unit.rollback().await?;
            match code.as_str() {
                "55P03" | "57014" | "40P01" => Ok(Some(holders(conn, &due.projection_id).await?)),
                // The server is going down, or the connection is: not this version's affair.
                code if code.starts_with("57") || code.starts_with("08") => Err(error),
                _ => {
                    let remedy =
                        remedy.as_deref().unwrap_or("it is tried again by itself once that is mended");
                    Ok(Some(format!("somebody who mends this: {message}; {remedy}")))
                }
            }
        }
    }
}

/// Who holds locks on the tables of a version, or of the live one.
async fn holders(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<String> {
    let holder: Option<String> = sqlx::query_scalar(
        "select format('a lock on its tables that pid %s holds (%s%s, %s for %s s); have its owner end it, or '
                       '`select pg_terminate_backend(%1$s)`', l.pid, a.usename,
                       coalesce(', ' || nullif(a.application_name, ''), ''), coalesce(a.state, 'running'),
                       round(extract(epoch from clock_timestamp() - a.xact_start)))
         from pg_locks l
         join pg_class c on c.oid = l.relation and l.locktype = 'relation' and l.granted
         join es_projections p on p.schema_oid = c.relnamespace
          and (p.projection_id = $1 or p.role = 'live'
               and p.projection_name = (select projection_name from es_projections where projection_id = $1))
         join pg_stat_activity a on a.pid = l.pid
         where l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()
         order by a.xact_start limit 1",
    )
    .bind(projection_id)
    .fetch_optional(conn)
    .await?;
    Ok(holder.unwrap_or_else(|| "locks on its tables, which others had for too long".to_owned()))
}
