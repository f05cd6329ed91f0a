//! Hostage: how late events become visible beside a transaction that has nothing to do with them.
//!
//! The same steady appends as in `latency`, beside an unrelated writer that keeps its transaction open and a prepared
//! transaction, both until the appends are over. Tier 0 is the same log with a column default of somebody's own, which
//! takes the proof away: its readers wait for whoever is open, as with the plain scheme everywhere.

use std::time::Duration;

use sqlx::Connection;

use crate::Extent;
use crate::lab::{Database, Lab};
use crate::latency::latencies;
use crate::report::{Aim, Figure, quantile};

/// For so long the bystanders stay.
const TIME: Duration = Duration::from_secs(30);
/// Equivalent to the log's own default, and not known to be.
const FOREIGN_DEFAULT: &str =
    "alter table es_events alter column transaction_id set default greatest(es_stamp(), es_stamp())";

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let mut figures = Vec::new();
    for tier in [0, 1] {
        let (mut middle, mut tail) = (Vec::new(), Vec::new());
        for run in 1..=extent.runs {
            tracing::info!("hostage: run {run} of {}, tier {tier}", extent.runs);
            let database = lab.database(&format!("hostage_{tier}_{run}")).await?;
            if tier == 0 {
                database.execute(FOREIGN_DEFAULT).await?;
            }
            let latencies = beside_bystanders(&database, extent.time(TIME)).await?;
            middle.push(quantile(&latencies, 0.5));
            tail.push(quantile(&latencies, 0.99));
            database.pool.close().await;
        }
        let aim = |figure: Figure, below| if tier == 1 { figure.aim(Aim::Below(below)) } else { figure };
        figures.push(Figure::new(format!("tier {tier}, median"), "ms", middle));
        figures.push(aim(Figure::new(format!("tier {tier}, 99 of 100"), "ms", tail), 100.0));
    }
    Ok(figures)
}

/// Milliseconds of each event, while two transactions are open that have not appended.
async fn beside_bystanders(database: &Database, time: Duration) -> anyhow::Result<Vec<f64>> {
    database.execute("create table other (n int)").await?;
    let mut open = database.pool.acquire().await?.detach();
    let mut prepared = database.pool.acquire().await?.detach();
    let bystanders = async {
        sqlx::raw_sql("begin; insert into other values (1)").execute(&mut open).await?;
        sqlx::raw_sql("begin; insert into other values (2); prepare transaction 'bystander'")
            .execute(&mut prepared)
            .await?;
        // They outlive the appends, whose time begins a little later.
        tokio::time::sleep(time).await;
        sqlx::raw_sql("rollback").execute(&mut open).await?;
        sqlx::raw_sql("rollback prepared 'bystander'").execute(&mut prepared).await?;
        open.close().await?;
        anyhow::Ok(())
    };
    let (latencies, bystanders) = tokio::join!(latencies(database, 1, time, &[]), bystanders);
    bystanders?;
    latencies
}
