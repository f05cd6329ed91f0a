//! A link between clients and the server that can be hurt: a TCP proxy on loopback before the server's
//! socket.
//!
//! Bytes that are held back are delivered late, as a network does that sends again what got lost: also those
//! of a client that has hung up meanwhile. So a commit that was given up can still get through, which is the
//! point.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

mod wire;

/// What the link is like at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weather {
    pub(super) delay: Duration,
    pub(super) is_server_deaf: bool,
    pub(super) is_client_deaf: bool,
    /// How often all connections were reset.
    pub(super) resets: u64,
}

/// What the link does with the commits that pass next.
#[derive(Debug, Default)]
struct Ambush {
    /// So many get no answer.
    lose: AtomicU32,
    lost: AtomicU32,
    /// Of so many the session is terminated.
    terminate: AtomicU32,
    open: AtomicUsize,
}

/// A link.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    ambush: Arc<Ambush>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A link to the server at this socket. Sessions that are to be terminated are named to `victims`.
    pub(super) async fn before(server: PathBuf, victims: mpsc::UnboundedSender<i32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let (weather, forecast) = watch::channel(Weather::default());
        let ambush = Arc::new(Ambush::default());
        let lurking = Arc::clone(&ambush);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let link = Link {
                    server: server.clone(),
                    weather: forecast.clone(),
                    ambush: Arc::clone(&lurking),
                    victims: victims.clone(),
                };
                tokio::spawn(link.carry(client));
            }
        });
        Self { port, weather, ambush, task }
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// The next commits get no answer. Returns how many of the last call were still waited for.
    pub(super) fn lose_answers(&self, commits: u32) -> u32 {
        self.ambush.lose.swap(commits, Ordering::SeqCst)
    }

    /// The sessions of the next commits are terminated; likewise.
    pub(super) fn terminate(&self, commits: u32) -> u32 {
        self.ambush.terminate.swap(commits, Ordering::SeqCst)
    }

    /// How many answers to commits it has lost.
    pub(super) fn lost(&self) -> u32 {
        self.ambush.lost.load(Ordering::SeqCst)
    }

    /// How many clients are connected.
    pub(super) fn open(&self) -> usize {
        self.ambush.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What either way of a connection must know of the other.
#[derive(Debug, Default)]
struct Session {
    answer_is_lost: AtomicBool,
    /// Of the server's process; 0 while it is not known.
    process_id: AtomicI32,
}

/// One connection through the link.
struct Link {
    server: PathBuf,
    weather: watch::Receiver<Weather>,
    ambush: Arc<Ambush>,
    victims: mpsc::UnboundedSender<i32>,
}

impl Link {
    async fn carry(self, mut client: TcpStream) {
        self.ambush.open.fetch_add(1, Ordering::SeqCst);
        // A server that is away refuses, and so do we.
        if let Ok(mut server) = UnixStream::connect(&self.server).await {
            let is_reset = {
                let (from_client, to_client) = client.split();
                let (from_server, to_server) = server.split();
                let session = Session::default();
                tokio::select! {
                    _ = self.up(from_client, to_server, &session) => false,
                    _ = self.down(from_server, to_client, &session) => false,
                    () = self.reset() => true,
                }
            };
            if is_reset {
                let _ = client.set_zero_linger();
            }
        }
        drop(client);
        self.ambush.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Carries what the client says, and looks for commits in it.
    async fn up(
        &self,
        mut client: impl AsyncRead + Unpin,
        mut server: impl AsyncWrite + Unpin,
        session: &Session,
    ) -> std::io::Result<()> {
        let mut frontend = wire::Frontend::default();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let size = client.read(&mut buffer).await?;
            self.wait(|weather| weather.is_server_deaf).await;
            if size == 0 {
                return Ok(());
            }
            let said = &buffer[..size];
            let commits = frontend.hear(said);
            if commits && count_down(&self.ambush.lose) {
                session.answer_is_lost.store(true, Ordering::SeqCst);
            }
            server.write_all(said).await?;
            if commits && count_down(&self.ambush.terminate) {
                let _ = self.victims.send(session.process_id.load(Ordering::SeqCst));
            }
        }
    }

    /// Carries what the server says, unless it is the answer to a commit that is to be lost.
    async fn down(
        &self,
        mut server: impl AsyncRead + Unpin,
        mut client: impl AsyncWrite + Unpin,
        session: &Session,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut opening = Vec::new();
        loop {
            let size = server.read(&mut buffer).await?;
            if session.answer_is_lost.load(Ordering::SeqCst) {
                self.ambush.lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            let said = &buffer[..size];
            if session.process_id.load(Ordering::SeqCst) == 0 {
                opening.extend_from_slice(said);
                let found = wire::process_id(&opening).unwrap_or_default();
                session.process_id.store(found, Ordering::SeqCst);
            }
            self.wait(|weather| weather.is_client_deaf).await;
            if size == 0 {
                return Ok(());
            }
            client.write_all(said).await?;
        }
    }

    /// Waits until the link carries this way, and for its delay.
    async fn wait(&self, is_deaf: impl Fn(&Weather) -> bool) {
        let mut weather = self.weather.clone();
        let delay = weather.wait_for(|weather| !is_deaf(weather)).await.map(|weather| weather.delay);
        if let Ok(delay) = delay
            && !delay.is_zero()
        {
            tokio::time::sleep(delay).await;
        }
    }

    /// Waits until all connections are reset.
    async fn reset(&self) {
        let mut weather = self.weather.clone();
        let before = weather.borrow().resets;
        if weather.wait_for(|weather| weather.resets > before).await.is_err() {
            pending().await
        }
    }
}

fn count_down(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
