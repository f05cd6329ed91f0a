//! The page, in a real browser.

use std::path::Path;

use serde_json::{Value, json};

use super::browser::Browser;
use super::{TOKEN, faced};
use crate::fold::TALLY;
use crate::world::{Daemon, World};

mod access;
mod pictures;

/// Opens the page of a daemon.
async fn opened(world: &World, daemon: &Daemon) -> Option<(Browser, String)> {
    let mut browser = Browser::start(world).await?;
    let base = format!("http://{}/", daemon.address().await);
    browser.go(&base).await;
    browser.until("document.querySelector('.facts')").await;
    Some((browser, base))
}

/// Nothing was asked of another host, and nothing went wrong in the page.
fn is_clean(browser: &Browser, base: &str) {
    for url in &browser.requests {
        assert!(url.starts_with(base) || url.starts_with("data:") || url == "about:blank", "asked for {url}");
    }
    assert!(browser.requests.len() > 3, "{:?}", browser.requests);
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[tokio::test]
async fn it_shows_what_is_and_what_changes_without_being_asked() {
    let (world, daemon) = faced().await;
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    browser.shows("All is well").await;
    browser.shows("tally").await;
    for _ in 0..7 {
        world.append("order-2", "Placed", "{}").await;
    }
    browser.until("document.querySelector('.facts dd').textContent === '8'").await;
    assert_eq!(world.foldd(&["pause", "tally"]).await.code, 0);
    browser.shows("1 thing to look at").await;
    browser.shows("an operator paused it").await;
    browser.until("document.title.startsWith('1 thing to look at')").await;
    is_clean(&browser, &base);
}

#[tokio::test]
async fn an_operator_resumes_a_projection_with_what_the_page_shows() {
    let (world, daemon) = faced().await;
    assert_eq!(world.foldd(&["pause", "tally", "--by", "night shift", "--why", "lunch"]).await.code, 0);
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    browser.press("Who and why").await;
    browser.shows("lunch").await;
    browser.press("Overview").await;
    browser.press("Resume: tally@1").await;
    browser.write("who", "day shift").await;
    browser.write("token", "not the token at all").await;
    browser.press("Resume").await;
    browser.shows("this is not the token").await;
    browser.write("token", TOKEN).await;
    browser.press("Resume").await;
    browser.shows("done for tally@1").await;
    browser.shows("All is well").await;
    assert_eq!(
        world
            .value("select string_agg(verb || ' ' || who, ',' order by entry_id) from es_operator_log")
            .await,
        "pause night shift,resume day shift"
    );
    // The token is remembered for this tab: the next verb does not ask again.
    browser.go(&format!("{base}#/projections/tally%401")).await;
    browser.press("Pause: tally@1").await;
    browser.until("document.querySelector('dialog[open]') && !document.querySelector('[name=token]')").await;
    browser.press("Pause").await;
    browser.shows("an operator paused it").await;
    is_clean(&browser, &base);
}

#[tokio::test]
async fn it_survives_the_restart_of_its_daemon_and_says_so_meanwhile() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|one| one.local_addr())
        .expect("a free port")
        .port();
    let address = format!("127.0.0.1:{port}");
    let variables = [("FOLDD__OPS__LISTEN", address.as_str())];
    let daemon = world.daemon_with(&variables);
    world.caught_up("tally").await;
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    browser.shows("All is well").await;
    browser.eval("window.stayed = true").await;
    daemon.kill();
    browser.shows("foldd does not answer").await;
    browser.until("document.title.startsWith('foldd does not answer')").await;
    world.append("order-1", "Placed", "{}").await;
    let _daemon = world.daemon_with(&variables);
    browser.until("!document.getElementById('lost').textContent && document.querySelector('.facts dd').textContent === '1'").await;
    assert_eq!(browser.eval("window.stayed").await, true, "it was never loaded anew");
    is_clean(&browser, &base);
}

/// Every place where an event can say something, and each thing that would run if it were taken for markup.
const EVIL: &str =
    "<img src=x onerror=\"window.evil=1\"><script>window.evil=1</script><svg onload=window.evil=1>";

