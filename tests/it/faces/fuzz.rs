//! Whatever is sent to the port: no panic, no server's error for what a client did, no write without the token, and the
//! projections go on.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::AsyncWriteExt;

use super::{TOKEN, faced};
use crate::world::World;
use crate::world::listen::send;

/// Requests that are tried.
const CASES: u32 = 400;

fn method() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]).prop_map(str::to_owned),
        1 => "[A-Z]{1,9}",
    ]
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "api", "status", "projections", "tally", "tally@1", "nobody", "wait", "pause", "resume", "retry", "discard",
            "rebuild", "cutover", "rollback", "cancel", "retire",
            "dead-letters", "log", "config", "history", "1", "-1", "9223372036854775808", "openapi.json", "metrics",
            "%00", "%ff", "%2F", "..", "tally%00", "%F0%9F%A6%80", "'", "\"", "a%20b",
        ]).prop_map(str::to_owned),
        1 => "[!-~]{0,12}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let pair = (
        prop::sample::select(vec![
            "position",
            "cursor",
            "caught_up",
            "timeout",
            "projection",
            "stream",
            "event_type",
            "sqlstate",
            "state",
            "limit",
            "x",
        ]),
        prop_oneof![
            prop::sample::select(vec![
                "1",
                "0",
                "-1",
                "1:1",
                "99:99999999999999999999",
                "true",
                "10ms",
                "0s",
                "1h",
                "open",
                "discarded",
                "%00",
                "%ff",
                "",
                "1000",
                "1001",
                "tally",
                "nobody",
                "18446744073709551615:9223372036854775807",
            ])
            .prop_map(str::to_owned),
            "[!-~]{0,16}",
        ],
    );
    prop::collection::vec(pair, 0..4).prop_map(|pairs| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "", "{}", "[]", "null", "{\"all\":true}", "{\"by\":\"\\u0000\"}", "{\"positions\":[]}", "{\"positions\":[1,1]}",
            "{\"if_revision\":-1}", "{\"stream\":\"\\ud800\"}", "{\"by\":7}", "{\"x\":1}", "{\"why\":\"a\",\"why\":\"b\"}",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (1..3000_usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
        1 => (60_000..80_000_usize).prop_map(|length| vec![b' '; length]),
    ]
}

/// A request's bytes, and whether the token is in it.
fn request() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let path = prop::collection::vec(piece(), 0..5).prop_map(|pieces| format!("/{}", pieces.join("/")));
    let token = prop_oneof![
        4 => Just(None),
        1 => Just(Some(TOKEN.to_owned())),
        1 => "[ -~]{0,40}".prop_map(Some),
    ];
    let header = prop_oneof![
        Just(String::new()),
        "[A-Za-z-]{1,12}: [ -~]{0,30}\r\n",
        Just(format!("X: {}\r\n", "y".repeat(20_000)))
    ];
    (method(), path, query(), token, header, body()).prop_map(|(method, path, query, token, header, body)| {
        let is_trusted = token.as_deref().is_some_and(|token| token.trim() == TOKEN);
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let head = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: localhost\r\n{authorization}{header}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        ([head.into_bytes(), body].concat(), is_trusted)
    })
}

async fn writes(world: &World) -> String {
    world.value("select count(*) from es_operator_log").await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_is_answered_and_nothing_is_written_without_the_token() {
    let (world, mut daemon) = faced().await;
    let address = daemon.address().await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { cases: CASES, ..Config::default() }, rng);
    let strategy = request();
    for _ in 0..CASES {
        let (bytes, is_trusted) = strategy.new_tree(&mut runner).expect("a request").current();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        if shown.contains("/stream") {
            continue;
        }
        let before = writes(&world).await;
        let answer = send(&address, &bytes).await;
        assert!(answer.code < 500, "{shown}: {}", answer.body);
        assert!(answer.code != 0 || bytes.len() > 60_000 || shown.contains("yyyy"), "no answer: {shown}");
        assert!(is_trusted || writes(&world).await == before, "written without the token: {shown}");
    }
    assert_eq!(daemon.has_ended(), None);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.post("/api/projections/tally/resume", TOKEN, &serde_json::json!({})).await;
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
}

#[tokio::test]
async fn clients_that_dawdle_or_flood_hold_up_no_projection() {
    let (world, daemon) = faced().await;
    let address = daemon.address().await;
    let mut dawdlers = Vec::new();
    for start in [
        "",
        "GET /api/sta",
        "POST /api/projections/tally/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{",
    ] {
        for _ in 0..40 {
            let mut stream = tokio::net::TcpStream::connect(&address).await.expect("the port is open");
            stream.write_all(start.as_bytes()).await.expect("it is taken");
            dawdlers.push(stream);
        }
    }
    // Who reads nothing of a stream that has much to say.
    for _ in 0..40 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("the port is open");
        stream.write_all(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is taken");
        dawdlers.push(stream);
    }
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    let huge = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(2 << 20));
    let answer = send(&address, huge.as_bytes()).await;
    assert!([0, 400, 414, 431].contains(&answer.code), "{}: {}", answer.code, answer.head);
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    drop(dawdlers);
    assert_eq!(daemon.stop().await.code(), Some(0));
}
