//! What is answered where, and what is refused at the door.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::Faces;
use super::connection::Answering;

/// The page, whole: it loads nothing else. `{{nonce}}` and `{{version}}` stand for what changes.
const PAGE: &str = include_str!("page.html");
/// How long an answer may take to make.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest request body, in bytes. What is posted is a verb and its reason.
const MAX_BODY: usize = 64 << 10;
/// A status younger than this is new enough to show.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look waits for a fresh status before it takes an older one.
const FRESH_WAIT: Duration = Duration::from_secs(2);
/// How old the status in the answer is, in seconds.
const STATUS_AGE: HeaderName = HeaderName::from_static("x-status-age-seconds");

/// Every route. `bound` is the address the port was opened on; it decides who may see data.
pub(super) fn router(faces: Faces, bound: IpAddr) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .route("/", get(page))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Door::new(bound), admit))
        .with_state(faces)
}

/// The process answers, so it lives. Whether anything else does is asked at `/readyz`.
async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(faces): State<Faces>) -> Response {
    let readiness = faces.readiness.borrow().clone();
    let troubles: Vec<_> = readiness.troubles().collect();
    let Some((_, _, remedy)) = troubles.first() else {
        return Json(json!({ "ready": true, "checks": readiness })).into_response();
    };
    let reasons: Vec<_> = troubles.iter().map(|(name, reason, _)| format!("{name}: {reason}")).collect();
    let error = json!({ "code": "not_ready", "message": reasons.join("; "), "remedy": remedy });
    let body = json!({ "ready": false, "checks": readiness, "error": error });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn metrics(State(faces): State<Faces>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], faces.metrics.render()).into_response()
}

/// The status, as fresh as the database gives it. When it does not answer, the last one, and how old that is.
async fn status(State(faces): State<Faces>) -> Result<Response, Problem> {
    let mut feed = faces.status.clone();
    faces.wanted.notify_one();
    let fresh = async {
        feed.wait_for(|seen| seen.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)).await.is_ok()
    };
    // In time or not, what there is now is shown; its age tells the rest.
    timeout(FRESH_WAIT, fresh).await.ok();
    let Some((at, status)) = faces.status.borrow().clone() else {
        return Err(Problem::NO_STATUS);
    };
    let age = format!("{:.3}", at.elapsed().as_secs_f64());
    Ok(([(STATUS_AGE, age)], Json(&*status)).into_response())
}

/// The page, which may run its own script and style and nothing that was smuggled into it.
async fn page() -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = PAGE.replace("{{nonce}}", &nonce).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    ([(CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
}

async fn not_found() -> Problem {
    Problem::NOT_FOUND
}

async fn method_not_allowed() -> Problem {
    Problem::METHOD_NOT_ALLOWED
}

/// Lets a request in, within time and with the headers that every answer carries.
async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(answering)) = request.extensions().get::<ConnectInfo<Answering>>() {
        answering.begin();
    }
    let mut response = match door.check(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match timeout(ANSWER_TIME, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::TOO_SLOW.into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Who is let in: depends on the address that the port was opened on.
#[derive(Debug, Clone, Copy)]
struct Door {
    bound: IpAddr,
}

impl Door {
    fn new(bound: IpAddr) -> Self {
        Self { bound: bound.to_canonical() }
    }

    fn check(self, request: &Request) -> Result<(), Problem> {
        let path = request.uri().path();
        if self.bound.is_loopback() {
            let host =
                request.uri().authority().map(Authority::as_str).or_else(|| only_host(request.headers()));
            if !host.is_some_and(|host| self.is_own_name(host)) {
                return Err(Problem::FOREIGN_HOST);
            }
        } else if path == "/" || path == "/api" || path.starts_with("/api/") {
            return Err(Problem::NEEDS_TOKEN);
        }
        if announced_body(request.headers()) > MAX_BODY {
            return Err(Problem::BODY_TOO_LARGE);
        }
        Ok(())
    }

    /// Whether a `Host` header means this machine. A number cannot be pointed elsewhere, and a name other than
    /// `localhost` can; the port is of no interest, since a tunnel may have another one.
    fn is_own_name(self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let number = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_loopback = number.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        !host.contains('@') && (is_loopback || name.eq_ignore_ascii_case("localhost"))
    }
}

fn only_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

fn announced_body(headers: &HeaderMap) -> usize {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// An answer that is no success: `{"error":{"code","message","remedy"}}`. Codes are a contract, texts are not.
#[derive(Debug, Clone, Copy)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    remedy: &'static str,
}

impl Problem {
    const NOT_FOUND: Self = Self {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        message: "there is nothing at this path",
        remedy: "there is / for people, /api/status for programs, /metrics, /livez and /readyz",
    };
    const METHOD_NOT_ALLOWED: Self = Self {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "method_not_allowed",
        message: "this path does not take this method",
        remedy: "use one of those that the Allow header names",
    };
    const FOREIGN_HOST: Self = Self {
        status: StatusCode::MISDIRECTED_REQUEST,
        code: "foreign_host",
        message: "the Host header does not mean this machine",
        remedy: "use http://localhost or http://127.0.0.1; a proxy in front must send one of these as Host",
    };
    const NEEDS_TOKEN: Self = Self {
        status: StatusCode::FORBIDDEN,
        code: "needs_token",
        message: "page and api answer on a loopback address only, and this port is open on another one",
        remedy: "ask on the machine itself: foldd status --watch; or set ops.listen = \"127.0.0.1:3653\" and reach \
                 it through a tunnel: ssh -L, kubectl port-forward",
    };
    const BODY_TOO_LARGE: Self = Self {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "body_too_large",
        message: "the request body is longer than 64 KiB",
        remedy: "send less; events come in through foldd import or the event store",
    };
    const NO_STATUS: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "no_status",
        message: "the status could not be read from the database yet",
        remedy: "ask /readyz what is wrong, and try again",
    };
    const TOO_SLOW: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "too_slow",
        message: "the answer took too long to make",
        remedy: "try again; if it stays so, the process has too little processor time",
    };
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.message, "remedy": self.remedy });
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::Door;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let door = Door::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        for host in
            ["localhost", "LocalHost:3653", "127.0.0.1", "127.0.0.1:3653", "[::1]", "[::1]:80", "127.0.0.2"]
        {
            assert!(door.is_own_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:3653",
            "10.0.0.1",
            "localhost@evil.example",
            "evil.example@localhost",
            "[::1",
            "0.0.0.0",
        ] {
            assert!(!door.is_own_name(host), "{host}");
        }
    }
}
