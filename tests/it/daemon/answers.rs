//! Commits whose answers get lost: a proxy before PostgreSQL swallows them and cuts the connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::pooler::bouncer::Bouncer;
use crate::world::World;

/// Answers that a worker's connection gets while it is opened.
const OPENING: u32 = 6;
/// One answer in so many is lost. A batch through a pooler takes four.
const LOST: u32 = 5;
const LOST_BEFORE_A_POOLER: u32 = 20;

/// What the proxy does to answers.
struct Losses {
    one_in: u32,
    /// So many so far.
    lost: AtomicU32,
    /// From now on none, so that a backlog of whatever length is folded in time.
    are_over: AtomicBool,
}

impl Losses {
    fn hit(&self) -> bool {
        let hit = !self.are_over.load(Ordering::Relaxed) && fastrand::u32(..self.one_in) == 0;
        if hit {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }
}

/// Passes bytes on between a client and the server. What a worker is told is lost now and then.
async fn pass_on(mut client: UnixStream, server: PathBuf, losses: Arc<Losses>) -> std::io::Result<()> {
    let mut server = UnixStream::connect(server).await?;
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut is_worker, mut answers) = (false, 0_u32);
    loop {
        tokio::select! {
            size = client.read(&mut asked) => {
                let asked = &asked[..size?];
                if asked.is_empty() {
                    return Ok(());
                }
                is_worker |= asked.windows(12).any(|window| window == b"foldd worker");
                server.write_all(asked).await?;
            }
            size = server.read(&mut answered) => {
                let answered = &answered[..size?];
                if answered.is_empty() {
                    return Ok(());
                }
                answers += 1;
                if is_worker && answers > OPENING && losses.hit() {
                    return Ok(());
                }
                client.write_all(answered).await?;
            }
        }
    }
}

/// Runs the daemon behind a proxy that loses answers, in front of this socket, until many are lost.
async fn nothing_is_repeated_or_forgotten(world: &World, server_dir: &str, port: &str, one_in: u32) {
    world.projection("audit", AUDIT);
    let socket = format!(".s.PGSQL.{port}");
    let (server, proxy_dir) = (PathBuf::from(server_dir).join(&socket), world.dir().join("proxy"));
    std::fs::create_dir(&proxy_dir).expect("a folder can be made");
    let listener = UnixListener::bind(proxy_dir.join(&socket)).expect("a socket can be made");
    let losses = Arc::new(Losses { one_in, lost: AtomicU32::new(0), are_over: AtomicBool::new(false) });
    let counted = Arc::clone(&losses);
    let proxy = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, server.clone(), Arc::clone(&counted)));
        }
    });
    let encoded = |path: &str| path.replace('/', "%2F");
    let proxy_dir = proxy_dir.display().to_string();
    let url = world.url().replace(&encoded(server_dir), &encoded(&proxy_dir)).replace(server_dir, &proxy_dir);
    assert_ne!(url, world.url());

    let load = Load::start(world);
    let daemon = world.daemon_with(&[("DATABASE_URL", &url), ("FOLDD__DAEMON__MAX_PAGE_EVENTS", "20")]);
    world.eventually("answers got lost", async || losses.lost.load(Ordering::Relaxed) >= 15).await;
    moves_on(world, 50).await;
    load.stop().await;
    losses.are_over.store(true, Ordering::Relaxed);
    audit_is_exact(world).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    proxy.abort();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_neither_repeated_nor_forgotten() {
    let world = World::new().await;
    let server_dir = world.value("select current_setting('unix_socket_directories')").await;
    let port = world.value("select current_setting('port')").await;
    nothing_is_repeated_or_forgotten(&world, &server_dir, &port, LOST).await;
}

#[tokio::test]
async fn nor_is_one_whose_answer_was_lost_before_a_pooler() {
    let mut world = World::alone().await;
    let Some(bouncer) = Bouncer::before(&mut world, "").await else { return };
    let (dir, port) = bouncer.socket();
    nothing_is_repeated_or_forgotten(&world, &dir, &port, LOST_BEFORE_A_POOLER).await;
}
