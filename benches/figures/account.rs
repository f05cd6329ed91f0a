//! The read model that is measured: the balance of each account, as an `@on`, an `@batch` and a Rust
//! projection.

use std::collections::BTreeMap;

use foldd::{Daemon, EventData, Handler, HandlerError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// What happens to an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum AccountEvent {
    /// Money came.
    Deposited { cents: i64, reference: String },
    /// Money went.
    Withdrawn { cents: i64, reference: String },
}

impl AccountEvent {
    /// By how much the balance changes.
    pub(crate) fn change(&self) -> i64 {
        match self {
            Self::Deposited { cents, .. } => *cents,
            Self::Withdrawn { cents, .. } => -cents,
        }
    }
}

impl EventData for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Deposited { .. } => "Deposited",
            Self::Withdrawn { .. } => "Withdrawn",
        }
    }
}

/// The table, in every form of the model.
pub(crate) const TABLE: &str = "create table balance (account text primary key, cents bigint not null)";

/// One upsert an event.
pub(crate) fn on_event(category: &str) -> String {
    format!(
        "/* foldd\nversion = 1\ncategories = [\"{category}\"]\n*/\n-- @tables\n{TABLE};\n\
         -- @on Deposited\n\
         insert into balance values (event.stream_id, (event.data->>'cents')::bigint)\n\
         on conflict (account) do update set cents = balance.cents + excluded.cents;\n\
         -- @on Withdrawn\n\
         insert into balance values (event.stream_id, -(event.data->>'cents')::bigint)\n\
         on conflict (account) do update set cents = balance.cents + excluded.cents;\n"
    )
}

/// The change of each account by a relation of events.
pub(crate) const CHANGES: &str =
    "stream_id, sum(case event_type when 'Withdrawn' then -1 else 1 end * (data->>'cents')::bigint)";

/// One upsert a page.
pub(crate) fn on_batch(category: &str) -> String {
    format!(
        "/* foldd\nversion = 1\ncategories = [\"{category}\"]\n*/\n-- @tables\n{TABLE};\n\
         -- @batch\n\
         insert into balance select {CHANGES} from batch group by stream_id\n\
         on conflict (account) do update set cents = balance.cents + excluded.cents;\n"
    )
}

/// One array-bound upsert a page, added up by account before.
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
        let mut changes: BTreeMap<&str, i64> = BTreeMap::new();
        for event in events {
            *changes.entry(&event.recorded.stream_id).or_default() += event.event.change();
        }
        let (accounts, cents): (Vec<&str>, Vec<i64>) = changes.into_iter().unzip();
        sqlx::query(
            "insert into balance select * from unnest($1::text[], $2::bigint[])
             on conflict (account) do update set cents = balance.cents + excluded.cents",
        )
        .bind(accounts)
        .bind(cents)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// A daemon that folds the balances in Rust.
pub(crate) fn in_rust(name: &str, category: &str) -> Daemon {
    let balances = RustProjection::new(name, 1, Balances).categories(&[category]).tables(TABLE);
    Daemon::new(Registry::new().with(balances))
}

/// A daemon that folds them by a file.
pub(crate) fn in_sql(name: &str, text: &str) -> Daemon {
    Daemon::new(Registry::new()).with_sql(name, text)
}
