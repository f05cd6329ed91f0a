//! Indexes that are created after the load, which is much quicker than to keep them up row by row.
//!
//! What decides about the effect of a statement never waits: unique indexes, constraints, foreign keys. Nor does what a
//! statement may be found to need: an index whose columns stand in any condition of a plan that reads its table. Plans are
//! made while the tables are empty, so it does not count which index they use, only what they look for. Where there is
//! code whose statements nobody sees, nothing waits.

use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::BuildError;
use super::lay::{Laid, children, set_path};
use crate::projection::Projection;
use crate::projection::definition::Body;
use crate::store::Link;

/// What of a plan's node says what rows are looked for, or in which order.
const SOUGHT: [&str; 13] = [
    "Filter",
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "TID Cond",
    "One-Time Filter",
    "Order By",
    "Sort Key",
    "Presorted Key",
    "Group Key",
    "Cache Key",
];

/// An index that may wait as far as the catalogue goes.
#[derive(Debug)]
struct Candidate {
    /// As SQL names it.
    name: String,
    /// `CREATE INDEX …`, with every name qualified.
    definition: String,
    table_name: String,
    columns: Vec<String>,
    /// It has expressions or a condition.
    is_special: bool,
}

/// Drops the indexes that can wait, and returns the statements that create them again.
pub(super) async fn put_off(
    tx: &mut Link<'_>,
    wanted: &Projection,
    schema: &str,
    laid: &Laid,
) -> Result<Vec<String>, BuildError> {
    let extensions = wanted.settings.extension_schemas.as_deref().unwrap_or_default();
    if wanted.definition.body == Body::Rust || has_code(tx, laid.schema_oid, extensions).await? {
        return Ok(Vec::new());
    }
    let before: String =
        sqlx::query_scalar("select current_setting('search_path')").fetch_one(&mut *tx).await?;
    // What is not in the path is qualified.
    set_path(tx, "pg_catalog").await?;
    let candidates = candidates(tx, laid.schema_oid).await?;
    set_path(tx, &before).await?;
    let mut definitions = Vec::new();
    for candidate in candidates.into_iter().filter(|candidate| !candidate.is_sought(&laid.plans, schema)) {
        sqlx::raw_sql(AssertSqlSafe(format!("drop index {}", candidate.name))).execute(&mut *tx).await?;
        definitions.push(candidate.definition);
    }
    Ok(definitions)
}

/// Whether functions or triggers run statements that no plan shows.
async fn has_code(tx: &mut Link<'_>, schema_oid: u32, extensions: &[String]) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select from pg_proc p join pg_language l on l.oid = p.prolang
                        join pg_namespace n on n.oid = p.pronamespace
                        where (n.oid = $1::bigint::oid or n.nspname = any ($2)) and l.lanname not in ('c', 'internal'))
             or exists (select from pg_trigger t join pg_class c on c.oid = t.tgrelid
                        where c.relnamespace = $1::bigint::oid and not t.tgisinternal)",
    )
    .bind(i64::from(schema_oid))
    .bind(extensions)
    .fetch_one(tx)
    .await
}

/// Plain indexes of plain tables that nothing else refers to, and of which the definition says all. A cascade of a foreign
/// key looks for its columns in no plan.
async fn candidates(tx: &mut Link<'_>, schema_oid: u32) -> sqlx::Result<Vec<Candidate>> {
    let rows: Vec<(String, String, String, Vec<String>, bool)> = sqlx::query_as(
        "select format('%I.%I', n.nspname, c.relname) as name, pg_get_indexdef(c.oid) as definition,
                t.relname::text as table_name,
                array(select a.attname::text from pg_attribute a
                      where a.attrelid = t.oid and a.attnum = any (i.indkey)) as columns,
                i.indexprs is not null or i.indpred is not null as is_special
         from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         join pg_index i on i.indexrelid = c.oid
         join pg_class t on t.oid = i.indrelid
         where c.relnamespace = $1::bigint::oid and c.relkind = 'i' and c.reltablespace = 0
           and t.relkind = 'r' and not t.relispartition and not t.relhassubclass
           and i.indisvalid and not i.indisunique and not i.indisprimary and not i.indisexclusion
           and not i.indisclustered and not i.indisreplident
           and not exists (select from pg_inherits h where h.inhrelid in (c.oid, t.oid))
           and not exists (select from pg_constraint k where k.conindid = c.oid)
           and not exists (select from pg_constraint k
                           where k.conrelid = t.oid and k.contype = 'f' and k.conkey && i.indkey::smallint[])
           and not exists (select from pg_depend d
                           where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('x', 'e')
                              or d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)
           and not exists (select from pg_description d
                           where d.classoid = 'pg_class'::regclass and d.objoid = c.oid)
           and not exists (select from pg_attribute a
                           where a.attrelid = c.oid and coalesce(a.attstattarget, -1) <> -1)
         order by c.relname",
    )
    .bind(i64::from(schema_oid))
    .fetch_all(tx)
    .await?;
    let candidate = |(name, definition, table_name, columns, is_special)| Candidate {
        name,
        definition,
        table_name,
        columns,
        is_special,
    };
    Ok(rows.into_iter().map(candidate).collect())
}

impl Candidate {
    /// Whether a statement reads the index's table and looks for something that the index may find. `plans` has those of each
    /// statement, of which a rule makes several.
    fn is_sought(&self, plans: &[Value], schema: &str) -> bool {
        let tops = plans.iter().filter_map(Value::as_array).flatten().map(|plan| &plan["Plan"]);
        tops.filter(|top| self.is_read(top, schema)).any(|top| self.is_named(top))
    }

    fn is_read(&self, node: &Value, schema: &str) -> bool {
        let is_it = node["Node Type"] != "ModifyTable"
            && node["Schema"] == schema
            && node["Relation Name"] == self.table_name.as_str();
        is_it || children(node).any(|child| self.is_read(child, schema))
    }

    /// Too often rather than not: a name may be part of another one, or another table's.
    fn is_named(&self, node: &Value) -> bool {
        let aggregated = (node["Node Type"] == "Aggregate").then_some(&node["Output"]);
        let mut sought = SOUGHT.iter().map(|key| &node[*key]).chain(aggregated).filter(|it| !it.is_null());
        let names = |it: &Value| {
            let text = it.to_string();
            self.columns.iter().any(|column| text.contains(&as_in_plan(column)))
        };
        sought.any(|it| self.is_special || names(it)) || children(node).any(|child| self.is_named(child))
    }
}

/// A column's name as it stands in a plan's JSON, without quotes around it.
fn as_in_plan(column: &str) -> String {
    let quoted = Value::from(column.replace('"', "\"\"")).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
