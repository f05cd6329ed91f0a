//! Conditions of the database: each is named with its remedy, and ends a verb with the right code; the daemon waits where
//! waiting helps, and says clearly where it does not.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use crate::world::{Daemon, World};

const VERBS: [&[&str]; 7] = [
    &["status"],
    &["lag"],
    &["append", "order-1", "Placed", "{}"],
    &["import", "one.jsonl"],
    &["export"],
    &["check"],
    &["migrate"],
];

/// Those of them that change nothing and need no certain horizon.
const LOOKING: [&str; 2] = ["status", "lag"];

const TALLY: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table tally (event_type text primary key, n bigint not null);\n-- @batch\n\
    insert into tally select event_type, count(*) from batch group by 1\n\
    on conflict (event_type) do update set n = tally.n + excluded.n;\n";

/// A world with a projection and an input.
fn furnished(world: World) -> World {
    world.projection("tally", TALLY);
    std::fs::write(
        world.dir().join("one.jsonl"),
        "{\"stream_id\":\"order-9\",\"event_type\":\"Placed\",\"data\":1}\n",
    )
    .expect("a file");
    world
}

/// Runs every verb but the excepted ones: each fails with this code and says all of this.
async fn all_say(world: &World, except: &[&str], code: i32, said: &[&str]) {
    for verb in VERBS.iter().filter(|verb| !except.contains(&verb[0])) {
        says(world, verb, code, said).await;
    }
}

async fn says(world: &World, verb: &[&str], code: i32, said: &[&str]) {
    let done = world.foldd(verb).await;
    for said in said {
        assert!(done.err.contains(said), "{verb:?} says {said}: {} {}", done.out, done.err);
    }
    assert_eq!(done.code, code, "{verb:?}: {} {}", done.out, done.err);
}

