//! A log that came to another cluster: restored, copied, promoted. Real servers, real dumps.

mod dump;
mod promotion;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fold::TALLY;
use crate::world::{World, roles};

/// A program that comes with PostgreSQL, where it does.
fn program(world: &mut World, name: &str) -> Option<PathBuf> {
    let path = world.server().bin_dir().join(name);
    if !path.exists() {
        eprintln!("skipped: this PostgreSQL comes without {name}");
        return None;
    }
    Some(path)
}

/// Dumps one world's database into an empty one of another server, where the roles are first, as docs/backup.md has it.
async fn copy(from: &mut World, to: &mut World) -> Option<()> {
    let (dump, psql) = (program(from, "pg_dump")?, program(to, "psql")?);
    roles::grant(to.pool()).await;
    let file = from.dir().join("dump.sql");
    finish(&dump, &["--file", &file.display().to_string(), "--dbname", from.url()]).await;
    finish(
        &psql,
        &[
            "--quiet",
            "--no-psqlrc",
            "--set",
            "ON_ERROR_STOP=1",
            "--file",
            &file.display().to_string(),
            to.url(),
        ],
    )
    .await;
    Some(())
}

async fn finish(program: &Path, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output())
        .await
        .expect("its thread ends")
        .expect("it can be started");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
}

/// Uses up transaction ids: each failing block of PL/pgSQL that has written takes one.
async fn grow_older(world: &World, transactions: u32) {
    world
        .execute(&format!(
            "create table if not exists used_up (n int);
             do $$ begin for i in 1..{transactions} loop
                 begin insert into used_up values (i); perform 1 / 0;
                 exception when division_by_zero then null; end;
             end loop; end $$"
        ))
        .await;
}

/// A log of 300 events with a projection that has folded 200 of them and been stopped.
async fn lived_in() -> World {
    let world = World::alone().await;
    grow_older(&world, 3_000).await;
    world.seed("order", 200).await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world
        .eventually("it is noted how far the log was read", async || {
            !world.value("select seen_position from es_meta").await.is_empty()
        })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.seed("order", 100).await;
    world
}

/// The projection's sums, and the log's.
async fn assert_folded(world: &World) {
    world.caught_up("tally").await;
    let sums = "select string_agg(event_type || ' ' || n, ', ' order by event_type) from ";
    assert_eq!(
        world.value(&format!("{sums} tally.tally")).await,
        world.value(&format!("{sums} (select event_type, count(*) n from es_events group by 1) log")).await
    );
    assert_eq!(world.value("select count(*) from es_skipped_events()").await, "0");
}

/// Everything that a rebase must leave as it is.
async fn fingerprint(world: &World) -> String {
    world
        .value(
            "select md5(string_agg(e::text, ';' order by global_position)) || (
                 select string_agg(format('%s %s:%s', subscription_id, last_transaction_id, last_position), ', ')
                 from es_subscriptions)
             from es_events e",
        )
        .await
}
