//! Transactions that have nothing to do with the log, and hold up everybody who cannot tell.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::log::{run, session};
use crate::world::World;

const HERE: u64 = 3;
const ELSEWHERE: u64 = 2;

/// All of them. They end by themselves, at their time.
pub(super) struct Bystanders(JoinSet<()>);

impl Bystanders {
    /// Starts them: writers in this database and in another one, one who prepares, one who only reads.
    pub(super) async fn start(world: &Arc<World>, elsewhere: &str, seed: u64, until: Instant) -> Self {
        // Up to five seconds; in a short run half of it, so that each gets its turn.
        let longest = Duration::from_secs(5).min((until - Instant::now()) / 2);
        let mut all = JoinSet::new();
        for who in 0..HERE + ELSEWHERE {
            let conn = if who < HERE { session(world).await.0 } else { connect(elsewhere).await };
            all.spawn(write(conn, Rng::with_seed(seed ^ who), longest, until));
        }
        all.spawn(prepare(session(world).await.0, longest, until));
        all.spawn(pin(session(world).await.0, until));
        Self(all)
    }

    pub(super) async fn join(self) {
        self.0.join_all().await;
    }
}

async fn connect(url: &str) -> PgConnection {
    let mut conn = PgConnection::connect(url).await.expect("the database answers");
    run(&mut conn, "create table if not exists beside (n integer)").await;
    conn
}

/// Writes to another table and takes its time.
async fn write(mut conn: PgConnection, mut random: Rng, longest: Duration, until: Instant) {
    while Instant::now() < until {
        run(&mut conn, "begin; insert into beside values (1)").await;
        sleep(longest.mul_f64(random.f64()).min(until - Instant::now())).await;
        run(&mut conn, "commit").await;
        sleep(Duration::from_millis(random.u64(..50))).await;
    }
}

/// Prepares, and leaves it so for a while.
async fn prepare(mut conn: PgConnection, longest: Duration, until: Instant) {
    while Instant::now() < until {
        run(&mut conn, "begin; insert into beside values (1); prepare transaction 'bystander'").await;
        sleep((longest / 2).min(until - Instant::now())).await;
        run(&mut conn, "commit prepared 'bystander'").await;
        sleep(longest / 10).await;
    }
}

/// Keeps one snapshot for all of the time.
async fn pin(mut conn: PgConnection, until: Instant) {
    run(&mut conn, "begin isolation level repeatable read read only; select count(*) from es_events").await;
    tokio::time::sleep_until(until).await;
    run(&mut conn, "commit").await;
}
