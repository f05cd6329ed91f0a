//! A real Prometheus on loopback, with the rules that are shipped and a minute that is a second.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::listen::send;
use crate::world::{Daemon, World};

/// What the rules call a minute, in milliseconds. Shorter, and a stall of a busy machine would be an outage of minutes.
const MINUTE: u64 = 1_000;

const CONFIGURATION: &str = "\
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 250ms}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: foldd
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
";

/// A file of what is shipped.
pub(super) fn shipped(path: &str) -> String {
    let path = format!("{}/deploy/components/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The groups of the rules, as Prometheus reads them without the operator.
fn rules() -> String {
    let rules = shipped("rules/rules.yaml");
    let (_, groups) = rules.split_once("\n  groups:\n").expect("the rules have groups");
    let seconds = MINUTE as f64 / 1_000.0;
    format!("groups:\n{}", in_short_minutes(groups).replace(" * 60", &format!(" * {seconds}")))
}

/// Replaces the durations of a text that are written in minutes. `ratio_60m` is a name and stays.
fn in_short_minutes(text: &str) -> String {
    let is_of_a_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut out = String::new();
    for word in text.split_inclusive(|char| !is_of_a_word(char)) {
        let end = word.trim_end_matches(|char| !is_of_a_word(char)).len();
        match word[..end].strip_suffix('m').and_then(|number| number.parse::<u64>().ok()) {
            Some(minutes) => out.push_str(&format!("{}ms{}", minutes * MINUTE, &word[end..])),
            None => out.push_str(word),
        }
    }
    out
}

/// A running Prometheus.
pub(super) struct Prometheus<'a> {
    world: &'a World,
    process: Daemon,
    address: String,
}

impl<'a> Prometheus<'a> {
    /// Starts it, if there is one here.
    pub(super) async fn start(world: &'a World) -> Option<Self> {
        let version = Command::new("prometheus").arg("--version").stderr(Stdio::null()).output();
        if !version.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: there is no prometheus here");
            return None;
        }
        fs::write(world.dir().join("prometheus.yaml"), CONFIGURATION).expect("a file can be written");
        fs::write(world.dir().join("rules.yaml"), rules()).expect("a file can be written");
        let mut command = Command::new("prometheus");
        command.current_dir(world.dir()).args([
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=prometheus",
            "--web.listen-address=127.0.0.1:0",
        ]);
        let process = world.daemon_of(command);
        process.says("ready to receive web requests").await;
        let log = process.log();
        let address = log.lines().filter(|line| line.contains("\"Listening on\"")).find_map(|line| {
            let (_, address) = line.split_once(" address=")?;
            Some(address.trim().to_owned())
        });
        Some(Self { world, process, address: address.expect("it says where it listens") })
    }

    /// Scrapes these daemons from now on, and no other.
    pub(super) async fn scrape(&self, daemons: &[&Daemon]) {
        let mut targets = Vec::new();
        for daemon in daemons {
            targets.push(daemon.address().await);
        }
        let file = json!([{ "targets": targets, "labels": { "namespace": "foldd" } }]).to_string();
        // In one stroke, or half of a file would be read.
        let draft = self.world.dir().join("targets.new");
        fs::write(&draft, file).expect("a file can be written");
        fs::rename(&draft, self.world.dir().join("targets.json")).expect("it can be put in place");
        let wanted: BTreeSet<String> = targets.into_iter().collect();
        self.world
            .eventually("every daemon is scraped", async || self.named("up == 1", "instance").await == wanted)
            .await;
    }

    /// Asks its API.
    async fn ask(&self, path: &str, body: &str) -> Value {
        // Of HTTP 1.0, so that the answer comes in one piece.
        let request = format!(
            "POST {path} HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let request = if body.is_empty() { format!("GET {path} HTTP/1.0\r\n\r\n") } else { request };
        let answer = send(&self.address, request.as_bytes()).await;
        let json: Value = serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}: {answer:?}\n{}", self.process.log()));
        assert_eq!(json["status"], "success", "{path} {body}: {json}");
        json["data"].clone()
    }

    /// Evaluates an expression now: its series, or its one value.
    pub(super) async fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask("/api/v1/query", &format!("query={encoded}")).await;
        match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().cloned().unwrap_or_default(),
            _ => vec![data["result"].clone()],
        }
    }

    /// The values of one label among the series of an expression.
    pub(super) async fn named(&self, expression: &str, label: &str) -> BTreeSet<String> {
        let series = self.query(expression).await;
        series.iter().filter_map(|one| one["metric"][label].as_str().map(ToOwned::to_owned)).collect()
    }

    /// The subscriptions of these series, sorted, each as often as somebody exports it.
    pub(super) async fn subscriptions(&self, expression: &str) -> String {
        let series = self.query(expression).await;
        let label = |one: &Value, name: &str| one["metric"][name].as_str().unwrap_or_default().to_owned();
        let id = |one| match (label(one, "projection"), label(one, "version"), label(one, "partition")) {
            (name, version, part) if name == "split" => format!("{name}@{version}/{part}"),
            (name, version, _) => format!("{name}@{version}"),
        };
        let mut ids: Vec<String> = series.iter().map(id).collect();
        ids.sort();
        ids.join(" ")
    }

    /// Alerts by these samples of `ALERTS`, as `FolddStuck tally@1`.
    async fn alerts(&self, expression: &str) -> BTreeSet<String> {
        let series = self.query(expression).await;
        let label = |one: &Value, name: &str| one["metric"][name].as_str().unwrap_or_default().to_owned();
        let text = |one| match label(one, "projection").as_str() {
            "" => label(one, "alertname"),
            projection => format!("{} {projection}@{}", label(one, "alertname"), label(one, "version")),
        };
        series.iter().map(text).collect()
    }

    /// What fires now.
    pub(super) async fn firing(&self) -> BTreeSet<String> {
        self.alerts("ALERTS{alertstate=\"firing\"}").await
    }

    /// What has ever fired.
    pub(super) async fn fired(&self) -> BTreeSet<String> {
        self.alerts("last_over_time(ALERTS{alertstate=\"firing\"}[1h])").await
    }

    /// Every rule it has, with how its last evaluation went.
    pub(super) async fn rules(&self) -> Vec<Value> {
        let data = self.ask("/api/v1/rules", "").await;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }
}

#[test]
fn a_minute_of_the_rules_is_a_second_and_names_stay() {
    assert_eq!(
        in_short_minutes("for: 5m\nexpr: a[15m:] > b_5m{le=\"1\"}"),
        "for: 5000ms\nexpr: a[15000ms:] > b_5m{le=\"1\"}"
    );
    let rules = rules();
    assert!(rules.contains("> 5 * 1\n") && rules.contains("vector(1 * 1)"), "{rules}");
    assert!(rules.contains("record: foldd:within_objective:ratio_60m"), "{rules}");
}
