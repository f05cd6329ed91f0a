use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Answering, Patience, PatientListener};
use super::{BindError, Check, Faces, Readiness, bind, serve};
use crate::ledger::status::Status;
use crate::metrics::Exporter;
use crate::supervisor::connector::Connector;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Nothing here takes longer, unless it hangs.
const SOON: Duration = Duration::from_secs(10);

/// A running face, and the other ends of what it shows.
struct World {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    status: watch::Sender<Option<(Instant, Arc<Status>)>>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
}

struct Answer {
    head: String,
    body: String,
}

impl World {
    /// Opens a free port of `host`, and calls it through loopback in any case.
    async fn on(host: Ipv4Addr) -> Self {
        Self::with_token(host, None).await
    }

    async fn with_token(host: Ipv4Addr, token: Option<&'static str>) -> Self {
        let (readiness, seen_readiness) = watch::channel(Readiness::default());
        let (status, seen_status) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let faces = Faces {
            metrics: Exporter::detached(|| ()).expect("a recorder of its own"),
            readiness: seen_readiness,
            status: seen_status,
            wanted: Arc::clone(&wanted),
            connector: Connector::new(|| Err("there is no database here".to_owned())),
            token: Arc::new(move || Ok(token.map(SecretString::from))),
            configuration: Arc::default(),
        };
        let listener = bind((host, 0).into()).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, faces, stop.clone()));
        Self { address: (LOOPBACK, port).into(), readiness, status, wanted, stop }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("the request is taken");
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer soon");
        read.expect("an answer in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        Answer { head: head.to_lowercase(), body: body.to_owned() }
    }
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status(), self.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        for text in ["message", "remedy"] {
            assert!(
                self.json()["error"][text].as_str().is_some_and(|text| !text.is_empty()),
                "{}",
                self.body
            );
        }
    }
}

fn some_status() -> Arc<Status> {
    Arc::new(Status::at_rest(&[]))
}

#[tokio::test]
async fn a_process_lives_before_anything_else_works() {
    let world = World::on(LOOPBACK).await;
    let answer = world.get("/livez").await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "ok\n"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn metrics_come_in_the_text_format() {
    let answer = World::on(LOOPBACK).await.get("/metrics").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(answer.body.contains("foldd_build_info{version="));
}

#[tokio::test]
async fn readiness_names_what_fails_and_why() {
    let world = World::on(LOOPBACK).await;
    world.get("/readyz").await.assert_problem(503, "not_ready");

    let reason = "the server refuses connections".to_owned();
    let failed = Check::Failed { reason, remedy: "start PostgreSQL".to_owned() };
    let (configuration, migrations) = (Check::Passed, Check::Passed);
    world.readiness.send_replace(Readiness { configuration, migrations, database: failed, draining: false });
    let answer = world.get("/readyz").await;
    answer.assert_problem(503, "not_ready");
    let json = answer.json();
    assert_eq!(json["ready"], false);
    assert_eq!(json["checks"]["migrations"], serde_json::json!({ "ok": true }));
    assert_eq!(json["checks"]["database"]["reason"], "the server refuses connections");
    assert_eq!(json["error"]["message"], "database: the server refuses connections");
    assert_eq!(json["error"]["remedy"], "start PostgreSQL");

    world.readiness.send_modify(|readiness| readiness.database = Check::Passed);
    let answer = world.get("/readyz").await;
    assert_eq!((answer.status(), &answer.json()["ready"]), (200, &Value::Bool(true)));

    world.readiness.send_modify(|readiness| readiness.draining = true);
    assert_eq!(world.get("/readyz").await.json()["checks"]["draining"]["ok"], false);
}

#[tokio::test]
async fn whoever_looks_has_the_status_read_anew() {
    let world = World::on(LOOPBACK).await;
    let owner = async {
        world.wanted.notified().await;
        world.status.send_replace(Some((Instant::now(), some_status())));
    };
    let (answer, ()) = tokio::join!(world.get("/api/status"), owner);
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["store"]["head_position"], 561_470);
    assert!(answer.header("x-status-age-seconds").parse::<f64>().is_ok_and(|age| age < 1.0));
}

