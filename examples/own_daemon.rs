//! A daemon of one's own: the whole `foldd` command line, with a projection in Rust beside the SQL files.
//!
//! ```console
//! $ cargo run --example own_daemon -- run --embedded
//! $ cargo run --example own_daemon -- append account-7 Deposited '{"type": "Deposited", "cents": 1200}'
//! $ psql "$DATABASE_URL" -c 'select * from balances.balance'
//! ```

use std::process::ExitCode;

use foldd::{EventData, Handler, HandlerError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum AccountEvent {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

impl EventData for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Deposited { .. } => "Deposited",
            Self::Withdrawn { .. } => "Withdrawn",
        }
    }
}

/// One row an account. One statement a page, whatever its size.
struct Balances;

impl Handler for Balances {
    type Event = AccountEvent;

    fn event_types(&self) -> Option<&[&str]> {
        Some(&["Deposited", "Withdrawn"])
    }

    async fn apply(
        &self,
        tx: &mut PgConnection,
        events: &[Received<AccountEvent>],
    ) -> Result<(), HandlerError> {
        let accounts: Vec<&str> = events.iter().map(|event| event.recorded.stream_id.as_str()).collect();
        let changes: Vec<i64> = events
            .iter()
            .map(|event| match event.event {
                AccountEvent::Deposited { cents } => cents,
                AccountEvent::Withdrawn { cents } => -cents,
            })
            .collect();
        sqlx::query(
            "insert into balance as b (account, cents)
             select account, sum(change) from unnest($1::text[], $2::bigint[]) as given (account, change)
             group by account
             on conflict (account) do update set cents = b.cents + excluded.cents",
        )
        .bind(accounts)
        .bind(changes)
        .execute(tx)
        .await?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let balances = RustProjection::new("balances", 1, Balances)
        .categories(&["account"])
        .tables("create table balance (account text primary key, cents bigint not null)");
    foldd::main_with(Registry::new().with(balances))
}
