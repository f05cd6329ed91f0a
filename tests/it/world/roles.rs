//! Who does what in a world. Its log belongs to the owner's role, and daemons and verbs run with the least that
//! `deploy/roles.sql` gives them, so that every test proves that it is enough. Tests themselves are superusers.

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::Mutex;

use foldd::EventStore;

const SCRIPT: &str = include_str!("../../../deploy/roles.sql");

/// Roles are the server's, and most worlds share one: two scripts at once would meet in the same rows.
static ALONE: Mutex<()> = Mutex::const_new(());

/// As whom a command line logs in.
pub(crate) fn role_of(args: &[&str]) -> &'static str {
    let verb = |verbs: &[&str]| args.iter().any(|arg| verbs.contains(arg));
    if verb(&["append", "import", "export"]) {
        "foldd_append"
    } else if verb(&["migrate", "rebase"]) {
        "foldd_owner"
    } else if verb(&["status", "lag", "wait", "log", "doctor"])
        || args.first() == Some(&"dead-letters") && matches!(args.get(1), Some(&"list" | &"show"))
    {
        "foldd_monitor"
    } else {
        "foldd_daemon"
    }
}

/// The address as this role has it. Whoever comes another way than the harness's is let be.
pub(crate) fn as_role(url: &str, role: &str) -> String {
    url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
}

/// Runs the script that operators run.
pub(crate) async fn grant(pool: &PgPool) {
    let _alone = ALONE.lock().await;
    sqlx::raw_sql(AssertSqlSafe(SCRIPT)).execute(pool).await.expect("the script of roles can be run");
}

/// What the steps of docs/deploying.md do: the roles, the schema by its owner, and what the schema needs granted.
pub(super) async fn migrate(url: &str, pool: &PgPool) {
    grant(pool).await;
    let options = as_role(url, "foldd_owner").parse().expect("the URL is right");
    let owner = PgPoolOptions::new().max_connections(2).connect_with(options);
    let owner = owner.await.expect("the owner may log in");
    EventStore::new(owner.clone()).migrate().await.expect("a new database can be migrated");
    owner.close().await;
    grant(pool).await;
}
