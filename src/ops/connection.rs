//! Patience with clients, and its end: a client that dawdles must not cost a connection for ever.
//!
//! Three waits are bounded, each from one deadline in the connection itself: for the head of a request, counted from
//! its first byte (trickling does not help), for the next request, and for a client that does not take its answer.
//! While an answer is being made the deadline rests; how long that may take is the router's affair.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// At most so many connections at once, wherever the system allows as many; others wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// At least so many, however little the system allows.
const MIN_CONNECTIONS: usize = 256;
/// Of these, so many are for answers that are made at once: scrapes, probes, looks.
pub(super) const RESERVED: usize = 64;
/// How long to rest when the system has no file handle left for another connection.
const ACCEPT_REST: Duration = Duration::from_millis(500);

/// How many connections there may be: half of the files that this process may open.
pub(super) fn places() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    (files / 2).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// Lets this process open as many files as it may: shells give little, and every client is one.
pub(crate) fn raise_places() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where it is refused, there are fewer places.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte; and for that first byte on a new connection.
    pub(super) head: Duration,
    /// For the next request on the same connection. Longer than scrapes are apart.
    pub(super) idle: Duration,
    /// For making room for more of the answer.
    pub(super) write: Duration,
}

impl Patience {
    const DEFAULT: Self =
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), write: Duration::from_secs(30) };
}

/// A listener whose connections have deadlines and a greatest number.
pub(super) struct PatientListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Patience,
}

impl PatientListener {
    pub(super) fn new(listener: TcpListener, places: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)), patience: Patience::DEFAULT }
    }

    #[cfg(test)]
    pub(super) fn with_patience(listener: TcpListener, patience: Patience) -> Self {
        Self { patience, ..Self::new(listener, MIN_CONNECTIONS) }
    }
}

impl Listener for PatientListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Nobody closes the semaphore, so an error is no case; the connection would merely be uncounted.
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Connection::new(stream, self.patience, place), peer),
                // The client has left already; the next one may be well.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Set by the router once it has the head of a request, cleared by the first byte of the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering(Arc<AtomicBool>);

impl Answering {
    /// The head is complete: the client has done its part.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, PatientListener>> for Answering {
    fn connect_info(stream: IncomingStream<'_, PatientListener>) -> Self {
        stream.io().answering.clone()
    }
}

/// What the deadline of a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitingFor {
    /// The first byte of a request.
    Request,
    /// The rest of its head.
    Head,
    /// Room to write.
    Room,
}

/// A connection with a deadline.
pub(super) struct Connection {
    stream: TcpStream,
    patience: Patience,
    waiting_for: WaitingFor,
    deadline: Pin<Box<Sleep>>,
    answering: Answering,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(stream: TcpStream, patience: Patience, place: Option<OwnedSemaphorePermit>) -> Self {
        // Small answers must not wait for an acknowledgement. If it cannot be set, they do.
        stream.set_nodelay(true).ok();
        Self {
            stream,
            patience,
            waiting_for: WaitingFor::Request,
            deadline: Box::pin(sleep(patience.head)),
            answering: Answering::default(),
            _place: place,
        }
    }

    /// Begins another wait. Asks to be woken at its end at once: nobody may come back to read or write until then.
    fn wait_for(&mut self, cx: &mut Context<'_>, what: WaitingFor, at_most: Duration) {
        self.waiting_for = what;
        self.deadline.as_mut().reset(Instant::now() + at_most);
        let _pending = self.deadline.as_mut().poll(cx);
    }

    /// Nothing can be read or written now: until when does that go on?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.deadline.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.answering.0.store(false, Ordering::Relaxed);
            self.wait_for(cx, WaitingFor::Request, self.patience.idle);
            return written;
        }
        if self.waiting_for != WaitingFor::Room {
            self.wait_for(cx, WaitingFor::Room, self.patience.write);
        }
        self.poll_patience(cx).map(Err)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            if buffer.filled().len() > before && self.waiting_for == WaitingFor::Request {
                let head = self.patience.head;
                self.wait_for(cx, WaitingFor::Head, head);
            }
            return read;
        }
        // Whether the client is still there is watched while it waits for its answer; that is not its delay.
        if self.answering.0.load(Ordering::Relaxed) || self.waiting_for == WaitingFor::Room {
            return Poll::Pending;
        }
        self.poll_patience(cx).map(Err)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
