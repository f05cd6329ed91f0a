//! Rows of two tables as multisets of texts: any order, all types, with or without a key.

use sqlx::{AssertSqlSafe, Row};

use super::ScratchError;
use super::undetermined::{Undetermined, undetermined};
use crate::projection::sql::quote_ident;
use crate::store::Link;

/// A table that a definition describes, live and folded anew.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Compared {
    pub(crate) table: String,
    /// The columns that were compared.
    pub(crate) columns: Vec<String>,
    /// Columns that were left out because somebody asked for it.
    pub(crate) ignored: Vec<String>,
    /// Whether the live schema has the table at all.
    pub(crate) exists: bool,
    /// Columns of the definition that the live table does not have.
    pub(crate) columns_missing: Vec<String>,
    /// Columns of the live table that the definition does not have.
    pub(crate) columns_unexpected: Vec<String>,
    pub(crate) live_rows: i64,
    pub(crate) folded_rows: i64,
    /// Rows that the log gives and the live table does not have.
    pub(crate) missing_rows: i64,
    /// Rows that the live table has and the log does not give.
    pub(crate) unexpected_rows: i64,
    /// The first of both.
    pub(crate) differences: Vec<Difference>,
    /// Columns that events do not determine, where leaving them out makes a difference.
    pub(crate) undetermined: Option<Undetermined>,
}

/// A row that only one of the two has, or has more often.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Difference {
    /// `live` or `log`: who has it.
    pub(crate) only_in: &'static str,
    /// How many times more often.
    pub(crate) times: i64,
    /// The columns' values as PostgreSQL prints a row.
    pub(crate) row: String,
}

impl Compared {
    /// Whether the live table is not what the log gives.
    pub(crate) fn differs(&self) -> bool {
        !self.exists
            || self.missing_rows > 0
            || self.unexpected_rows > 0
            || !self.columns_missing.is_empty()
            || !self.columns_unexpected.is_empty()
    }
}

/// A table and its columns, in order.
struct Table {
    name: String,
    columns: Vec<String>,
}

/// Compares every table of the folded schema with the live one. `ignored` are (table, column); the first `shown`
/// differences of each table are told.
pub(super) async fn compare(
    tx: &mut Link<'_>,
    live_oid: u32,
    folded_oid: u32,
    ignored: &[(String, String)],
    shown: i64,
) -> Result<Vec<Compared>, ScratchError> {
    let live = lock(tx, live_oid).await?;
    let live_tables = tables(tx, live_oid).await?;
    let folded = schema_name(tx, folded_oid).await?;
    let folded_tables = tables(tx, folded_oid).await?;
    check_ignored(&folded_tables, ignored)?;
    let mut compared = Vec::new();
    for table in folded_tables {
        let standing = live_tables.iter().find(|live| live.name == table.name);
        compared.push(compare_table(tx, (&live, standing), (&folded, &table), ignored, shown).await?);
    }
    Ok(compared)
}

async fn compare_table(
    tx: &mut Link<'_>,
    (live_schema, live): (&str, Option<&Table>),
    (folded_schema, folded): (&str, &Table),
    ignored: &[(String, String)],
    shown: i64,
) -> Result<Compared, ScratchError> {
    let is_ignored =
        |column: &String| ignored.iter().any(|(table, name)| *table == folded.name && name == column);
    let lacks = |of: &Table, columns: &[String]| -> Vec<String> {
        columns.iter().filter(|column| !of.columns.contains(column) && !is_ignored(column)).cloned().collect()
    };
    let in_live = |column: &String| live.is_some_and(|live| live.columns.contains(column));
    let columns: Vec<String> =
        folded.columns.iter().filter(|column| in_live(column) && !is_ignored(column)).cloned().collect();
    let mut compared = Compared {
        table: folded.name.clone(),
        ignored: folded.columns.iter().filter(|column| is_ignored(column)).cloned().collect(),
        exists: live.is_some(),
        columns_missing: live.map(|live| lacks(live, &folded.columns)).unwrap_or_default(),
        columns_unexpected: live.map(|live| lacks(folded, &live.columns)).unwrap_or_default(),
        columns,
        live_rows: 0,
        folded_rows: 0,
        missing_rows: 0,
        unexpected_rows: 0,
        differences: Vec::new(),
        undetermined: None,
    };
    let pair =
        Pair { live: qualified(live_schema, &folded.name), folded: qualified(folded_schema, &folded.name) };
    if live.is_none() {
        compared.folded_rows = count(tx, &pair.folded).await?;
        compared.missing_rows = compared.folded_rows;
        return Ok(compared);
    }
    compared.live_rows = count(tx, &pair.live).await?;
    compared.folded_rows = count(tx, &pair.folded).await?;
    let sql = format!(
        "{}
         select line, times::bigint,
                (select coalesce(sum(times), 0)::bigint from differing where times > 0),
                (select coalesce(-sum(times), 0)::bigint from differing where times < 0)
         from differing order by line, times limit greatest($1, 1)",
        pair.differing(&compared.columns)
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(shown).fetch_all(&mut *tx).await?;
    for found in &rows {
        let times: i64 = found.try_get(1)?;
        compared.unexpected_rows = found.try_get(2)?;
        compared.missing_rows = found.try_get(3)?;
        compared.differences.push(Difference {
            only_in: if times > 0 { "live" } else { "log" },
            times: times.abs(),
            row: found.try_get(0)?,
        });
    }
    compared.differences.truncate(usize::try_from(shown).unwrap_or_default());
    let differing = (compared.missing_rows, compared.unexpected_rows);
    if differing != (0, 0) {
        let all_differ = differing == (compared.folded_rows, compared.live_rows);
        compared.undetermined = undetermined(tx, &pair, &compared.columns, differing, all_differ).await?;
    }
    Ok(compared)
}

/// A live table and the one that was folded anew, as SQL names them.
pub(super) struct Pair {
    pub(super) live: String,
    pub(super) folded: String,
}

impl Pair {
    /// The relation `differing`: rows of which one has more than the other, and how many more the live one has.
    ///
    /// Bytes are compared, whatever the collation: a row is a text here, so that types without equality take part.
    fn differing(&self, columns: &[String]) -> String {
        let row = |side: &str| {
            let columns: Vec<String> =
                columns.iter().map(|column| format!("{side}.{}", quote_ident(column))).collect();
            format!("row({})::text collate \"C\"", columns.join(", "))
        };
        format!(
            "with differing as materialized (
                 select line, sum(side) as times
                 from (select {} as line, 1 as side from {} _foldd_live
                       union all select {}, -1 from {} _foldd_log) both_sides
                 group by line having sum(side) <> 0)",
            row("_foldd_live"),
            self.live,
            row("_foldd_log"),
            self.folded
        )
    }
}

