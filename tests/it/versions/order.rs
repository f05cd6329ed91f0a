//! Statements that cannot tell in what order they meet events may have the log as it lies in its table; others never.

use sqlx::AssertSqlSafe;

use crate::world::World;

const PROJECTION: &str = "\
/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create table seen ({columns});
-- @batch
{statement};
";

/// So many events of other streams were written between the first event of a transaction and its others, and come after all of
/// it in the log. Enough for a page of its own.
const BETWEEN: i64 = 30_000;
/// The others.
const LATE: i64 = 2_000;

/// A log that does not lie in its table as it is read: in one category, apart from a few events.
async fn tangled() -> World {
    let world = World::new().await;
    let mut early = world.pool().begin().await.expect("a connection");
    let append = |name: &str, streams: i64, events: i64| {
        format!(
            "select count(*) from (
                 select es_append('{name}-' || n % {streams}, null, null, array_agg('Placed'::text),
                                  array_agg(jsonb_build_object('cents', n)))
                 from generate_series(1, {events}) n group by n % {streams}) appended"
        )
    };
    let mut appends_early = async |name: &str, events: i64| {
        let append = append(name, 1, events);
        sqlx::raw_sql(AssertSqlSafe(append)).execute(&mut *early).await.expect("it appends");
    };
    appends_early("order-first", 1).await;
    world.execute(&append("order", 50, BETWEEN)).await;
    world.execute(&append("fine", 50, 100)).await;
    appends_early("order-late", LATE).await;
    early.commit().await.expect("it commits");
    world.execute("vacuum analyze es_events").await;
    world.execute("vacuum analyze es_streams").await;
    let tangled =
        "select count(*) from (select transaction_id, lag(transaction_id) over (order by ctid) as before
                                         from es_events) e where transaction_id < before";
    assert_ne!(world.value(tangled).await, "0", "the log lies as it is read");
    world
}

/// Notes with every move of a checkpoint whether its page was read as it lies: only then does a batch say where it ends.
const ROUTES: &str = "
    create table routes (subscription_id text, ends_at text);
    create function note_route() returns trigger language plpgsql security definer as $$
    begin
        insert into public.routes values (new.subscription_id, current_setting('foldd.last_position', true));
        return new;
    end $$;
    create trigger note_route before update of last_position on es_subscriptions
    for each row execute function note_route()";

#[tokio::test]
async fn the_order_of_a_large_page_is_that_of_the_log_for_whoever_can_tell() {
    let world = tangled().await;
    world.execute(ROUTES).await;
    let text = |columns: &str, statement: &str| {
        PROJECTION.replace("{columns}", columns).replace("{statement}", statement)
    };
    let numbered =
        "insert into seen (position, stamp) select global_position, transaction_id::text::bigint from batch";
    world.projection(
        "numbered",
        &text("nth bigint generated always as identity, position bigint, stamp bigint", numbered),
    );
    let added = "insert into seen select stream_id, count(*), sum((data->>'cents')::int), max(stream_version) from batch group by 1
                 on conflict (stream_id) do update
                 set events = seen.events + excluded.events, cents = seen.cents + excluded.cents,
                     latest = greatest(seen.latest, excluded.latest)";
    world.projection(
        "added",
        &text("stream_id text primary key, events bigint, cents bigint, latest bigint", added),
    );
    let _daemon = world.daemon();
    world.caught_up("numbered").await;
    world.caught_up("added").await;

    let inverted = "select count(*) from (select (stamp, position) < lag((stamp, position)) over (order by nth) as is_inverted
                                          from numbered.seen) s where is_inverted";
    assert_eq!(world.value(inverted).await, "0");
    assert_eq!(world.value("select count(*) from numbered.seen").await, (1 + BETWEEN + LATE).to_string());
    let wanted = "select stream_id, count(*), sum((data->>'cents')::int), max(stream_version) from es_events
                  where stream_category = 'order' group by 1";
    let differences = format!(
        "select count(*) from ((table added.seen except {wanted}) union all ({wanted} except table added.seen)) different"
    );
    assert_eq!(world.value(&differences).await, "0");
    let routes = "select string_agg(distinct subscription_id, ', ') from routes where ends_at <> ''";
    assert_eq!(world.value(routes).await, "added@1", "which of them read a page as it lies");
}
