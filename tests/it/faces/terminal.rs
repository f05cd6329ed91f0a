//! The terminal: colours where they are wanted, the live picture, completions, JSON beside every table.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::faced;
use crate::fold::TALLY;
use crate::world::World;

/// `line`, run by a plain shell on a terminal of its own.
fn script(line: &str) -> Command {
    let mut command = Command::new("script");
    // A service account's own shell may be one that refuses every command.
    command.args(["-qefc", line, "/dev/null"]).env("SHELL", "/bin/sh");
    command
}

/// Whether this machine lets one make terminals: a container may have no `script` or no `/dev/pts`.
fn terminals_can_be_made() -> Result<(), String> {
    let tried = script("test -t 1").stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if tried.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", tried.status, String::from_utf8_lossy(&tried.stderr).trim()))
}

/// Runs a verb on a terminal of its own until it ends, or until it has shown something and is told Ctrl-C. What it
/// wrote, commands and all. `None` where no terminals can be made.
async fn on_a_terminal(
    world: &World,
    args: &str,
    variables: &[(&str, &str)],
    until: Option<&str>,
) -> Option<String> {
    if let Err(why) = terminals_can_be_made() {
        eprintln!("skipped: script(1) makes no terminal here: {why}");
        return None;
    }
    let seen = world.dir().join("terminal");
    let file = std::fs::File::create(&seen).expect("a file can be made");
    let plain = world.command(&[]);
    // A shell that stayed around it would die of the Ctrl-C that the verb answers.
    let mut command = script(&format!("exec {} {args}", env!("CARGO_BIN_EXE_foldd")));
    command.current_dir(world.dir());
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(file).spawn().expect("script starts");
    let read = || std::fs::read_to_string(&seen).unwrap_or_default();
    // Kept open: where its input ends, so does the terminal.
    let mut keys = child.stdin.take().expect("it has one");
    if let Some(until) = until {
        world.eventually(until, async || read().contains(until)).await;
        keys.write_all(b"\x03").expect("it is there to be interrupted");
    }
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic").expect("it ends");
    assert!(status.success(), "{status}: {}", read());
    drop(keys);
    Some(read())
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    let (world, _daemon) = faced().await;
    let piped = world.foldd(&["status"]).await.out;
    assert!(piped.starts_with("● all is well\n") && !piped.contains('\x1b'), "{piped}");
    let Some(shown) = on_a_terminal(&world, "status", &[], None).await else { return };
    assert!(
        shown.contains("\x1b[32m● all is well\x1b[0m") && shown.contains("\x1b[32mlive\x1b[0m"),
        "{shown}"
    );
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let Some(shown) = on_a_terminal(&world, "status", &[variable], None).await else { return };
        assert!(!shown.contains('\x1b'), "{shown}");
    }
}

#[tokio::test]
async fn the_live_picture_follows_and_leaves_the_terminal_as_it_was() {
    let (world, _daemon) = faced().await;
    assert_eq!(world.foldd(&["pause", "tally", "--by", "day shift", "--why", "a look"]).await.code, 0);
    let deed = "pause tally@1 by day shift: a look";
    let watch = on_a_terminal(&world, "status --watch", &[], Some(deed)).await;
    let Some(shown) = watch else { return };
    for part in
        ["1 thing to look at", "LAG, LATELY", "▁", "an operator paused it", "foldd resume tally@1", "Ctrl-C"]
    {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    let (open, close) = (shown.find("\x1b[?1049h"), shown.find("\x1b[?1049l"));
    assert!(open < close && open.is_some() && shown.contains("\x1b[?25h"), "{shown}");
    let left = &shown[close.unwrap_or_default()..];
    assert!(left.contains("an operator paused it"), "the last picture stays: {left}");
}

#[tokio::test]
async fn every_shell_gets_completions_and_every_table_is_json_too() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = world.foldd(&["completions", shell]).await;
        assert!(done.code == 0 && done.out.contains("dead-letters"), "{shell}: {done:?}");
    }
    assert_eq!(world.foldd(&["completions", "tcsh"]).await.code, 2);
    for args in [
        &["migrate", "--json"][..],
        &["migrate", "--check", "--json"],
        &["check", "--json"],
        &["status", "--json"],
        &["lag", "--json"],
        &["log", "--json"],
        &["dead-letters", "list", "--json"],
        &["doctor", "--json"],
        &["config", "show", "--json"],
        &["version", "--json"],
    ] {
        let done = world.foldd(args).await;
        let json = serde_json::from_str::<Value>(&done.out);
        assert!(done.code == 0 && json.is_ok(), "{args:?}: {done:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_json_with_its_place() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.projection("wrong", &TALLY.replace("count(*)", "count(*) + missing"));
    let done = world.foldd(&["check", "--json"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    let lines: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((&lines[0]["name"], &lines[0]["error"]), (&"tally".into(), &Value::Null), "{lines}");
    let place = lines[1]["error"]["place"].as_str().unwrap_or_default();
    assert!(place.contains("wrong.sql:"), "{lines}");
    assert!(lines[1]["error"]["remedy"].is_string() && done.err.contains("wrong.sql:"), "{done:?}");
}
