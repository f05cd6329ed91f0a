//! Who is let in, for how long, and with what headers an answer leaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::connection::Answering;
use super::problem::Problem;
use super::waits::MAX_WAIT;

/// How long an answer may take to make.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest request body, in bytes. What is posted is a verb and its reason.
pub(super) const MAX_BODY: usize = 64 << 10;

/// Tells the token as it is now; `None` when none is configured. An error is for the log.
pub(crate) type TokenSource = Arc<dyn Fn() -> Result<Option<SecretString>, String> + Send + Sync>;

/// Who is let in: depends on the address that the port was opened on, and on the token.
#[derive(Clone)]
pub(super) struct Door {
    bound: IpAddr,
    token: TokenSource,
}

/// Lets a request in, within time and with the headers that every answer carries.
pub(super) async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(answering)) = request.extensions().get::<ConnectInfo<Answering>>() {
        answering.begin();
    }
    // A wait has a time of its own, which ends before this one.
    let is_wait = request.uri().path().ends_with("/wait");
    let at_most = if is_wait { MAX_WAIT + ANSWER_TIME } else { ANSWER_TIME };
    let mut response = match door.check(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match timeout(at_most, next.run(request)).await {
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

impl Door {
    pub(super) fn new(bound: IpAddr, token: TokenSource) -> Self {
        Self { bound: bound.to_canonical(), token }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let path = request.uri().path();
        let (is_page, is_data) = (path == "/", path == "/api" || path.starts_with("/api/"));
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let is_local = self.bound.is_loopback();
        if is_local {
            let host =
                request.uri().authority().map(Authority::as_str).or_else(|| only_host(request.headers()));
            if !host.is_some_and(is_own_name) {
                return Err(Problem::FOREIGN_HOST);
            }
        }
        if is_data && !is_read {
            self.check_token(request.headers(), Problem::VERBS_OFF)?;
        } else if is_data && !is_local {
            self.check_token(request.headers(), Problem::NEEDS_TOKEN)?;
        } else if is_page && !is_local && self.token_now()?.is_none() {
            // With a token the page is open: it holds no data, and asks for the token.
            return Err(Problem::NEEDS_TOKEN);
        }
        if announced_body(request.headers()) > MAX_BODY {
            return Err(Problem::BODY_TOO_LARGE);
        }
        Ok(())
    }

    /// Whether a token is configured.
    pub(super) fn has_token(&self) -> bool {
        self.token_now().is_ok_and(|token| token.is_some())
    }

    fn token_now(&self) -> Result<Option<SecretString>, Problem> {
        (self.token)().map_err(|error| {
            tracing::error!("the token cannot be read, so nobody is let in by it: {error}");
            Problem::TOKEN_UNREADABLE
        })
    }

    /// Compares in a time that tells nothing but the token's length.
    fn check_token(&self, headers: &HeaderMap, without: Problem) -> Result<(), Problem> {
        let Some(token) = self.token_now()? else { return Err(without) };
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else { return Err(Problem::NO_TOKEN) };
        let (scheme, given) = sent.as_bytes().split_at_checked(7).ok_or(Problem::NO_TOKEN)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Problem::NO_TOKEN);
        }
        let is_same = given.trim_ascii().ct_eq(token.expose_secret().as_bytes());
        if bool::from(is_same) { Ok(()) } else { Err(Problem::WRONG_TOKEN) }
    }
}

/// Whether a `Host` header means this machine. A number cannot be pointed elsewhere, and a name other than
/// `localhost` can; the port is of no interest, since a tunnel may have another one.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let number = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_loopback = number.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    !host.contains('@') && (is_loopback || name.eq_ignore_ascii_case("localhost"))
}

fn only_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// What the client says it will send; a length that is no number is read to its end, and cut off there.
fn announced_body(headers: &HeaderMap) -> usize {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::is_own_name;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for host in
            ["localhost", "LocalHost:3653", "127.0.0.1", "127.0.0.1:3653", "[::1]", "[::1]:80", "127.0.0.2"]
        {
            assert!(is_own_name(host), "{host}");
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
            assert!(!is_own_name(host), "{host}");
        }
    }
}
