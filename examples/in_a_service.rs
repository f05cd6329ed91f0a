//! The daemon inside a service: it appends, folds and answers from the read model in one process, and ends when it is
//! asked to.
//!
//! ```console
//! $ cargo run --example in_a_service
//! ```
//!
//! Brings a PostgreSQL of its own along, so that it runs anywhere; a real service has a pool already.

use std::error::Error;
use std::time::Duration;

use foldd::embedded::{Options, Server};
use foldd::{Daemon, Event, EventData, EventStore, ExpectedVersion, Registry};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const ORDERS: &str = r#"/* foldd
version = 1
categories = ["order"]
*/
-- @tables
create table orders (customer text primary key, n bigint not null);
-- @on Order Placed
insert into orders as o values (event.data->>'customer', 1)
on conflict (customer) do update set n = o.n + 1;
"#;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    customer: String,
}

impl EventData for OrderPlaced {
    fn event_type(&self) -> &'static str {
        "Order Placed"
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start(Options::default()).await?;
    let pool = PgPool::connect(&server.url("postgres")).await?;

    let cancel = CancellationToken::new();
    let daemon = Daemon::new(Registry::new()).with_sql("orders", ORDERS).workers(2);
    let folding = tokio::spawn(daemon.run(pool.clone(), cancel.clone()));

    let store = EventStore::new(pool.clone());
    store.migrate().await?;
    for (number, customer) in ["ada", "grace", "ada"].into_iter().enumerate() {
        let placed = Event::new(OrderPlaced { customer: customer.to_owned() });
        store.append(&format!("order-{number}"), "order", ExpectedVersion::NoStream, &[placed]).await?;
    }

    // A service that must read its own writes waits until its subscription has no lag.
    while store.projection_lag("orders@1").await.map_or(1, |lag| lag.events) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select customer, n from orders.orders order by customer").fetch_all(&pool).await?;
    for (customer, n) in &rows {
        println!("{customer} has placed {n}");
    }
    assert_eq!(rows, [("ada".to_owned(), 2), ("grace".to_owned(), 1)]);

    cancel.cancel();
    folding.await??;
    pool.close().await;
    server.stop().await?;
    Ok(())
}