#[tokio::test]
async fn what_events_say_is_shown_and_never_run() {
    let world = World::new().await;
    world.configure(&format!("token = \"{TOKEN}\""));
    world.projection(
        "picky",
        &format!(
            "/* foldd\nversion = 1\ncategories = [\"order\"]\non_error = \"quarantine_stream\"\n*/\n-- @tables\n\
             create table seen (amount int not null);\n-- @on {EVIL}\ninsert into seen values ((event.data ->> 'amount')::int);\n"
        ),
    );
    let stream = format!("order-{EVIL}");
    world.append(&stream, EVIL, &json!({ "amount": EVIL, (EVIL): EVIL }).to_string()).await;
    let daemon = world.daemon();
    world.eventually("it is parked", async || daemon.read("/api/dead-letters").await["there_are"] == 1).await;
    let by = format!("day shift {EVIL}");
    let why = format!("because {EVIL}");
    assert_eq!(world.foldd(&["pause", "picky", "--by", &by, "--why", &why]).await.code, 0);
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    for (page, text) in [
        ("#/", "1 event is parked"),
        ("#/dead-letters", "onerror="),
        ("#/log", "because <img"),
        ("#/projections/picky%401", "what it is"),
        ("#/projections/%3Cimg%20src%3Dx%20onerror%3Dwindow.evil%3D1%3E", "no projection of this name"),
        ("#/dead-letters/%3Cimg%20src%3Dx%20onerror%3Dwindow.evil%3D1%3E", "there is no projection"),
    ] {
        browser.go(&format!("{base}{page}")).await;
        browser
            .until(&format!("document.body.innerText.toLowerCase().includes({})", json!(text.to_lowercase())))
            .await;
    }
    browser.go(&format!("{base}#/dead-letters")).await;
    browser.press("Show").await;
    browser.shows("Metadata").await;
    browser.until("document.querySelector('dialog pre').textContent.includes('onerror=')").await;
    assert_eq!(browser.eval("window.evil ?? null").await, Value::Null);
    assert_eq!(
        browser
            .eval("document.querySelectorAll('img, script:not([nonce]), [onerror], [onload]').length")
            .await,
        0
    );
    is_clean(&browser, &base);
}

#[tokio::test]
async fn a_version_that_is_built_beside_itself_is_drawn_beside_it() {
    let (world, daemon) = faced().await;
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    browser.go(&format!("{base}#/projections/tally%401")).await;
    browser.press("Rebuild: tally@1").await;
    browser.write("token", TOKEN).await;
    browser.press("Rebuild").await;
    browser.shows("done for tally@1").await;
    // Live, and the one before it, each with its own verbs.
    browser.until("[...document.querySelectorAll('h2 .tag')].map(tag => tag.textContent).sort().join() === 'live,previous'").await;
    browser.press("Roll back: tally@1").await;
    browser.write("confirm", "something").await;
    browser.press("Roll back").await;
    browser.shows("Type tally to confirm.").await;
    browser.press("Not now").await;
    browser.until("!document.querySelector('dialog[open]')").await;
    is_clean(&browser, &base);
}

#[tokio::test]
async fn giving_an_event_up_wants_the_name_typed() {
    let world = World::new().await;
    world.configure(&format!("token = \"{TOKEN}\""));
    world.projection("picky", super::http::PICKY);
    world.append("order-1", "Placed", "{\"amount\": \"many\"}").await;
    let daemon = world.daemon();
    world.eventually("it is parked", async || daemon.read("/api/dead-letters").await["there_are"] == 1).await;
    let Some((mut browser, base)) = opened(&world, &daemon).await else { return };
    browser.press("Look at them").await;
    browser.press("Discard: picky@1").await;
    browser.write("token", TOKEN).await;
    browser.write("confirm", "tally").await;
    browser.press("Discard").await;
    browser.shows("Type picky to confirm.").await;
    assert_eq!(daemon.read("/api/dead-letters").await["there_are"], 1);
    browser.write("confirm", "picky").await;
    browser.press("Discard").await;
    browser.shows("Nothing is parked").await;
    assert_eq!(daemon.read("/api/dead-letters?state=discarded").await["there_are"], 1);
    is_clean(&browser, &base);
}

#[tokio::test]
async fn beyond_its_machine_it_shows_nothing_before_the_token_is_given() {
    let (world, daemon) = {
        let world = World::new().await;
        world.configure(&format!("token = \"{TOKEN}\""));
        world.projection("tally", TALLY);
        let daemon = world.daemon_with(&[("FOLDD__OPS__LISTEN", "0.0.0.0:0")]);
        world.phase("tally", "live").await;
        (world, daemon)
    };
    let Some(mut browser) = Browser::start(&world).await else { return };
    let base = format!("http://{}/", daemon.address().await.replace("0.0.0.0", "127.0.0.1"));
    browser.go(&base).await;
    browser.shows("This foldd is open beyond its machine").await;
    assert!(!browser.eval("document.body.innerText").await.to_string().contains("tally"));
    browser.write("token", "wrong wrong wrong wrong").await;
    browser.press("Use it").await;
    browser.shows("This is not the token").await;
    browser.write("token", TOKEN).await;
    browser.press("Use it").await;
    browser.shows("All is well").await;
    browser.shows("tally").await;
    is_clean(&browser, &base);
}

/// Saves a picture, for the documentation.
pub(super) fn save(path: &Path, picture: &[u8]) {
    std::fs::write(path, picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
