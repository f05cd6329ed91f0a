//! What preparing would do, for whoever asks before it is done. Nothing is kept.

use serde::Serialize;
use sqlx::AssertSqlSafe;

use super::begin::home;
use super::decide::{Step, decide, stored};
use super::lay::lay;
use super::{BuildError, store_schema};
use crate::error::EventStoreError;
use crate::ledger::projections::{self, Known};
use crate::projection::Projection;
use crate::projection::definition::Body;
use crate::projection::settings::Cutover;
use crate::projection::sql::quote_ident;
use crate::store::{self, Link};

/// What would become of one projection. The field names are a contract with scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Foreseen {
    /// `fines@2`; the version that the action is about.
    pub(crate) projection: String,
    /// `nothing`, `create`, `rebuild`, `cutover`, `split`, `retire`, `orphaned`; `create`, `adopt` or `migrate` of the event
    /// store; or `refused` where the configuration cannot be in force.
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

    fn refused(projection: String, error: &BuildError) -> Self {
        let trouble = error.trouble();
        let reason = match trouble.place {
            Some(place) => format!("{place}: {}", trouble.message),
            None => trouble.message,
        };
        Self { remedy: Some(trouble.remedy), ..Self::of(projection, "refused", reason) }
    }

    /// A projection of a store that does not know any yet.
    pub(crate) fn first(wanted: &Projection) -> Self {
        Self::of(wanted_id(wanted), "create", "there is no version of it yet".to_owned())
    }
}

fn wanted_id(wanted: &Projection) -> String {
    format!("{}@{}", wanted.name, wanted.version)
}

/// What becomes of the store's schema, which is not the one that this program needs: this comes first.
pub(crate) async fn of_the_store(conn: &mut Link<'_>, found: i32) -> Result<Foreseen, EventStoreError> {
    let of = |action, reason| Foreseen::of("the event store".to_owned(), action, reason);
    if found > 0 {
        let reason = format!(
            "the database has schema version {found}, this foldd needs {}; a daemon that starts migrates it, and so does \
             `foldd migrate`",
            store::SCHEMA_VERSION
        );
        return Ok(of("migrate", reason));
    }
    match store::plain_store(conn).await {
        Ok(None) => Ok(of("create", "this database has none yet".to_owned())),
        Ok(Some(plain)) => {
            let checkpoints = match plain.checkpoints {
                1 => "1 checkpoint".to_owned(),
                many => format!("{many} checkpoints"),
            };
            let reason = format!(
                "there is one of the plain shape, up to position {}, with {checkpoints} of other programs; all of it stays \
                 as it is and in use, and projections begin at the first event",
                plain.last_position
            );
            Ok(of("adopt", reason))
        }
        Err(error @ EventStoreError::NotAdoptable { .. }) => {
            let remedy = error.remedy().map(str::to_owned);
            Ok(Foreseen { remedy, ..of("refused", error.to_string()) })
        }
        Err(error) => Err(error),
    }
}

/// What preparing a projection would do.
pub(crate) async fn foresee(conn: &mut Link<'_>, wanted: &Projection) -> Result<Foreseen, BuildError> {
    let mut tx = conn.begin().await?;
    let known = projections::all(&mut tx, Some(&wanted.name), None).await?;
    let live = known.iter().find(|known| known.role == "live");
    let decision = match decide(wanted, &known) {
        Ok(decision) => decision,
        Err(error) => return Ok(Foreseen::refused(wanted_id(wanted), &error)),
    };
    let mut foreseen = match (decision.step, decision.notice, live) {
        (_, Some(notice), _) => {
            let mut lines = notice.message.splitn(2, '\n');
            let reason = lines.next().unwrap_or_default().to_owned();
            let diff = lines.next().map(str::to_owned);
            let refused = Foreseen::of(wanted_id(wanted), "refused", reason);
            Foreseen { remedy: Some(notice.remedy), diff, ..refused }
        }
        (Step::First, None, _) => tried(&mut tx, wanted, &known, None, Foreseen::first(wanted)).await?,
        (Step::Instead(discarded), None, _) => {
            let reason = format!("{} was never live and is replaced", discarded.projection_id);
            let create = Foreseen::of(wanted_id(wanted), "create", reason);
            tried(&mut tx, wanted, &known, None, create).await?
        }
        (Step::Beside(live) | Step::BesideInstead { live, .. }, None, _) => {
            beside(&mut tx, wanted, &known, live).await?
        }
        (Step::Nothing, None, Some(live)) => nothing(&mut tx, wanted, &known, live).await?,
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

/// Where nothing new is configured: what is under way, or would be made of the partitions.
async fn nothing(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    live: &Known,
) -> Result<Foreseen, BuildError> {
    if let Some(building) = known.iter().rev().find(|known| known.role == "building") {
        let reason = match wanted.settings.cutover.unwrap_or_default() {
            Cutover::Automatic => {
                format!(
                    "it is being built, and takes the place of {} once it has caught up",
                    live.projection_id
                )
            }
            Cutover::Manual => format!(
                "it is being built, and waits for `foldd cutover {}` to take the place of {}",
                wanted.name, live.projection_id
            ),
        };
        return Ok(Foreseen::of(building.projection_id.clone(), "cutover", reason));
    }
    if live.to_rebuild {
        let reason = "an operator wishes it anew".to_owned();
        return Ok(Foreseen::of(live.projection_id.clone(), "rebuild", reason));
    }
    let (has, wants) =
        (projections::partitions(tx, &live.projection_id).await?, wanted.settings.partitions.unwrap_or(1));
    if has != i64::from(wants) {
        let reason = format!("it has {has} and is to have {wants} partitions; nothing is folded anew");
        return Ok(Foreseen::of(live.projection_id.clone(), "split", reason));
    }
    Ok(Foreseen::of(live.projection_id.clone(), "nothing", "it is live as configured".to_owned()))
}

/// What would be built beside the live version, and what that means for whoever reads it.
async fn beside(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    live: &Known,
) -> Result<Foreseen, BuildError> {
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
    tried(tx, wanted, known, Some(live), foreseen).await
}

/// Lays a version out where it is rolled back, and compares it with the live one: what is foreseen, or why it cannot be.
async fn tried(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    live: Option<&Known>,
    mut foreseen: Foreseen,
) -> Result<Foreseen, BuildError> {
    let (_, schema) = home(tx, wanted, known, live.is_none()).await?;
    let is_ours = known.iter().any(|known| known.schema_name == schema && known.role != "retired");
    if !is_ours && projections::schema_exists(tx, &schema).await? {
        return Ok(Foreseen::refused(wanted_id(wanted), &BuildError::SchemaTaken(schema)));
    }
    let scratch = format!("foldd_plan_{}", std::process::id());
    let store_schema = store_schema(tx).await?;
    match (lay(tx, wanted, &scratch, &store_schema).await, live) {
        (Ok(new), Some(live)) => {
            foreseen.changed_columns = changed_columns(tx, live.schema_oid, new.schema_oid).await?
        }
        (Ok(_), None) => {}
        // The transaction has failed, and is rolled back.
        (Err(error), _) => return Ok(Foreseen::refused(wanted_id(wanted), &error)),
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
        let (reason, verb) = if role == "building" {
            ("nobody configures it here; its build is kept, and goes on with whoever does", "cancel")
        } else {
            ("nobody configures it here; it is kept, and folded by whoever does", "retire")
        };
        let remedy = Some(format!("if no other configuration has it: `foldd {verb} {name}`"));
        Foreseen { remedy, ..Foreseen::of(id, "orphaned", reason.to_owned()) }
    };
    Ok(rows.into_iter().map(foreseen).collect())
}
