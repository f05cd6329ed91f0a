//! What a running daemon says: its log and its HTTP port.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Daemon, PATIENCE};

impl Daemon {
    /// Waits until it has logged something.
    pub(crate) async fn says(&self, what: &str) {
        let started = Instant::now();
        while !self.log().contains(what) {
            assert!(started.elapsed() < PATIENCE, "the daemon never said {what:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where its HTTP port is.
    pub(crate) async fn address(&self) -> String {
        self.says("\"listening\"").await;
        let log = self.log();
        let line = log.lines().find(|line| line.contains("\"listening\"")).expect("it listens");
        let line: Value = serde_json::from_str(line).expect("the log is JSON");
        line["address"].as_str().expect("it says where").to_owned()
    }

    /// Asks its HTTP port: the status code and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let address = self.address().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let answer = send(&address, request.as_bytes()).await;
        (answer.code, answer.body)
    }

    /// Reads JSON from its HTTP port.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let (code, body) = self.get(path).await;
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Posts to its HTTP port with a token: the status code and the JSON.
    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let (address, body) = (self.address().await, body.to_string());
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        let answer = send(&address, request.as_bytes()).await;
        let json = serde_json::from_str(&answer.body);
        (answer.code, json.unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body)))
    }
}

/// What an HTTP port answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends bytes and reads to the end. Code 0 stands for a connection that was closed without an answer.
pub(crate) async fn send(address: &str, request: &[u8]) -> Answered {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the port is open");
    // A port that has answered already need not take the rest.
    let _refused = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answered { code, head: head.to_lowercase(), body: body.to_owned() }
}