/// How many rows of some columns are missing from the live table, and how many are too many.
pub(super) async fn count_differing(
    tx: &mut Link<'_>,
    pair: &Pair,
    columns: &[String],
) -> Result<(i64, i64), ScratchError> {
    let sql = format!(
        "{}
         select coalesce(-sum(times) filter (where times < 0), 0)::bigint,
                coalesce(sum(times) filter (where times > 0), 0)::bigint from differing",
        pair.differing(columns)
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_one(tx).await?)
}

/// Keeps the live tables from being renamed until the comparison is done, and returns the name of their schema. A name
/// that is read before the lock is had may be another's by then.
async fn lock(tx: &mut Link<'_>, schema_oid: u32) -> Result<String, ScratchError> {
    loop {
        let schema = schema_name(tx, schema_oid).await?;
        let names: Vec<String> =
            tables(tx, schema_oid).await?.iter().map(|table| qualified(&schema, &table.name)).collect();
        if !names.is_empty() {
            let lock = format!("lock table {} in access share mode", names.join(", "));
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *tx).await?;
        }
        // Names are looked up as they are now, whatever the transaction's snapshot: by the cast, not by the catalog.
        let still: Option<i64> = sqlx::query_scalar("select to_regnamespace($1)::oid::bigint")
            .bind(quote_ident(&schema))
            .fetch_one(&mut *tx)
            .await?;
        if still == Some(i64::from(schema_oid)) {
            return Ok(schema);
        }
    }
}

/// The schema's name now, not at the time of the snapshot.
async fn schema_name(tx: &mut Link<'_>, schema_oid: u32) -> Result<String, ScratchError> {
    let quoted: String = sqlx::query_scalar("select $1::bigint::oid::regnamespace::text")
        .bind(i64::from(schema_oid))
        .fetch_one(tx)
        .await?;
    if quoted == schema_oid.to_string() {
        return Err(ScratchError::refused(
            format!("the schema of the read model is gone (oid {schema_oid})"),
            "was it dropped, or the version retired meanwhile? `foldd status` shows what there is",
        ));
    }
    // As the cast quotes it, or not.
    Ok(quoted
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .map_or(quoted.clone(), |name| name.replace("\"\"", "\"")))
}

async fn tables(tx: &mut Link<'_>, schema_oid: u32) -> Result<Vec<Table>, ScratchError> {
    let found: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select c.relname::text,
                array(select a.attname::text from pg_attribute a
                      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
         from pg_class c
         where c.relnamespace = $1::bigint::oid and c.relkind in ('r', 'p') and not c.relispartition
         order by c.relname",
    )
    .bind(i64::from(schema_oid))
    .fetch_all(tx)
    .await?;
    Ok(found.into_iter().map(|(name, columns)| Table { name, columns }).collect())
}

/// A misspelt exception would hide nothing, and whoever wrote it would not know.
fn check_ignored(tables: &[Table], ignored: &[(String, String)]) -> Result<(), ScratchError> {
    for (table, column) in ignored {
        let known = tables.iter().any(|known| known.name == *table && known.columns.contains(column));
        if !known {
            let there: Vec<String> =
                tables.iter().map(|table| format!("{} ({})", table.name, table.columns.join(", "))).collect();
            return Err(ScratchError::refused(
                format!("--ignore {table}.{column}: the definition has no such column"),
                format!("it has {}", there.join("; ")),
            ));
        }
    }
    Ok(())
}

async fn count(tx: &mut Link<'_>, table: &str) -> Result<i64, ScratchError> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(tx).await?)
}

fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(table))
}

/// A column as `--ignore` names it: `table.column`.
pub(crate) fn column_of(text: &str) -> Result<(String, String), String> {
    match text.split_once('.') {
        Some((table, column)) if !table.is_empty() && !column.is_empty() => {
            Ok((table.to_owned(), column.to_owned()))
        }
        _ => Err("write table.column".to_owned()),
    }
}
