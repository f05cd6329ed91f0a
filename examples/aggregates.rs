//! Aggregates: commands that decide, events that happened, snapshots that shorten loading, and one transaction over two
//! streams.
//!
//! ```console
//! $ cargo run --example aggregates
//! ```

use std::error::Error;

use foldd::embedded::{Options, Server};
use foldd::{Aggregate, AggregateRoot, EventData, EventStore, EventStoreError, Snapshot};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type")]
enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

impl EventData for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "Opened",
            Self::Deposited { .. } => "Deposited",
            Self::Withdrawn { .. } => "Withdrawn",
        }
    }
}

/// What a decision needs to know about an account.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    owner: Option<String>,
    cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn stream_category() -> &'static str {
        "account"
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => self.owner = Some(owner.clone()),
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

impl Snapshot for Account {
    const SNAPSHOT_VERSION: i32 = 1;
    const SNAPSHOT_FREQUENCY: i64 = 100;
}

/// A command: looks at the state, refuses or records what happened.
fn withdraw(account: &mut AggregateRoot<Account>, cents: i64) -> Result<(), String> {
    let balance = account.state().cents;
    if balance < cents {
        return Err(format!("{} has {balance}, which is less than {cents}", account.stream_id()));
    }
    account.record(AccountEvent::Withdrawn { cents });
    Ok(())
}

/// Loads, decides, saves; when somebody else saved first, decides anew on what is there then.
async fn withdraw_from(store: &EventStore, id: &str, cents: i64) -> Result<i64, Box<dyn Error>> {
    loop {
        let mut account: AggregateRoot<Account> = store.load_or_default_snapshotted(id).await?;
        withdraw(&mut account, cents)?;
        match store.save_snapshotting(&mut account).await {
            Ok(()) => return Ok(account.state().cents),
            Err(EventStoreError::ConcurrencyConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves money between two accounts, both or neither. Streams are locked in sorted order, as everywhere.
async fn transfer(store: &EventStore, from: &str, to: &str, cents: i64) -> Result<(), Box<dyn Error>> {
    let mut scope = store.begin_transaction().await?;
    let (first, second) = if from < to { (from, to) } else { (to, from) };
    let mut one: AggregateRoot<Account> = scope.load_or_default_for_update(first).await?;
    let mut other: AggregateRoot<Account> = scope.load_or_default_for_update(second).await?;
    let (giver, taker) = if from < to { (&mut one, &mut other) } else { (&mut other, &mut one) };
    withdraw(giver, cents)?;
    taker.record(AccountEvent::Deposited { cents });
    scope.save(&mut one).await?;
    scope.save(&mut other).await?;
    for event in scope.commit().await?.events() {
        println!("  {} is event {} of {}", event.event_type, event.stream_version, event.stream_id);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start(Options::default()).await?;
    let pool = PgPool::connect(&server.url("postgres")).await?;
    let store = EventStore::new(pool.clone());
    store.migrate().await?;

    for (id, owner) in [("1", "Ada"), ("2", "Grace")] {
        let mut account = AggregateRoot::<Account>::new(id);
        account.record(AccountEvent::Opened { owner: owner.to_owned() });
        account.record(AccountEvent::Deposited { cents: 1_000 });
        store.save(&mut account).await?;
    }
    println!("after a withdrawal account-1 has {}", withdraw_from(&store, "1", 300).await?);
    println!("a transfer:");
    transfer(&store, "2", "1", 250).await?;
    let refused = transfer(&store, "2", "1", 5_000).await;
    println!("a refused one: {}", refused.err().map_or_else(String::new, |why| why.to_string()));

    let account: AggregateRoot<Account> = store.load_or_default("1").await?;
    assert_eq!((account.state().cents, account.version()), (950, 4));
    pool.close().await;
    server.stop().await?;
    Ok(())
}
