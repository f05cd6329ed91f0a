//! A headless Chromium, driven by the DevTools protocol: where there is one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::world::{PATIENCE, World};

/// What the distributions call it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A browser with one page. Dropped, it is killed.
pub(super) struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
    /// Every URL that the page asked for.
    pub(super) requests: Vec<String>,
    /// What the page complained of: errors that nobody caught, and what its policy refused.
    pub(super) complaints: Vec<String>,
}

impl Browser {
    /// Starts one; `None`, with a word, where there is none.
    pub(super) async fn start(world: &World) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no Chromium is installed; deploy/setup.sh browser gets one");
            return None;
        };
        let profile = world.dir().join("browser");
        let child = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--remote-debugging-port=0", "--force-device-scale-factor=1", "--lang=en-GB"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser can be started");
        let mut address = None;
        let port = profile.join("DevToolsActivePort");
        world
            .eventually("the browser listens", async || {
                let told = std::fs::read_to_string(&port).unwrap_or_default();
                address =
                    told.split_once('\n').map(|(port, path)| format!("ws://127.0.0.1:{port}{}", path.trim()));
                address.is_some()
            })
            .await;
        let (socket, _) = connect_async(address.unwrap_or_default()).await.expect("the browser answers");
        let mut browser = Self {
            child,
            socket,
            session: String::new(),
            last: 0,
            requests: Vec::new(),
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.sized(1280, 900).await;
        Some(browser)
    }

    /// The page's size, in pixels.
    pub(super) async fn sized(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// `light` or `dark`.
    pub(super) async fn theme(&mut self, theme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Goes to a page.
    pub(super) async fn go(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.until("document.readyState !== 'loading'").await;
    }

    /// What an expression gives in the page; awaited, if it is a promise.
    pub(super) async fn eval(&mut self, script: &str) -> Value {
        let asked = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let done = self.call("Runtime.evaluate", asked).await;
        assert!(done["exceptionDetails"].is_null(), "{script}: {}", done["exceptionDetails"]);
        done["result"]["value"].clone()
    }

    /// Waits for an expression to be true in the page.
    pub(super) async fn until(&mut self, script: &str) {
        let began = Instant::now();
        while self.eval(&format!("Boolean({script})")).await != true {
            if began.elapsed() > PATIENCE {
                let shown = self.eval("document.body.innerText").await;
                panic!(
                    "never came true: {script}; {:?}; the page says:\n{}",
                    self.complaints,
                    shown.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the page to show a text.
    pub(super) async fn shows(&mut self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Presses the button that says or is called this, as a person would: it must be there and visible, and not behind a dialog.
    pub(super) async fn press(&mut self, label: &str) {
        let find = format!(
            "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button, a, summary')].find(b => b.checkVisibility() && !b.disabled &&
             (b.textContent.trim() === {0} || b.getAttribute('aria-label') === {0}))",
            json!(label)
        );
        self.until(&find).await;
        self.eval(&format!("{find}.click()")).await;
    }

    /// Writes into the field of this name.
    pub(super) async fn write(&mut self, field: &str, text: &str) {
        let find = format!("document.querySelector('[name=\"{field}\"]')");
        self.until(&find).await;
        self.eval(&format!("{find}.value = {}", json!(text))).await;
    }

    /// The picture of the page, as PNG.
    pub(super) async fn picture(&mut self) -> Vec<u8> {
        use base64::Engine;

        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let data = taken["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(data).expect("it is base64")
    }

    /// Calls a method of the protocol.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).await.expect("the browser listens");
        let answered = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self.socket.next().await.expect("the browser lives").expect("it speaks");
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).expect("it speaks JSON");
                if message["id"] == self.last {
                    return message;
                }
                self.note(&message);
            }
        });
        let answer = answered.await.unwrap_or_else(|_| panic!("{method}: no answer"));
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            // An answer that is an error, or none, is told in the page; a refusal by the policy is not.
            Some("Log.entryAdded") if params["entry"]["source"] == "security" => {
                self.complaints.push(params["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|file| file.is_file())
}
