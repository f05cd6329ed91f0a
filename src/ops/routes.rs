//! What is answered where.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Use};
use super::door::{Door, MAX_BODY, admit};
use super::feed::Feed;
use super::problem::Problem;
use super::verbs::{Order, verb, without_nul};
use super::waits::Waits;
use super::{Faces, looks, openapi, page};
use crate::ledger::status::Status;

/// A status younger than this is new enough to show.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look waits for a fresh status before it takes an older one.
const FRESH_WAIT: Duration = Duration::from_secs(2);
/// How old the status in the answer is, in seconds.
const STATUS_AGE: HeaderName = HeaderName::from_static("x-status-age-seconds");
/// So many may watch at once; each is a page that somebody has open.
pub(super) const MAX_WATCHERS: usize = 128;
/// How often a stream with nothing to say says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Text,
    Html,
    Json,
    Stream,
}

/// Something that can be read.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// What it is, for the OpenAPI document.
    pub(super) does: &'static str,
    pub(super) answer: Answer,
    handler: fn() -> MethodRouter<Open>,
}

/// Declares what can be read: router and OpenAPI document are made from one list.
macro_rules! routes {
    ($($path:literal $answer:ident $handler:path, $does:literal;)+) => {
        /// Everything that can be read.
        pub(super) const ROUTES: &[Route] = &[
            $(Route { path: $path, does: $does, answer: Answer::$answer, handler: || get($handler) },)+
        ];
    };
}

routes! {
    "/" Html page::page, "The page";
    "/livez" Text live, "Whether the process runs";
    "/readyz" Json ready, "Whether the process can do its work, and if not why";
    "/metrics" Text metrics, "Metrics in Prometheus's text format";
    "/api/openapi.json" Json openapi, "This document";
    "/api/status" Json status, "What every projection does, how far it is behind and why";
    "/api/stream" Stream stream, "The status as server-sent events: `status` whenever it was read anew, `stale` while it cannot be";
    "/api/history" Json looks::history, "The last hour of every projection, a sample every 15 s";
    "/api/projections/{name}" Json looks::projection, "One projection: its versions, their definitions, its last hour";
    "/api/projections/{name}/wait" Json looks::wait, "Wait until a projection has applied an event";
    "/api/dead-letters" Json looks::letters, "Parked events";
    "/api/projections/{name}/dead-letters/{position}" Json looks::letter, "One parked event with its data";
    "/api/log" Json looks::log, "What operators did, the newest first";
    "/api/config" Json looks::configuration, "The configuration that is in force, secrets masked";
}

/// What every answer is made from.
#[derive(Clone)]
pub(super) struct Open(Arc<Opened>);

/// What a port has while it is open.
pub(super) struct Opened {
    pub(super) faces: Faces,
    pub(super) door: Door,
    pub(super) desk: Arc<Desk>,
    pub(super) waits: Arc<Waits>,
    pub(super) feed: Arc<Feed>,
    /// Places for those who stay: fewer than there are connections, so that there is always one to scrape with.
    pub(super) room: Semaphore,
    /// Places for those who watch: each may have a whole status on its way.
    pub(super) watchers: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

impl Deref for Open {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.0
    }
}

/// Every route.
pub(super) fn router(opened: Opened) -> Router {
    let door = opened.door.clone();
    let read = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    read.route("/api/projections/{name}/{verb}", post(act))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(door, admit))
        .with_state(Open(Arc::new(opened)))
}

/// Something taken from a request, whose faults are told like everything else.
pub(super) struct Param<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Param<T>
where
    T: FromRequestParts<S, Rejection: Into<Problem>>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        T::from_request_parts(parts, state).await.map(Param).map_err(Into::into)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad(rejection.body_text(), "names are UTF-8, percent-encoded; positions are whole numbers")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(rejection.body_text(), "/api/openapi.json lists the parameters of this path")
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::BODY_TOO_LARGE;
        }
        Self::bad(rejection.body_text(), "send the body as long as Content-Length says")
    }
}

/// The process answers, so it lives. Whether anything else does is asked at `/readyz`.
async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(open): State<Open>) -> Response {
    let readiness = open.faces.readiness.borrow().clone();
    let troubles: Vec<_> = readiness.troubles().collect();
    let Some((_, _, remedy)) = troubles.first() else {
        return Json(json!({ "ready": true, "checks": readiness })).into_response();
    };
    let reasons: Vec<_> = troubles.iter().map(|(name, reason, _)| format!("{name}: {reason}")).collect();
    let error = json!({ "code": "not_ready", "message": reasons.join("; "), "remedy": remedy });
    let body = json!({ "ready": false, "checks": readiness, "error": error });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn metrics(State(open): State<Open>) -> Response {
    let text = open.faces.metrics.render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn openapi() -> Json<Value> {
    Json(openapi::document())
}

/// The status, as fresh as the database gives it. When it does not answer, the last one, and how old that is.
async fn status(State(open): State<Open>) -> Result<Response, Problem> {
    let (at, status) = fresh_status(&open).await?;
    let age = format!("{:.3}", at.elapsed().as_secs_f64());
    Ok(([(STATUS_AGE, age)], Json(&*status)).into_response())
}

/// The last status, once there was time to read it anew.
pub(super) async fn fresh_status(open: &Open) -> Result<(Instant, Arc<Status>), Problem> {
    let mut feed = open.faces.status.clone();
    open.faces.wanted.notify_one();
    let fresh = async {
        feed.wait_for(|seen| seen.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)).await.is_ok()
    };
    // In time or not, what there is now is shown; its age tells the rest.
    timeout(FRESH_WAIT, fresh).await.ok();
    open.faces.status.borrow().clone().ok_or(Problem::NO_STATUS)
}

/// The feed, for as long as the client stays and the process lives. Its events are shared by everybody, whole.
async fn stream(State(open): State<Open>) -> Result<Response, Problem> {
    let place = Arc::clone(&open.watchers).try_acquire_owned().map_err(|_| Problem::TOO_MANY)?;
    let mut told = open.feed.watch();
    // Whoever comes is told at once what the others were told last.
    told.mark_changed();
    let events = unfold((told, open, place), async |(mut told, open, place)| {
        loop {
            let changed = timeout(HEARTBEAT, told.changed());
            let event = match open.stop.run_until_cancelled(changed).await {
                Some(Ok(Ok(()))) => told.borrow_and_update().clone(),
                Some(Err(_)) => Some(Bytes::from_static(b":\n\n")),
                // The process ends, or the feed has.
                None | Some(Ok(Err(_))) => return None,
            };
            if let Some(event) = event {
                return Some((Ok::<_, Infallible>(event), (told, open, place)));
            }
        }
    });
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

/// Carries a verb out. Whoever comes here has shown the token.
async fn act(State(open): State<Open>, request: Request) -> Result<Json<Value>, Problem> {
    let (mut parts, body) = request.into_parts();
    let Param(Path((name, wanted))) =
        Param::<Path<(String, String)>>::from_request_parts(&mut parts, &open).await?;
    let verb = verb(&wanted)?;
    without_nul(&name)?;
    let body = Bytes::from_request(Request::from_parts(parts, body), &open).await?;
    let order = Order::parse(&body, verb)?;
    let mut held = open.desk.take(Use::Acting).await?;
    let done = verb.run(held.link(), &name, &order).await;
    let done = held.back(done).await?;
    tracing::info!(projection = name, verb = verb.name, "done, as asked for over HTTP");
    Ok(Json(done))
}

async fn not_found() -> Problem {
    Problem::NOT_FOUND
}

async fn method_not_allowed() -> Problem {
    Problem::METHOD_NOT_ALLOWED
}
