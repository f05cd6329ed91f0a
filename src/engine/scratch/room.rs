//! The schema that a copy is folded into page by page, and who clears it away.
//!
//! Pages are committed one by one: in a single transaction the old versions of a row would stay, and a row that every event
//! changes would get slower with each. So the schema can be seen by others, and outlives a process that is killed. An
//! advisory lock, held by an idle transaction on a connection of its own, says that somebody still works in it; the
//! next one who folds aside drops those that nobody works in.

use sqlx::AssertSqlSafe;

use super::span::{Reached, Span};
use super::{OnProgress, Scratch, ScratchError, begin};
use crate::engine::pace::{Grain, Pace};
use crate::projection::sql::quote_ident;
use crate::store::Link;

const LOCK: &str = "hashtextextended('foldd scratch ' || $1, 0)";

/// Names a schema that nobody has, and holds it until the transaction ends.
pub(crate) async fn claim(keeper: &mut Link<'_>) -> Result<String, ScratchError> {
    let schema: String = sqlx::query_scalar(
        "select 'foldd_scratch_' || substr(md5(gen_random_uuid()::text), 1, 12),
                set_config('idle_in_transaction_session_timeout', '0', true)",
    )
    .fetch_one(&mut *keeper)
    .await?;
    sqlx::query(AssertSqlSafe(format!("select pg_advisory_xact_lock({LOCK})")))
        .bind(&schema)
        .execute(keeper)
        .await?;
    Ok(schema)
}

/// Drops the schemas of processes that are gone.
pub(crate) async fn clear(conn: &mut Link<'_>) -> Result<(), ScratchError> {
    let left: Vec<String> = sqlx::query_scalar(
        "select nspname::text from pg_namespace
         where nspname ~ '^foldd_scratch_[0-9a-f]{12}$' and pg_has_role(nspowner, 'usage')",
    )
    .fetch_all(&mut *conn)
    .await?;
    for schema in left {
        let mut tx = conn.begin().await?;
        let free: bool =
            sqlx::query_scalar(AssertSqlSafe(format!("select pg_try_advisory_xact_lock({LOCK})")))
                .bind(&schema)
                .fetch_one(&mut tx)
                .await?;
        if free {
            let drop = format!("drop schema if exists {} cascade", quote_ident(&schema));
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut tx).await?;
            tracing::debug!(schema, "dropped what an earlier process left");
        }
        tx.commit().await?;
    }
    Ok(())
}

impl Scratch {
    /// Folds a stretch, each page in a transaction of its own. `parked` is the projection whose parked events are left out.
    pub(super) async fn fold_committed(
        &self,
        conn: &mut Link<'_>,
        mut span: Span<'_>,
        parked: Option<&str>,
        progress: OnProgress<'_>,
    ) -> Result<i64, ScratchError> {
        let mut pace = self.pace();
        let mut folded = 0;
        loop {
            let mut tx = begin(conn).await?;
            span.condition = match parked {
                Some(projection_id) => {
                    super::verify::leave_out_parked(&mut tx, projection_id).await?.condition()
                }
                None => None,
            };
            self.compile(&mut tx).await?;
            let reached = self.fold_span(&mut tx, &span, &mut pace, Some(1), progress).await?;
            finish(tx).await?;
            folded += reached.folded;
            match reached {
                Reached { end: true, .. } => return Ok(folded),
                Reached { after, .. } => span.after = after,
            }
        }
    }

    /// As large as pays.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.most_events(), Grain::Handler)
    }
}

/// Commits, and leaves nothing temporary on the connection, which may be a pooler's.
pub(super) async fn finish(mut tx: Link<'_>) -> Result<(), ScratchError> {
    sqlx::raw_sql("discard temp").execute(&mut tx).await?;
    Ok(tx.commit().await?)
}
