//! How it starts, and how it says that it cannot.

use std::process::{Command, Stdio};

use crate::fold::TALLY;
use crate::world::World;

/// The exit code and what was said, of a daemon that should end by itself.
async fn run(mut command: Command) -> (Option<i32>, String) {
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the command's thread ends")
        .expect("the binary can be started");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn without_a_database_it_refuses_and_says_what_to_do() {
    let world = World::bare().await;
    let mut command = world.command(&["run"]);
    command.env_remove("DATABASE_URL");
    let (code, said) = run(command).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("DATABASE_URL") && said.contains("--embedded"), "{said}");
}

#[tokio::test]
async fn an_empty_database_is_migrated_first() {
    let world = World::bare().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn what_waiting_cannot_mend_ends_it() {
    let world = World::new().await;
    let socket = world.url().to_owned();
    let database =
        socket.split('?').next().and_then(|url| url.rsplit('/').next()).expect("the URL names a database");
    for (wrong, says) in [
        (socket.replace(database, "no_such_database"), "no_such_database"),
        (socket.replace("postgres@", "nobody_known@"), "nobody_known"),
    ] {
        assert_ne!(wrong, socket);
        let mut command = world.command(&["run"]);
        command.env("DATABASE_URL", &wrong);
        let (code, said) = run(command).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_password_ends_it_and_is_not_repeated_to_anybody() {
    let world = World::alone().await;
    world.execute("create role locked login superuser password 'right'").await;
    let file = world.value("select current_setting('hba_file')").await;
    let rules = std::fs::read_to_string(&file).expect("the rules can be read");
    std::fs::write(&file, format!("local all locked scram-sha-256\n{rules}"))
        .expect("the rules can be written");
    world.execute("select pg_reload_conf()").await;
    let url = |password: &str| world.url().replace("postgres@", &format!("locked:{password}@"));
    world
        .eventually("the rules are in force", async || sqlx::PgPool::connect(&url("other")).await.is_err())
        .await;
    let mut command = world.command(&["run"]);
    command.env("DATABASE_URL", url("wr0ngsecret"));
    let (code, said) = run(command).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("wr0ngsecret"), "{said}");
    let done = world.foldd(&["status"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let right = url("right");
    world.projection("tally", TALLY);
    let daemon = world.daemon_with(&[("DATABASE_URL", &right)]);
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let socket_dir = world.value("select current_setting('unix_socket_directories')").await;
    let later = world.dir().join("socket");
    let encoded = |path: &str| path.replace('/', "%2F");
    let url = world.url().replace(&socket_dir, &later.display().to_string());
    let url = url.replace(&encoded(&socket_dir), &encoded(&later.display().to_string()));
    assert_ne!(url, world.url());
    let daemon = world.daemon_with(&[("DATABASE_URL", &url)]);
    daemon.says("the database is not ready").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert_eq!(daemon.get("/readyz").await.0, 503);
    std::os::unix::fs::symlink(&socket_dir, &later).expect("the server appears");
    world.caught_up("tally").await;
    world.eventually("it is ready", async || daemon.get("/readyz").await.0 == 200).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_taken_port_is_said_with_a_remedy() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has an address").to_string();
    let mut command = world.command(&["run"]);
    command.env("FOLDD__OPS__LISTEN", &address);
    let (code, said) = run(command).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("ops.listen"), "{said}");
}
