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

    /// Asks its HTTP port: the status code and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.says("\"listening\"").await;
        let log = self.log();
        let line = log.lines().find(|line| line.contains("\"listening\"")).expect("it listens");
        let line: Value = serde_json::from_str(line).expect("the log is JSON");
        let address = line["address"].as_str().expect("it says where").to_owned();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("the port is open");
        stream.write_all(request.as_bytes()).await.expect("the request can be sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("there is an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("it has a code");
        (code, body.to_owned())
    }
}