/// Waits until the daemon has said something.
async fn logged(world: &World, daemon: &Daemon, said: &str) {
    world.eventually(&format!("the daemon says: {said}"), async || daemon.log().contains(said)).await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_named_and_waited_for() {
    let mut world = furnished(World::alone().await);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.server().crash().await.expect("it can be crashed");
    all_say(&world, &[], 1, &["cannot reach postgres://foldd_", "is PostgreSQL running there"]).await;
    let late = world.daemon();
    logged(&world, &late, "the database is not ready").await;
    logged(&world, &late, "is PostgreSQL running there").await;
    world.server().restart().await.expect("it can be started again");
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert_eq!(late.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let world = furnished(World::new().await);
    let name = world.value("select current_database()").await;
    world.pool().close().await;
    let gone = World::bare().await;
    gone.execute(&format!("drop database {name} with (force)")).await;
    let message = format!("database \"{name}\" does not exist; create it with createdb");
    all_say(&world, &[], 1, &[&message]).await;
    let daemon = world.daemon();
    logged(&world, &daemon, "createdb").await;
    assert_eq!(daemon.ended().await.code(), Some(1));
}

#[tokio::test]
async fn a_read_only_database_can_be_looked_at_and_is_waited_for() {
    let world = furnished(World::new().await);
    world.append("order-1", "Placed", "{}").await;
    let name = world.value("select current_database()").await;
    world.execute(&format!("alter database {name} set default_transaction_read_only = on")).await;
    let said = ["read-only transaction", "default_transaction_read_only"];
    for verb in VERBS {
        match verb[0] {
            "status" | "lag" | "export" | "migrate" => {
                let done = world.foldd(verb).await;
                assert_eq!(done.code, 0, "{verb:?}: {}", done.err);
            }
            "check" => assert_ne!(world.foldd(verb).await.code, 0),
            _ => says(&world, verb, 1, &said).await,
        }
    }
    let daemon = world.daemon();
    logged(&world, &daemon, "default_transaction_read_only").await;
    // The session of the test was there before.
    world.execute(&format!("alter database {name} reset default_transaction_read_only")).await;
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_everybody() {
    let world = furnished(World::new().await);
    world.execute("insert into es_migrations (version, name, checksum) values (999, 'future', '')").await;
    all_say(&world, &[], 1, &["schema version 999", "run a newer foldd"]).await;
    let daemon = world.daemon();
    logged(&world, &daemon, "run a newer foldd").await;
    assert_eq!(daemon.ended().await.code(), Some(1));
}

#[tokio::test]
async fn a_missing_index_is_refused_by_whoever_works_and_told_by_whoever_looks() {
    let world = furnished(World::new().await);
    world.execute("drop index es_events_order_idx").await;
    let said = [
        "index es_events_order_idx of es_events is missing",
        "create index concurrently es_events_order_idx on es_events (transaction_id, global_position)",
    ];
    all_say(&world, &["status", "lag"], 1, &said).await;
    says(&world, &["status"], 0, &["warning: index es_events_order_idx"]).await;
    says(&world, &["lag"], 0, &["warning: index es_events_order_idx"]).await;
    let daemon = world.daemon();
    logged(&world, &daemon, said[1]).await;
    assert_eq!(daemon.ended().await.code(), Some(1));

    // It is known by its columns, and by its being whole.
    world
        .execute(
            "create index another on es_events (transaction_id, global_position) where global_position > 9",
        )
        .await;
    all_say(&world, &["status", "lag"], 1, &said).await;
    world.execute("create index whole on es_events (transaction_id, global_position)").await;
    says(&world, &["check"], 0, &[]).await;
    world.execute("drop index es_events_event_id_key; create index on es_events (event_id)").await;
    says(&world, &["check"], 1, &["create unique index concurrently es_events_event_id_key"]).await;
}

#[tokio::test]
async fn a_sequence_with_a_cache_is_refused() {
    let world = furnished(World::new().await);
    world.execute("alter sequence es_events_global_position_seq cache 50").await;
    let said = [
        "sequence es_events_global_position_seq has a cache of 50",
        "alter sequence es_events_global_position_seq cache 1",
    ];
    all_say(&world, &["status", "lag"], 1, &said).await;
    says(&world, &["status"], 0, &said).await;
    let daemon = world.daemon();
    logged(&world, &daemon, said[1]).await;
    assert_eq!(daemon.ended().await.code(), Some(1));
    world.execute("alter sequence es_events_global_position_seq cache 1").await;
    says(&world, &["append", "order-1", "Placed", "{}"], 0, &[]).await;
}

/// The world's database as another role sees it.
fn as_role(world: &World, verb: &[&str], role: &str) -> std::process::Output {
    let mut command = world.command(verb);
    command.env("DATABASE_URL", world.url().replace("postgres://postgres@", &format!("postgres://{role}@")));
    command.stdin(std::process::Stdio::null()).output().expect("it starts")
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let world = furnished(World::new().await);
    let role = format!("poor_{}", world.value("select current_database()").await);
    world.execute(&format!("create role {role} login")).await;
    let remedy = "have the owner grant this role what is named here";
    let all = |said: &[&str], except: &[&str]| {
        for verb in VERBS.iter().filter(|verb| !except.contains(&verb[0])) {
            let output = as_role(&world, verb, &role);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{verb:?}: {text}");
            assert!(said.iter().all(|said| text.contains(said)), "{verb:?}: {text}");
        }
        let output = as_role(&world, &["run"], &role);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "run: {text}");
    };
    all(&["permission denied for table es_migrations", remedy], &[]);
    // It may look at the log and write nothing.
    world.execute(&format!("grant select on all tables in schema public to {role}")).await;
    all(&["permission denied for", remedy], &["status", "lag", "export", "check", "migrate"]);
    // It does not even see the schema.
    world.execute("revoke usage on schema public from public").await;
    all(&["the store is in schema public", "grant usage on schema public"], &["migrate"]);
    world
        .execute(&format!("grant usage on schema public to public; drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn a_role_that_may_not_build_halts_what_is_to_be_built_and_folds_the_rest() {
    let world = furnished(World::new().await);
    let name = world.value("select current_database()").await;
    let role = format!("folder_{name}");
    // All that folding takes, and a projection that is there already: this role's own.
    world
        .execute(&format!(
            "create role {role} login; grant all on all tables in schema public, foldd, foldd_parking to {role};
             grant all on all sequences in schema public to {role}; grant usage, create on schema foldd, foldd_parking to {role};
             grant create on database {name} to {role}"
        ))
        .await;
    let url = world.url().replace("postgres://postgres@", &format!("postgres://{role}@"));
    let daemon = world.daemon_with(&[("DATABASE_URL", &url)]);
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.execute(&format!("revoke create on database {name} from {role}")).await;
    world.projection("late", TALLY);
    let output = as_role(&world, &["check"], &role);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("permission denied for database") && said.contains("have the owner grant"),
        "{said}"
    );
    let daemon = world.daemon_with(&[("DATABASE_URL", &url)]);
    let error = world.halted("late").await;
    assert_eq!(error["sqlstate"], "42501", "{error}");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("permission denied for database")),
        "{error}"
    );
    assert!(error["remedy"].as_str().is_some_and(|text| text.contains("have the owner grant")), "{error}");
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

#[tokio::test]
async fn a_library_says_what_is_wrong_with_its_database_and_whether_to_try_again() {
    let mut world = World::alone().await;
    let store = world.store();
    let said = async |what: &str, is_retryable: bool| {
        let error = store.stream_exists("order-1").await.expect_err(what);
        assert!(foldd::error::chain(&error).contains(what), "{what}: {error:?}");
        assert_eq!(error.is_retryable(), is_retryable, "{what}: {error:?}");
    };
    world.execute("alter table es_streams rename to moved").await;
    said("\"es_streams\" does not exist", false).await;
    world.execute("alter table moved rename to es_streams").await;
    world.execute("insert into es_migrations (version, name, checksum) values (999, 'future', '')").await;
    let newer = store.migrate().await.expect_err("it is newer");
    assert!(matches!(newer, foldd::EventStoreError::NewerSchema { .. }), "{newer:?}");
    world.server().crash().await.expect("it can be crashed");
    let gone = store.stream_exists("order-1").await.expect_err("it is gone");
    assert!(gone.is_retryable(), "{gone:?}");
    world.server().restart().await.expect("it can be started again");
    assert!(!store.stream_exists("order-1").await.expect("the pool comes back by itself"));
}

#[tokio::test]
async fn when_connections_run_out_that_is_said_and_waited_for() {
    let world = furnished(
        World::alone_with(&[("max_connections", "12"), ("superuser_reserved_connections", "0")]).await,
    );
    let options: PgConnectOptions = world.url().parse().expect("the URL is right");
    let mut taken: Vec<PgConnection> = Vec::new();
    while let Ok(conn) = options.connect().await {
        taken.push(conn);
    }
    all_say(&world, &[], 1, &["too many clients", "raise max_connections"]).await;
    let daemon = world.daemon();
    logged(&world, &daemon, "raise max_connections").await;
    drop(taken);
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_standby_is_named_as_one() {
    let mut world = furnished(World::alone().await);
    world.append("order-1", "Placed", "{}").await;
    let Some(standby) = Standby::of(&mut world).await else { return };
    let mut url = world.url().to_owned();
    url.push_str("&application_name=x");
    let url = url.replace(&standby.primary, &standby.dir.display().to_string());
    let run = |verb: &[&str]| {
        let mut command = world.command(verb);
        command.env("DATABASE_URL", &url).stdin(std::process::Stdio::null()).output().expect("it starts")
    };
    for verb in VERBS {
        let output = run(verb);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // Whoever only looks may look.
        let code = if LOOKING.contains(&verb[0]) { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{verb:?}: {text}");
        assert!(text.contains("in recovery, a standby: connect to the primary"), "{verb:?}: {text}");
    }
    let daemon = world.daemon_with(&[("DATABASE_URL", &url)]);
    logged(&world, &daemon, "connect to the primary, or promote this one").await;
    standby.promote();
    world
        .eventually("the daemon works on the promoted server", async || {
            String::from_utf8_lossy(&run(&["status"]).stdout).contains("live")
        })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

/// A hot standby of a world's server, streaming from it.
struct Standby {
    dir: std::path::PathBuf,
    data: std::path::PathBuf,
    pg_ctl: std::path::PathBuf,
    primary: String,
    account: (u32, u32),
}

impl Standby {
    async fn of(world: &mut World) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;

        let server = world.server();
        let (primary, bin) = (server.socket_dir().to_path_buf(), server.bin_dir().to_path_buf());
        if !bin.join("pg_basebackup").exists() {
            eprintln!("skipped: this PostgreSQL has no pg_basebackup");
            return None;
        }
        let owner = std::fs::metadata(&primary).expect("the socket's folder");
        let dir = std::env::temp_dir().join(format!("fs{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        std::os::unix::fs::chown(&dir, Some(owner.uid()), Some(owner.gid())).expect("it can be handed over");
        let standby = Self {
            data: dir.join("data"),
            pg_ctl: bin.join("pg_ctl"),
            primary: primary.display().to_string(),
            account: (owner.uid(), owner.gid()),
            dir,
        };
        let data = standby.data.display().to_string();
        standby.command(
            &bin.join("pg_basebackup"),
            &["-h", &standby.primary, "-U", "postgres", "-D", &data, "-R", "-c", "fast"],
        );
        let options = format!(
            "-c listen_addresses= -k {} -p 5432 -c max_connections=200 -c max_locks_per_transaction=256 -c max_prepared_transactions=10",
            standby.dir.display()
        );
        let log = standby.dir.join("log").display().to_string();
        standby.command(&standby.pg_ctl, &["-D", &data, "-w", "-o", &options, "-l", &log, "start"]);
        Some(standby)
    }

    fn command(&self, program: &std::path::Path, args: &[&str]) {
        use std::os::unix::process::CommandExt;

        let mut command = std::process::Command::new(program);
        command.args(args).current_dir(&self.dir).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).uid(self.account.0).gid(self.account.1);
        let status = command.status().expect("it starts");
        assert!(
            status.success(),
            "{program:?} {args:?}: {}",
            std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
        );
    }

    fn promote(&self) {
        self.command(&self.pg_ctl, &["-D", &self.data.display().to_string(), "-w", "promote"]);
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.command(
            &self.pg_ctl,
            &["-D", &self.data.display().to_string(), "-w", "-m", "immediate", "stop"],
        );
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
