//! A query of a test, and its rows beside those that are expected.

use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use sqlx::postgres::{PgDatabaseError, PgErrorPosition, PgRow, PgValueFormat};
use sqlx::{AssertSqlSafe, Column, Row, ValueRef};

use super::{Broken, Pages};
use crate::engine::scratch::ScratchError;
use crate::projection::file::Check;
use crate::projection::lexer::tokens;
use crate::store::Link;

/// What stands for a value that is null, as in psql.
const NULL: &str = "";

/// Rows of a query, as cells.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) expected: Vec<Vec<String>>,
    pub(crate) actual: Vec<Vec<String>>,
    /// Whether their order counts.
    pub(crate) ordered: bool,
}

/// Columns and rows of a query, as PostgreSQL prints them; or the line and the message of its error.
pub(super) type Answer = Result<(Vec<String>, Vec<Vec<String>>), (u32, String)>;

/// Asks. Over the simple protocol the server sends texts, whatever the types.
pub(super) async fn ask(tx: &mut Link<'_>, check: &Check) -> Result<Answer, ScratchError> {
    let rows = match sqlx::raw_sql(AssertSqlSafe(check.query.sql.as_str())).fetch_all(&mut *tx).await {
        Ok(rows) => rows,
        Err(error) => {
            let database =
                error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
            let Some(database) = database.filter(|_| !crate::error::is_transient(&error)) else {
                return Err(error.into());
            };
            let into = match database.position() {
                Some(PgErrorPosition::Original(position)) => position.saturating_sub(1),
                Some(PgErrorPosition::Internal { .. }) | None => 0,
            };
            let before = check.query.sql.chars().take(into).filter(|char| *char == '\n').count();
            let line = check.query.line + u32::try_from(before).unwrap_or_default();
            return Ok(Err((line, format!("the query fails: {}", database.message()))));
        }
    };
    let columns = rows.first().map(names).unwrap_or_default();
    let rows = rows.iter().map(cells).collect::<sqlx::Result<_>>()?;
    Ok(Ok((columns, rows)))
}

fn names(row: &PgRow) -> Vec<String> {
    row.columns().iter().map(|column| column.name().to_owned()).collect()
}

fn cells(row: &PgRow) -> sqlx::Result<Vec<String>> {
    (0..row.len())
        .map(|at| {
            let value = row.try_get_raw(at)?;
            if value.is_null() {
                return Ok(NULL.to_owned());
            }
            if value.format() != PgValueFormat::Text {
                return Err(sqlx::Error::Protocol("the server sent a value in its binary form".to_owned()));
            }
            let text = value.as_str().map_err(sqlx::Error::Decode)?;
            // An expectation is one line, without white space around its cells.
            Ok(text.trim().replace('\n', "\\n"))
        })
        .collect()
}

/// What is wrong with the rows of a query; nothing when they are as expected.
pub(super) fn compare(
    check: &Check,
    (columns, actual): (Vec<String>, Vec<Vec<String>>),
    pages: Pages,
) -> Option<Broken> {
    let ordered = is_ordered(&check.query.sql);
    let mut expected: Vec<Vec<String>> = check.expected.iter().map(|row| row.cells.clone()).collect();
    let mut actual = actual;
    if !ordered {
        expected.sort();
        actual.sort();
    }
    if expected == actual {
        return None;
    }
    // The first expectation that is not met, else the query.
    let line = check
        .expected
        .iter()
        .enumerate()
        .find(
            |(nth, row)| {
                if ordered { actual.get(*nth) != Some(&row.cells) } else { !actual.contains(&row.cells) }
            },
        )
        .map_or(check.query.line, |(_, row)| row.line);
    let count = |rows: &[Vec<String>]| match rows.len() {
        1 => "1 row".to_owned(),
        many => format!("{many} rows"),
    };
    let message = if expected.len() == actual.len() {
        format!("the query gives {}, not all as expected", count(&actual))
    } else {
        format!("the query gives {}, expected {}", count(&actual), count(&expected))
    };
    let rows = Some(Rows { columns, expected, actual, ordered });
    Some(Broken { line, pages, message, remedy: None, rows })
}

/// Whether a query says in which order its rows come: an `order by` outside of all parentheses.
fn is_ordered(sql: &str) -> bool {
    let tokens = tokens(sql).unwrap_or_default();
    let mut depth = 0_i32;
    let mut before = false;
    for token in tokens.iter().filter(|token| token.is_significant()) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
        }
        if depth == 0 && before && token.is_word("by") {
            return true;
        }
        before = token.is_word("order");
    }
    false
}

impl Rows {
    /// The columns' names, where rows came that have them.
    pub(crate) fn told_columns(&self) -> String {
        if self.columns.is_empty() { String::new() } else { format!(": {}", self.columns.join(" | ")) }
    }

    /// What differs, line by line: `-` was expected, `+` came.
    pub(crate) fn diff(&self) -> String {
        let lines = |rows: &[Vec<String>]| -> String {
            rows.iter().map(|cells| format!("{}\n", cells.join(" | "))).collect()
        };
        let (expected, actual) = (lines(&self.expected), lines(&self.actual));
        TextDiff::from_lines(&expected, &actual)
            .iter_all_changes()
            .map(|change| {
                let sign = match change.tag() {
                    ChangeTag::Equal => ' ',
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                };
                format!("  {sign} {change}")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::is_ordered;

    #[test]
    fn only_an_order_by_of_the_query_itself_is_an_order_of_its_rows() {
        assert!(is_ordered("select a from t order\n by a"));
        assert!(is_ordered("with w as (select 1) select * from w ORDER BY 1 limit 3"));
        assert!(!is_ordered("select a from t"));
        assert!(!is_ordered("select array_agg(a order by a) from t"));
        assert!(!is_ordered("select a from (select a from t order by a) s"));
        assert!(!is_ordered("select 'order by' from t -- order by a"));
    }
}
