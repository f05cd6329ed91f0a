//! What is folded: nine read models of one log, each of which a mistake of another kind would show in.
//!
//! | projection | shows |
//! |---|---|
//! | `audit` | everything: each event as it was applied, in a table that refuses nothing |
//! | `chains` | order along a stream: each link is a hash over the one before, the event and its version |
//! | `whole` | order over the category, likewise |
//! | `sums` | set-based folding of a page: numbers and sums by stream and type |
//! | `counter` | every event of every category, one by one, on one row |
//! | `parted` | streams that change partitions again and again: each daemon is configured for another number |
//! | `slow` | batches that take their time, and are hit in the middle |
//! | `failing` | a projection that halts for good, beside others that must not care |
//! | `balances` | a Rust handler (`examples/own_daemon.rs`): its transaction is several statements and a COMMIT |

use crate::world::World;

/// The one whose number of partitions changes with every configuration.
pub(super) const PARTED: &str = "parted";

/// By name: what goes into the front matter, the tables, the handlers.
const FILES: [(&str, &str, &str, &str); 8] = [
    (
        "audit",
        "categories = [\"account\"]",
        "create table seen (nth bigint generated always as identity, event_id uuid not null, stream text not null,
                            version bigint not null, stamp xid8 not null, position bigint not null);
         create index on seen (event_id);",
        "-- @on Deposited\n-- @on Withdrawn\n-- @on Cursed
         insert into seen (event_id, stream, version, stamp, position)
         values (event.event_id, event.stream_id, event.stream_version, event.transaction_id, event.global_position);",
    ),
    (
        "chains",
        "categories = [\"account\"]",
        "create table chain (stream text primary key, hash text not null);",
        "-- @on Deposited\n-- @on Withdrawn\n-- @on Cursed
         insert into chain values (event.stream_id, md5('' || event.event_id || event.stream_version))
         on conflict (stream) do update set hash = md5(chain.hash || event.event_id || event.stream_version);",
    ),
    (
        "whole",
        "categories = [\"account\"]",
        "create table chain (only_row int primary key, hash text not null);",
        "-- @on Deposited\n-- @on Withdrawn\n-- @on Cursed
         insert into chain values (1, md5('' || event.event_id || event.stream_version))
         on conflict (only_row) do update set hash = md5(chain.hash || event.event_id || event.stream_version);",
    ),
    (
        "sums",
        "categories = [\"account\"]",
        "create table sum (stream text, event_type text, n bigint not null, cents bigint not null,
                           primary key (stream, event_type));",
        "-- @batch
         insert into sum
         select stream_id, event_type, count(*), sum((data->>'cents')::bigint) from batch group by 1, 2
         on conflict (stream, event_type) do update set n = sum.n + excluded.n, cents = sum.cents + excluded.cents;",
    ),
    (
        "counter",
        "all = true",
        "create table counter (only_row int primary key, n bigint not null);",
        "-- @on Deposited\n-- @on Withdrawn\n-- @on Cursed
         insert into counter values (1, 1) on conflict (only_row) do update set n = counter.n + 1;",
    ),
    (
        PARTED,
        "categories = [\"account\"]",
        "create table seen (nth bigint generated always as identity, event_id uuid not null, stream text not null,
                            version bigint not null);",
        "-- @on Deposited\n-- @on Withdrawn\n-- @on Cursed
         insert into seen (event_id, stream, version) values (event.event_id, event.stream_id, event.stream_version);",
    ),
    (
        "slow",
        "categories = [\"account\"]",
        "create table counter (only_row int primary key, n bigint not null);",
        "-- @on Withdrawn
         insert into counter select 1, 1 from pg_sleep(0.0005)
         on conflict (only_row) do update set n = counter.n + 1;",
    ),
    (
        "failing",
        "categories = [\"account\"]",
        "create table counter (only_row int primary key, n bigint not null);",
        "-- @on Deposited\n-- @on Withdrawn
         insert into counter values (1, 1) on conflict (only_row) do update set n = counter.n + 1;
         -- @on Cursed
         insert into counter values (1, 1 / (event.data->>'cents')::bigint);",
    ),
];

/// All of them that live in files.
pub(super) fn write(world: &World) {
    for (name, settings, tables, handlers) in FILES {
        let text = format!("/* foldd\nversion = 1\n{settings}\n*/\n-- @tables\n{tables}\n{handlers}\n");
        let text: String = text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        world.projection(name, &text);
    }
}

/// All of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, ..)| *name).chain(["balances"])
}
