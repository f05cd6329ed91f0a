//! What is no success, in one shape: `{"error":{"code","message","remedy"}}`. Codes are a contract, texts are not.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{EventStoreError, chain, remedy, told};
use crate::ledger::wishes::Refusal;

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
    pub(super) remedy: Cow<'static, str>,
}

/// Declares the problems whose texts never change, and the list of all of them.
macro_rules! problems {
    ($($name:ident = $status:ident $code:literal: $message:literal, $remedy:literal;)+) => {
        impl Problem {
            $(pub(super) const $name: Self = Self::fixed(StatusCode::$status, $code, $message, $remedy);)+

            /// Every code there is, and when it comes, for the OpenAPI document.
            pub(super) const CODES: &[(StatusCode, &'static str, &'static str)] = &[
                $((StatusCode::$status, $code, $message),)+
                (StatusCode::BAD_REQUEST, "bad_request", "a parameter, a path or a body is not what it must be"),
                (StatusCode::NOT_FOUND, "unknown_projection", "no projection is called that"),
                (StatusCode::CONFLICT, "revision_changed", "somebody did something since you looked"),
                (StatusCode::CONFLICT, "busy", "a batch holds the projection"),
                (StatusCode::CONFLICT, "not_selectable", "what was selected is not there, or must not be touched alone"),
                (StatusCode::CONFLICT, "not_reached", "the time is over, and the projection is not there yet"),
                (StatusCode::SERVICE_UNAVAILABLE, "database", "the database does not do what is asked"),
                (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the process cannot do its work"),
            ];
        }
    };
}

problems! {
    NOT_FOUND = NOT_FOUND "not_found": "there is nothing at this path",
        "there is / for people, /api/openapi.json for programs, /metrics, /livez and /readyz";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method_not_allowed": "this path does not take this method",
        "use one of those that the Allow header names";
    FOREIGN_HOST = MISDIRECTED_REQUEST "foreign_host": "the Host header does not mean this machine",
        "use http://localhost or http://127.0.0.1; a proxy in front must send one of these as Host";
    NEEDS_TOKEN = FORBIDDEN "needs_token":
        "this port is open beyond this machine and no token is configured, so page and api are closed",
        "set ops.token_file and send `Authorization: Bearer …`; or ask on the machine itself: foldd status --watch; or set \
         ops.listen = \"127.0.0.1:3653\" and reach it through a tunnel: ssh -L, kubectl port-forward";
    VERBS_OFF = NOT_FOUND "verbs_off": "no token is configured, so there are no verbs here",
        "set ops.token_file, or ops.token, and start foldd again; or type the verb: foldd pause, foldd resume …";
    NO_TOKEN = UNAUTHORIZED "no_token": "this needs the token",
        "send the header `Authorization: Bearer TOKEN` with what ops.token or ops.token_file holds";
    WRONG_TOKEN = UNAUTHORIZED "wrong_token": "this is not the token",
        "send what ops.token or ops.token_file holds now; it may have been rotated";
    TOKEN_UNREADABLE = SERVICE_UNAVAILABLE "token_unreadable": "the file with the token cannot be read, or holds none",
        "see the daemon's log; correct ops.token_file";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body_too_large": "the request body is longer than 64 KiB",
        "send less; events come in through foldd import or the event store";
    UNKNOWN_VERB = NOT_FOUND "unknown_verb": "there is no such verb",
        "/api/openapi.json lists them; others are typed: foldd help";
    NO_STATUS = SERVICE_UNAVAILABLE "no_status": "the status could not be read from the database yet",
        "ask /readyz what is wrong, and try again";
    NO_DATABASE = SERVICE_UNAVAILABLE "no_database": "there is no connection to the database",
        "ask /readyz what is wrong, and try again; the daemon's log says more";
    TOO_SLOW = SERVICE_UNAVAILABLE "too_slow": "the answer took too long to make",
        "try again; if it stays so, the database or this process is short of time";
    TOO_MANY = SERVICE_UNAVAILABLE "too_many_waiting": "as many clients wait already as this process has room for",
        "ask another replica, or raise the limit of open files (ulimit -n) and start foldd again";
    DRAINING = SERVICE_UNAVAILABLE "draining": "the process is about to end",
        "ask another replica, or again after the next start";
}

impl Problem {
    const fn fixed(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self { status, code, message: Cow::Borrowed(message), remedy: Cow::Borrowed(remedy) }
    }

    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), remedy: remedy.into() }
    }

    /// What was sent is not what it must be.
    pub(super) fn bad(message: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, remedy)
    }

    pub(super) fn unknown_projection(name: &str) -> Self {
        let message = format!("there is no projection '{name}'");
        Self::new(StatusCode::NOT_FOUND, "unknown_projection", message, "/api/status lists them")
    }

    fn database(message: String, remedy: Option<&str>) -> Self {
        let remedy = remedy.unwrap_or("ask /readyz what is wrong, and try again").to_owned();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "database", message, remedy)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code, remedy) = match &refusal {
            Refusal::Unknown { .. } => {
                (StatusCode::NOT_FOUND, "unknown_projection", "/api/status lists them")
            }
            Refusal::Changed { .. } => (
                StatusCode::CONFLICT,
                "revision_changed",
                "look at what was done, /api/log, and decide anew with the new revision",
            ),
            Refusal::Busy { .. } => (
                StatusCode::CONFLICT,
                "busy",
                "try again; a batch ends at the latest after daemon.batch_timeout",
            ),
            Refusal::Selection(_) => (
                StatusCode::CONFLICT,
                "not_selectable",
                "/api/dead-letters lists what is parked, in the order of streams",
            ),
            Refusal::Database(error) => return of_database(error),
        };
        Self::new(status, code, refusal.to_string(), remedy)
    }
}

impl From<EventStoreError> for Problem {
    fn from(error: EventStoreError) -> Self {
        if let EventStoreError::Database(error) = &error {
            return of_database(error);
        }
        Self::database(chain(&error), error.remedy())
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        of_database(&error)
    }
}

/// A value that PostgreSQL does not take is the client's affair, anything else is the database's.
fn of_database(error: &sqlx::Error) -> Problem {
    let code = error.as_database_error().and_then(|error| error.code());
    if code.is_some_and(|code| code.starts_with("22")) {
        return Problem::bad(told(error), "send what the database can hold");
    }
    Problem::database(chain(error), remedy(error))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.message, "remedy": self.remedy });
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
