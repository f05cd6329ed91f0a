//! A standby that is promoted: the same xids, another timeline, another life.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use foldd::embedded::{Options, Server};
use serde_json::Value;

use super::{finish, program};
use crate::fold::TALLY;
use crate::world::World;

/// Gives a copied cluster to whoever runs the servers.
fn hand_over(folder: &Path, like: &Path) {
    let owner = std::fs::metadata(like).expect("it is there");
    let mut folders = vec![folder.to_path_buf()];
    while let Some(path) = folders.pop() {
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("we may give it away");
        if path.is_dir() && !path.is_symlink() {
            folders.extend(
                std::fs::read_dir(&path).expect("it can be read").flatten().map(|entry| entry.path()),
            );
        }
    }
}

#[tokio::test]
async fn a_daemon_follows_to_a_promoted_standby_and_loses_nothing() {
    let mut world = World::alone().await;
    let Some(basebackup) = program(&mut world, "pg_basebackup") else { return };
    world.projection("tally", TALLY);
    let address = world.dir().join("address");
    let name =
        world.url().split('?').next().and_then(|url| url.rsplit('/').next()).expect("a name").to_owned();
    std::fs::write(&address, world.url()).expect("a file can be written");
    let mut command = world.command(&["run"]);
    command.env_remove("DATABASE_URL").env("FOLDD__DATABASE__URL_FILE", &address);
    let daemon = world.daemon_of(command);
    world.seed("order", 200).await;
    world.caught_up("tally").await;

    // Root keeps its home to itself; the copy lies beside the socket, where the server's account may go.
    let socket = world.server().socket_dir().to_path_buf();
    let copy = std::env::temp_dir().join(format!("foldd-standby-{}", std::process::id()));
    let source = format!("host={} port=5432 user=postgres", socket.display());
    finish(
        &basebackup,
        &[
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--pgdata",
            &copy.display().to_string(),
            "--dbname",
            &source,
        ],
    )
    .await;
    hand_over(&copy, &socket);
    // No lower than the primary's.
    let settings = [("max_connections", "200"), ("max_locks_per_transaction", "256")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = Options { data_dir: Some(copy.clone()), durable: false, settings };
    let standby = Server::start(options).await.expect("the standby starts");
    let standby_pool = crate::world::pool(&standby.url(&name)).await;
    let ask = async |sql: &'static str| -> String {
        sqlx::query_scalar(sql).fetch_one(&standby_pool).await.unwrap_or_else(|error| format!("{error}"))
    };

    // A standby can be looked at; it proves nothing and says so.
    let mut looking = world.command(&["status", "--json"]);
    looking.env("DATABASE_URL", standby.url(&name));
    let seen = looking.output().expect("it can be started");
    let status: Value = serde_json::from_slice(&seen.stdout).expect("it is JSON");
    assert_eq!(status["store"]["tier"], 0, "{status}");
    assert!(status["store"]["tier_reason"].to_string().contains("standby"), "{status}");
    let mut examining = world.command(&["doctor", "--json"]);
    examining.env("DATABASE_URL", standby.url(&name));
    let examined = examining.output().expect("it can be started");
    let findings: Value = serde_json::from_slice(&examined.stdout).expect("it is JSON");
    let horizon =
        findings.as_array().and_then(|all| all.iter().find(|finding| finding["check"] == "horizon"));
    assert!(horizon.is_some_and(|horizon| horizon["finding"].to_string().contains("tier 0")), "{findings}");

    world.seed("order", 100).await;
    world
        .eventually("the standby has it all", async || {
            ask("select count(*)::text from es_events").await == "300"
        })
        .await;
    world.server().crash().await.expect("the primary goes down");
    assert_eq!(ask("select pg_promote()::text").await, "true");
    std::fs::write(&address, standby.url(&name)).expect("a file can be written");
    sqlx::query("select es_append('order-' || i, null, null, '{Noted}', array['{}']::jsonb[]) from generate_series(1, 20) i")
        .execute(&standby_pool)
        .await
        .expect("it takes events now");
    world
        .eventually("all is folded where the log is now", async || {
            ask("select sum(n)::text from tally.tally").await == "320"
        })
        .await;
    assert_eq!(ask("select count(*)::text from es_skipped_events()").await, "0");
    world
        .eventually("the timeline is noted", async || ask("select timeline::text from es_meta").await == "2")
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    standby_pool.close().await;
    standby.stop().await.expect("it stops");
    std::fs::remove_dir_all(&copy).expect("the copy can be removed");
}
