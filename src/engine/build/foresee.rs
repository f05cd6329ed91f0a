//! What preparing would do, for whoever asks before it is done. Nothing is kept.

use serde::Serialize;
use sqlx::AssertSqlSafe;

use super::decide::{Step, decide, stored};
use super::lay::lay;
use super::{BuildError, store_schema};
use crate::ledger::projections::{self, Known};
use crate::projection::Projection;
use crate::projection::definition::Body;
use crate::projection::sql::quote_ident;
use crate::store::Link;

/// What would become of one projection. The field names are a contract with scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Foreseen {
    /// `fines@2`; the version that the action is about.
    pub(crate) projection: String,
    /// `nothing`, `create`, `rebuild`, `cutover`, `retire`, `orphaned`, `migrate`, or `refused` where the configuration
    /// cannot be in force.
    pub(crate) action: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// Whether a daemon that starts changes something, or cannot do what the configuration asks for.
    pub(crate) changes: bool,
    /// What to do, where something is to be done.
    pub(crate) remedy: Option<String>,
    /// What differs between the definition that is applied and the configured one.
    pub(crate) diff: Option<String>,
    /// Columns of live tables that the new version has otherwise, or not.
    pub(crate) changed_columns: Vec<String>,
    /// What of others refers to the live tables, and would stay on them.
    pub(crate) dependents: Vec<String>,
}

impl Foreseen {
    fn of(projection: String, action: &'static str, reason: String) -> Self {
        Self {
            projection,
            action,
            reason,
            changes: !matches!(action, "nothing" | "orphaned" | "retire"),
            remedy: None,
            diff: None,
            changed_columns: Vec::new(),
            dependents: Vec::new(),
        }
    }

    /// The schema of the store comes first.
    pub(crate) fn migration(reason: &str) -> Self {
        Self::of("the event store".to_owned(), "migrate", reason.to_owned())
    }

    /// A projection of a store that does not know any yet.
    pub(crate) fn first(wanted: &Projection) -> Self {
        Self::of(wanted_id(wanted), "create", "there is no version of it yet".to_owned())
    }
}

fn wanted_id(wanted: &Projection) -> String {
    format!("{}@{}", wanted.name, wanted.version)
}

/// What preparing a projection would do.
pub(crate) async fn foresee(conn: &mut Link<'_>, wanted: &Projection) -> Result<Foreseen, BuildError> {
    let mut tx = conn.begin().await?;
    let known = projections::all(&mut tx, Some(&wanted.name), None).await?;
    let live = known.iter().find(|known| known.role == "live");
    let decision = match decide(wanted, &known) {
        Ok(decision) => decision,
        Err(error) => {
            let trouble = error.trouble();
            let refused = Foreseen::of(wanted_id(wanted), "refused", trouble.message);
            return Ok(Foreseen { remedy: Some(trouble.remedy), ..refused });
        }
    };
    let mut foreseen = match (decision.step, decision.notice, live) {
        (_, Some(notice), _) => {
            let mut lines = notice.message.splitn(2, '\n');
            let reason = lines.next().unwrap_or_default().to_owned();
            let diff = lines.next().map(str::to_owned);
            let refused = Foreseen::of(wanted_id(wanted), "refused", reason);
            Foreseen { remedy: Some(notice.remedy), diff, ..refused }
        }
        (Step::First, None, _) => Foreseen::first(wanted),
        (Step::Instead(discarded), None, _) => Foreseen::of(
            wanted_id(wanted),
            "create",
            format!("{} was never live and is replaced", discarded.projection_id),
        ),
        (Step::Beside(live) | Step::BesideInstead { live, .. }, None, _) => {
            beside(&mut tx, wanted, live).await?
        }
        (Step::Nothing, None, Some(live)) => nothing(wanted, &known, live),
        (Step::Nothing, None, None) => {
            Foreseen::of(wanted_id(wanted), "nothing", "it is being built for the first time".to_owned())
        }
    };
    if let Some(live) = live
        && live.version < wanted.version
        && stored(live)?.body == Body::Rust
        && !wanted.handlers.contains_key(&live.version)
    {
        foreseen.remedy = Some(format!(
            "this program has no handler of {}: register it beside the new one, or nobody keeps it fresh meanwhile",
            live.projection_id
        ));
    }
    tx.rollback().await?;
    Ok(foreseen)
}

