//! Five troubles at once, met by somebody who has never seen foldd: each is explained and repaired with nothing but what is
//! shown, once on the page and once in the terminal.
//!
//! One projection is halted, one has parked events, one is stalled by somebody's lock, one is being built, and a transaction
//! in another database holds the horizon, since this log is at tier 0.

use sqlx::PgConnection;

use super::{TOKEN, browser::Browser};
use crate::fold::TALLY;
use crate::log::{run, session};
use crate::world::{Daemon, World};

/// Divides by a number that somebody else keeps, and halts.
const HALTING: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table shares (position bigint primary key, share int not null);\n-- @on Placed\n\
    insert into shares select event.global_position, 100 / parts from public.knob;\n";
/// Needs a rate that is missing, and parks.
const PARKING: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\non_error = \"quarantine_stream\"\n*/\n-- @tables\n\
    create table rated (position bigint primary key, cents int not null);\n-- @on Placed\n\
    insert into rated select event.global_position, (select rate from public.rate where currency = event.data ->> 'in');\n";
/// Takes its time with each event.
const BUILDING: &str = "/* foldd\nversion = 1\ncategories = [\"history\"]\n*/\n-- @tables\n\
    create table slow (position bigint primary key);\n-- @on Noted\n-- @on Placed\n\
    insert into slow select event.global_position where pg_sleep(0.02) is not null;\n";

/// The scene, and whoever makes the trouble.
pub(super) struct Troubled {
    pub(super) world: World,
    pub(super) daemon: Daemon,
    /// Holds a lock on the stalled projection's table.
    _locker: PgConnection,
    /// Holds the horizon, from another database.
    _abroad: PgConnection,
}

pub(super) async fn troubled() -> Troubled {
    let mut world = World::alone().await;
    world.execute("create table knob (parts int); insert into knob values (0); create table rate (currency text, rate int);
                   grant select on knob, rate to foldd_daemon;
             insert into rate values ('EUR', 100)").await;
    world.configure(&format!(
        "token = \"{TOKEN}\"\n[daemon]\nlive_batch = \"50ms\"\ncatch_up_batch = \"100ms\"\nbatch_timeout = \"1s\"\nworkers = 6"
    ));
    for (name, text) in [("fines", TALLY), ("shares", HALTING), ("rated", PARKING), ("stalled", TALLY)] {
        world.projection(name, text);
    }
    let daemon = world.daemon();
    for name in ["fines", "stalled"] {
        world.phase(name, "live").await;
    }
    daemon.stop().await;
    world.projection("slow", BUILDING);
    world.seed("history", 2_000).await;
    let (mut locker, _) = session(&world).await;
    run(&mut locker, "begin; lock table stalled.tally in access exclusive mode").await;
    let daemon = world.daemon();
    world.append("order-1", "Placed", "{\"in\": \"SEK\"}").await;
    world.halted("shares").await;
    world.phase("stalled", "backing_off").await;
    world.eventually("an event is parked", async || world.status("rated").await["dead_letters"] == 1).await;
    world
        .execute(
            "alter table es_events alter column transaction_id set default coalesce(es_stamp(), es_stamp())",
        )
        .await;
    world.server().create_database("crm").await.expect("a database can be made");
    let crm = crate::world::pool(&world.server().url("crm")).await;
    let mut abroad = crm.acquire().await.expect("a connection").detach();
    run(&mut abroad, "set application_name = 'nightly export'; begin; create table export (n int)").await;
    world.append("order-2", "Placed", "{\"in\": \"EUR\"}").await;
    Troubled { world, daemon, _locker: locker, _abroad: abroad }
}

/// The command between backquotes in a text that has this in it; nothing else of the text is known to whoever reads.
fn advised<'t>(text: &'t str, part: &str) -> &'t str {
    let found = text.split('`').skip(1).step_by(2).find(|command| command.contains(part));
    found.unwrap_or_else(|| panic!("nothing like {part} is advised in {text}"))
}

impl Troubled {
    /// Types a command of foldd as it was shown.
    async fn type_in(&self, command: &str) -> String {
        let args: Vec<&str> = command.split(' ').skip(1).collect();
        let done = self.world.foldd(&args).await;
        assert_eq!(done.code, 0, "{command}: {done:?}");
        done.out
    }

    /// Asks the query that was shown who holds the lock, and ends their session as it was shown.
    async fn end_the_lock(&self, query: &str) {
        let pid = self.world.value(&format!("select pid from ({query}) shown limit 1")).await;
        self.world.execute(&format!("select pg_terminate_backend({pid})")).await;
    }