#[tokio::test]
async fn an_old_status_is_better_than_none_and_says_its_age() {
    let World { address, readiness, status, wanted, stop } = World::on(LOOPBACK).await;
    let long_ago = Instant::now() - Duration::from_secs(40);
    status.send_replace(Some((long_ago, some_status())));
    let answer = World { address, readiness, status, wanted, stop }.get("/api/status").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.header("x-status-age-seconds").parse::<f64>().is_ok_and(|age| age > 39.0));
}

#[tokio::test]
async fn a_status_that_never_came_is_a_problem() {
    let answer = World::on(LOOPBACK).await.get("/api/status").await;
    answer.assert_problem(503, "no_status");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_in_json() {
    let world = World::on(LOOPBACK).await;
    world.get("/nowhere").await.assert_problem(404, "not_found");
    let post = "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = world.send(post).await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "get,head");
    let long =
        "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n";
    world.send(long).await.assert_problem(413, "body_too_large");
}

#[tokio::test]
async fn a_name_pointed_at_loopback_sees_nothing() {
    let world = World::on(LOOPBACK).await;
    for path in ["/", "/api/status", "/metrics", "/livez"] {
        for host in ["Host: evil.example:3653\r\n", "Host: localhost\r\nHost: evil.example\r\n", ""] {
            let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            world.send(&request).await.assert_problem(421, "foreign_host");
        }
        let absolute =
            format!("GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        world.send(&absolute).await.assert_problem(421, "foreign_host");
    }
}

#[tokio::test]
async fn beyond_loopback_only_metrics_and_health_are_open() {
    let world = World::on(Ipv4Addr::UNSPECIFIED).await;
    for path in ["/", "/api", "/api/status", "/api/anything"] {
        world.get(path).await.assert_problem(403, "needs_token");
    }
    assert_eq!(world.get("/livez").await.status(), 200);
    assert_eq!(world.get("/metrics").await.status(), 200);
    assert_eq!(world.get("/readyz").await.status(), 503);
    let request = "GET /livez HTTP/1.1\r\nHost: foldd.prod.svc:3653\r\nConnection: close\r\n\r\n";
    assert_eq!(world.send(request).await.status(), 200);
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn beyond_loopback_the_token_opens_what_there_is_to_read() {
    let world = World::with_token(Ipv4Addr::UNSPECIFIED, Some(TOKEN)).await;
    assert_eq!(world.get("/").await.status(), 200, "the page has no data, and asks for the token");
    world.get("/api/config").await.assert_problem(401, "no_token");
    assert_eq!(world.get("/api/config").await.header("www-authenticate"), "bearer");
    for (sent, status, code) in [
        (format!("Bearer {TOKEN}"), 200, None),
        (format!("bearer  {TOKEN}"), 200, None),
        (format!("Bearer {TOKEN}x"), 401, Some("wrong_token")),
        ("Bearer 0123456789abcdef0123456789abcdee".to_owned(), 401, Some("wrong_token")),
        ("Bearer ".to_owned(), 401, Some("no_token")),
        (format!("Basic {TOKEN}"), 401, Some("no_token")),
        (format!("Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}"), 401, Some("no_token")),
    ] {
        let request = format!(
            "GET /api/config HTTP/1.1\r\nHost: x\r\nAuthorization: {sent}\r\nConnection: close\r\n\r\n"
        );
        let answer = world.send(&request).await;
        assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (status, code), "{sent}");
    }
}

#[tokio::test]
async fn verbs_do_not_exist_without_a_token_and_want_it_where_there_is_one() {
    let post = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n{more}\r\n{{}}"
        )
    };
    let world = World::on(LOOPBACK).await;
    world.send(&post("/api/projections/fines/pause", "")).await.assert_problem(404, "verbs_off");
    let world = World::with_token(LOOPBACK, Some(TOKEN)).await;
    world.send(&post("/api/projections/fines/pause", "")).await.assert_problem(401, "no_token");
    let authorised = format!("Authorization: Bearer {TOKEN}\r\n");
    world
        .send(&post("/api/projections/fines/explode", &authorised))
        .await
        .assert_problem(404, "unknown_verb");
    world.send(&post("/api/projections/fines/pause", &authorised)).await.assert_problem(503, "no_database");
    world.send(&post("/api/projections/fines/retry", &authorised)).await.assert_problem(400, "bad_request");
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_every_code() {
    let world = World::on(LOOPBACK).await;
    let document = world.get("/api/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 18, "{}", paths.len());
    let codes = &document["components"]["responses"]["Problem"]["content"]["application/json"]["schema"];
    let codes = codes["properties"]["error"]["properties"]["code"]["enum"].as_array().expect("codes");
    for (path, operations) in paths {
        assert!(
            operations["get"]["summary"].is_string() != operations["post"]["summary"].is_string(),
            "{path}"
        );
        let path = path.replace("{name}", "fines").replace("{position}", "7");
        if operations["get"].is_object() && !path.ends_with("/stream") {
            let answer = world.get(&path).await;
            // Nothing else is here that could be asked for a page of a projection.
            assert!(![404, 405].contains(&answer.status()), "{path}: {}", answer.body);
            if answer.status() != 200 {
                assert!(codes.contains(&answer.json()["error"]["code"]), "{path}: {}", answer.body);
            }
        }
    }
    let status = &document["components"]["schemas"]["Status"]["properties"];
    for field in ["store", "projections", "replicas"] {
        assert!(status[field].is_object(), "{field}: {status}");
    }
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_nothing_else() {
    let world = World::on(LOOPBACK).await;
    let (answer, other) = (world.get("/").await, world.get("/").await);
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains("connect-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert_eq!(answer.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!other.body.contains(nonce), "a nonce is used once");
    assert!(!answer.body.contains("{{") && answer.body.contains(env!("CARGO_PKG_VERSION")));
    for forbidden in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " src=", "https://"]
    {
        assert!(!answer.body.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_remedy() {
    let world = World::on(LOOPBACK).await;
    let error = bind(world.address).await.expect_err("taken");
    assert!(matches!(error, BindError::Taken { .. }));
    assert!(error.to_string().contains(&world.address.to_string()));
    assert!(error.remedy().contains("ops.listen"));
}

#[tokio::test]
async fn serving_ends_when_told_even_with_a_client_that_stays() {
    let listener = bind((LOOPBACK, 0).into()).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let world = World::on(LOOPBACK).await;
    let faces = Faces {
        metrics: Exporter::detached(|| ()).expect("a recorder of its own"),
        readiness: world.readiness.subscribe(),
        status: world.status.subscribe(),
        wanted: Arc::clone(&world.wanted),
        connector: Connector::new(|| Err("there is no database here".to_owned())),
        token: Arc::new(|| Ok(None)),
        configuration: Arc::default(),
    };
    let serving = tokio::spawn(serve(listener, faces, world.stop.clone()));
    let _staying = TcpStream::connect(address).await.expect("a connection");
    world.stop.cancel();
    let served = timeout(SOON, serving).await.expect("an end").expect("no panic");
    assert!(served.is_ok());
}

/// How long the impatient listener below waits for anything.
const SHORT: Duration = Duration::from_millis(100);

/// Takes longer to answer than any client may dawdle.
async fn slow(ConnectInfo(answering): ConnectInfo<Answering>) -> &'static str {
    answering.begin();
    tokio::time::sleep(3 * SHORT).await;
    "done"
}

#[tokio::test]
async fn a_client_that_dawdles_is_hung_up_on() {
    let patience = Patience { head: SHORT, idle: SHORT, write: SHORT };
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = PatientListener::with_patience(listener, patience);
    let service = Router::new().route("/slow", get(slow)).into_make_service_with_connect_info::<Answering>();
    tokio::spawn(axum::serve(listener, service).into_future());

    // Nothing sent, part of a head sent, and a whole request whose answer takes its time, then nothing.
    for (request, expected) in
        [("", ""), ("GET /slow HT", ""), ("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", "done")]
    {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("the request is taken");
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await.expect("the connection is closed");
        assert!(read.is_ok() && answer.ends_with(expected), "{request}: {answer}");
    }
}

#[tokio::test]
async fn trickling_a_head_wins_no_time() {
    let patience = Patience { head: SHORT, idle: SHORT, write: SHORT };
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = PatientListener::with_patience(listener, patience);
    tokio::spawn(axum::serve(listener, Router::new()).into_future());

    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let trickle = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await
        }
    };
    timeout(SOON, trickle).await.expect("the connection is closed");
}