fn nothing(wanted: &Projection, known: &[Known], live: &Known) -> Foreseen {
    let building = known.iter().rev().find(|known| known.role == "building");
    match building {
        Some(building) => Foreseen::of(
            building.projection_id.clone(),
            "cutover",
            format!("it is being built, and takes the place of {} once it has caught up", live.projection_id),
        ),
        None if live.to_rebuild => {
            Foreseen::of(live.projection_id.clone(), "rebuild", "an operator wishes it anew".to_owned())
        }
        None => Foreseen::of(wanted_id(wanted), "nothing", "it is live as configured".to_owned()),
    }
}

/// Lays the new version out where it is rolled back, and compares.
async fn beside(tx: &mut Link<'_>, wanted: &Projection, live: &Known) -> Result<Foreseen, BuildError> {
    let mut foreseen = Foreseen::of(
        wanted_id(wanted),
        "rebuild",
        format!("{} is live; built beside it, then it takes its place", live.projection_id),
    );
    foreseen.diff = Some(stored(live)?.diff(&wanted.definition)).filter(|diff| !diff.is_empty());
    foreseen.dependents = sqlx::query_scalar("select * from es_dependents($1::bigint::oid)")
        .bind(i64::from(live.schema_oid))
        .fetch_all(&mut *tx)
        .await?;
    let scratch = format!("foldd_plan_{}", std::process::id());
    let store_schema = store_schema(tx).await?;
    match lay(tx, wanted, &scratch, &store_schema).await {
        Ok(new) => foreseen.changed_columns = changed_columns(tx, live.schema_oid, new).await?,
        Err(error) => {
            let trouble = error.trouble();
            let place = trouble.place.unwrap_or_default();
            let refused = Foreseen::of(wanted_id(wanted), "refused", format!("{place}: {}", trouble.message));
            return Ok(Foreseen { remedy: Some(trouble.remedy), ..refused });
        }
    }
    sqlx::raw_sql(AssertSqlSafe(format!("drop schema {} cascade", quote_ident(&scratch))))
        .execute(tx)
        .await?;
    Ok(foreseen)
}

/// Columns of the old tables that the new ones do not have, or have in another type or place.
async fn changed_columns(tx: &mut Link<'_>, old: u32, new: u32) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "with columns as (
             select c.relnamespace as home, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) as type,
                    row_number() over (partition by c.oid order by a.attnum) as nth
             from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relkind in ('r', 'p', 'v', 'm') and c.relnamespace in ($1::bigint::oid, $2::bigint::oid))
         select o.relname || '.' || o.attname || case
                    when n.attname is null then ' is gone'
                    when n.type <> o.type then format(' becomes %s, was %s', n.type, o.type)
                    else ' moves' end
         from columns o
         left join columns n on n.home = $2::bigint::oid and n.relname = o.relname and n.attname = o.attname
         where o.home = $1::bigint::oid and (n.type, n.nth) is distinct from (o.type, o.nth)
         order by o.relname, o.nth",
    )
    .bind(i64::from(old))
    .bind(i64::from(new))
    .fetch_all(tx)
    .await
}

/// What the database has beside the configured names: projections that nobody configures here, and previous versions.
pub(crate) async fn others(conn: &mut Link<'_>, names: &[&str]) -> Result<Vec<Foreseen>, BuildError> {
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "select projection_name, projection_id, role,
                coalesce(to_char(keep_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '')
         from es_projections where role = 'previous' or role <> 'retired' and projection_name <> all ($1)
         order by projection_id",
    )
    .bind(names)
    .fetch_all(conn)
    .await?;
    let foreseen = |(name, id, role, until): (String, String, String, String)| {
        if role == "previous" {
            let reason = format!("it is kept for a rollback until {until}, and dropped then");
            return Foreseen::of(id, "retire", reason);
        }
        let reason = "nobody configures it here; it is kept, and folded by whoever does".to_owned();
        let remedy = Some(format!("if no other configuration has it: `foldd retire {name}`"));
        Foreseen { remedy, ..Foreseen::of(id, "orphaned", reason) }
    };
    Ok(rows.into_iter().map(foreseen).collect())
}
