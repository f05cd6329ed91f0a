//! Columns that no fold gives twice: times of the clock, numbers of sequences, chance. Where they are all that differs, that
//! is what whoever verifies must hear, and not that every row does.

use sqlx::AssertSqlSafe;

use super::ScratchError;
use super::compare::{Pair, count_differing};
use crate::projection::sql::quote_ident;
use crate::store::Link;

/// Columns that do not seem to come from the events, and what differs without them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Undetermined {
    pub(crate) columns: Vec<String>,
    /// Rows that the log gives and the live table does not have, these columns left out.
    pub(crate) missing_rows: i64,
    /// Rows that the live table has and the log does not give, likewise.
    pub(crate) unexpected_rows: i64,
}

/// Which of the compared columns differ for such a reason; `None` when none does. `all_differ` says that the tables have
/// no row in common.
pub(super) async fn undetermined(
    tx: &mut Link<'_>,
    pair: &Pair,
    columns: &[String],
    before: (i64, i64),
    all_differ: bool,
) -> Result<Option<Undetermined>, ScratchError> {
    let mut suspects = given_by_the_server(tx, pair, columns).await?;
    if all_differ {
        for column in of_no_arithmetic(tx, pair, columns).await? {
            if !suspects.contains(&column) && has_no_value_in_common(tx, pair, &column).await? {
                suspects.push(column);
            }
        }
    }
    let without = |left_out: &[String]| -> Vec<String> {
        columns.iter().filter(|column| !left_out.contains(column)).cloned().collect()
    };
    let after = count_differing(tx, pair, &without(&suspects)).await?;
    if suspects.is_empty() || after == before {
        return Ok(None);
    }
    // Only those that matter.
    for suspect in suspects.clone() {
        let fewer: Vec<String> = suspects.iter().filter(|other| **other != suspect).cloned().collect();
        if count_differing(tx, pair, &without(&fewer)).await? == after {
            suspects = fewer;
        }
    }
    let in_order = columns.iter().filter(|column| suspects.contains(column)).cloned().collect();
    Ok(Some(Undetermined { columns: in_order, missing_rows: after.0, unexpected_rows: after.1 }))
}

/// Identities, and columns whose default calls something: a sequence, the clock, chance.
async fn given_by_the_server(
    tx: &mut Link<'_>,
    pair: &Pair,
    columns: &[String],
) -> Result<Vec<String>, ScratchError> {
    Ok(sqlx::query_scalar(
        "select a.attname::text from pg_attribute a
         left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
         where a.attrelid = $1::regclass and a.attname = any ($2)
           and (a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) ~ '\\(|^(CURRENT|LOCAL)')
         order by a.attnum",
    )
    .bind(&pair.folded)
    .bind(columns)
    .fetch_all(tx)
    .await?)
}

/// Times and UUIDs: where none of them agrees, a handler asked the clock or chance. Of a number that would as well be a bug.
async fn of_no_arithmetic(
    tx: &mut Link<'_>,
    pair: &Pair,
    columns: &[String],
) -> Result<Vec<String>, ScratchError> {
    Ok(sqlx::query_scalar(
        "select a.attname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
         where a.attrelid = $1::regclass and a.attname = any ($2) and (t.typcategory = 'D' or t.typname = 'uuid')
         order by a.attnum",
    )
    .bind(&pair.folded)
    .bind(columns)
    .fetch_all(tx)
    .await?)
}

async fn has_no_value_in_common(tx: &mut Link<'_>, pair: &Pair, column: &str) -> Result<bool, ScratchError> {
    let column = quote_ident(column);
    // As rows are compared: as text, a null like any other value.
    let values = |table: &str| format!("select row({column})::text collate \"C\" from {table}");
    let sql = format!("select not exists ({} intersect {})", values(&pair.live), values(&pair.folded));
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx).await?)
}
