//! Projections on a real log: results are compared with what the test computes from the same events.

mod corpus;
mod definitions;
mod equals;
mod failures;
mod guard;
mod names;
mod pages;
mod partitions;
mod plans;
mod refusals;
mod schemas;
mod transient;

/// A counting projection of category `order`, set by set.
pub(crate) const TALLY: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table tally (event_type text primary key, n bigint not null);\n-- @batch\n\
    insert into tally select event_type, count(*) from batch group by 1\n\
    on conflict (event_type) do update set n = tally.n + excluded.n;\n";

/// Bounds under which a batch may take 0.6 s and a lock be waited for 0.3 s.
pub(crate) const IMPATIENT: [(&str, &str); 3] = [
    ("FOLDD__DAEMON__LIVE_BATCH", "50ms"),
    ("FOLDD__DAEMON__CATCH_UP_BATCH", "100ms"),
    ("FOLDD__DAEMON__BATCH_TIMEOUT", "600ms"),
];

/// A projection file of category `order` from its parts.
fn file(tables: &str, handlers: &str) -> String {
    format!("/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n{tables}\n{handlers}\n")
}

/// The line, from 1, on which a text stands in a file.
fn line_of(file: &str, text: &str) -> usize {
    1 + file.lines().position(|line| line.contains(text)).expect("the text stands in the file")
}