    async fn is_healed(&self) {
        let applied = "select format('%s %s %s', (select count(*) from shares.shares), (select count(*) from rated.rated),
                                     (select sum(n) from stalled.tally))";
        self.world
            .eventually("everything is applied", async || self.world.value(applied).await == "2 2 2")
            .await;
    }
}

#[tokio::test]
async fn in_the_terminal() {
    let scene = troubled().await;
    let world = &scene.world;
    let mut shown = String::new();
    world
        .eventually("the blocker is named", async || {
            shown = world.foldd(&["status"]).await.out;
            shown.contains("nightly export") && shown.contains("lock timeout")
        })
        .await;
    for part in [
        "need you now",
        "database crm",
        "division by zero",
        "shares.sql:8",
        "1 event is parked",
        "building",
        "tier 0",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    scene.end_the_lock(advised(&shown, "pg_locks")).await;
    let blocker = shown.split("\n\n").find(|part| part.contains("nightly export")).expect("it is named");
    world.execute(advised(blocker, "pg_terminate_backend")).await;

    let told = world.foldd(&["doctor"]).await.out;
    assert!(told.contains("es_stamp()"), "{told}");
    world.execute("alter table es_events alter column transaction_id set default es_stamp()").await;

    world.execute("update knob set parts = 4").await;
    scene.type_in(advised(&shown, "foldd resume shares")).await;

    let listed = scene.type_in(advised(&shown, "foldd dead-letters list")).await;
    let letter = scene.type_in(advised(&listed, "foldd dead-letters show")).await;
    assert!(letter.contains("SEK") && letter.contains("null value in column \"cents\""), "{letter}");
    world.execute("insert into rate values ('SEK', 9)").await;
    scene.type_in(advised(&letter, "foldd dead-letters retry")).await;

    scene.is_healed().await;
    world
        .eventually("all is well", async || {
            shown = world.foldd(&["status"]).await.out;
            shown.starts_with("● all is well")
        })
        .await;
    assert_eq!(scene.daemon.stop().await.code(), Some(0));
}

/// The text of the concern that has this in it.
async fn concern(browser: &mut Browser, part: &str) -> String {
    let find =
        format!("[...document.querySelectorAll('.concern')].find(c => c.innerText.includes({part:?}))");
    browser.until(&find).await;
    // Code is set in a way of its own on the page; here in backquotes, so that it is found likewise.
    let text = browser
        .eval(&format!(
            "(() => {{ const c = {find}.cloneNode(true);
                c.querySelectorAll('code').forEach(code => code.prepend('`') ?? code.append('`')); return c.textContent; }})()"
        ))
        .await;
    text.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn on_the_page() {
    let scene = troubled().await;
    let world = &scene.world;
    let Some(mut browser) = Browser::start(world).await else { return };
    browser.go(&format!("http://{}/", scene.daemon.address().await)).await;
    browser.shows("need you now").await;
    browser.until("document.querySelector('tr progress') && document.querySelector('.facts').innerText.includes('held for')").await;

    let lock = concern(&mut browser, "lock timeout").await;
    scene.end_the_lock(advised(&lock, "pg_locks")).await;
    let blocker = concern(&mut browser, "nightly export").await;
    assert!(blocker.contains("database crm"), "{blocker}");
    world.execute(advised(&blocker, "pg_terminate_backend")).await;
    let tier = concern(&mut browser, "tier 0").await;
    assert!(tier.contains("not es_stamp()"), "{tier}");
    world.execute("alter table es_events alter column transaction_id set default es_stamp()").await;

    let halted = concern(&mut browser, "division by zero").await;
    assert!(halted.contains("shares.sql:8"), "{halted}");
    world.execute("update knob set parts = 4").await;
    browser.press("Resume: shares@1").await;
    browser.write("who", "newcomer").await;
    browser.write("token", TOKEN).await;
    browser.press("Resume").await;
    browser.shows("done for shares@1").await;

    browser.press("Look at them").await;
    browser.press("Show").await;
    browser.until("document.querySelector('dialog pre')?.textContent.includes('SEK')").await;
    browser.shows("null value in column").await;
    browser.press("Close").await;
    world.execute("insert into rate values ('SEK', 9)").await;
    browser.press("Retry stream: rated@1").await;
    browser.press("Retry").await;
    browser.shows("done for rated@1").await;
    scene.is_healed().await;
    browser.press("Overview").await;
    browser.shows("All is well").await;
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}
