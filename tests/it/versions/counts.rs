//! How much is left of a build is counted by streams where those are few; whether it is done is not left to a count.

use super::{role, tally};
use crate::world::World;

/// Subscriptions of one category, of both in one partition of three, of everything; none has begun.
const SUBSCRIPTIONS: &str = "
    insert into es_subscriptions (subscription_id, categories, partition, partitions)
    values ('one', array['order'], 0, 1), ('both/1', array['order', 'fine'], 1, 3), ('all', null, 0, 1)";

#[tokio::test]
async fn streams_say_how_many_events_there_are_below_a_horizon() {
    let world = World::new().await;
    world.seed("order", 3_000).await;
    world.seed("fine", 500).await;
    let middle = world.value("select es_horizon()").await;
    world.seed("order", 300).await;
    world.execute(SUBSCRIPTIONS).await;
    world.execute("vacuum analyze es_events").await;
    world.execute("vacuum analyze es_streams").await;
    let counted = |horizon: &str| {
        format!(
            "select string_agg(format('%s: %s, %s', s.subscription_id, es_count_own_by_streams(s.subscription_id, h),
                                      es_count_own_after(s.subscription_id, '0', h)), '; ')
             from es_subscriptions s cross join (select {horizon}::xid8) given (h)
             where es_count_own_by_streams(s.subscription_id, h)
                   is distinct from es_count_own_after(s.subscription_id, '0', h)"
        )
    };
    for horizon in ["es_horizon()".to_owned(), format!("'{middle}'"), "'0'".to_owned()] {
        assert_eq!(world.value(&counted(&horizon)).await, "", "counts that differ at {horizon}");
    }
    // Not where it does not pay, and not where the streams may not know.
    let unknown = "select count(*) from es_subscriptions s
                   where es_count_own_by_streams(s.subscription_id, es_horizon()) is null";
    world.execute("update es_subscriptions set floors = '[]' where subscription_id = 'both/1'").await;
    assert_eq!(world.value(unknown).await, "1", "below floors");
    world
        .execute(
            "insert into es_streams (stream_id, stream_category, stream_version) values ('raw-1', 'raw', 9);
             insert into es_events (stream_id, stream_version, event_type, data) values ('raw-1', 1, 'A', '{}')",
        )
        .await;
    assert_eq!(world.value(unknown).await, "3", "somebody has inserted without es_append");
}

#[tokio::test]
async fn as_many_streams_as_events_are_not_counted() {
    let world = World::new().await;
    world
        .execute("select es_append('order-' || n, null, null, array['A'], array['{}'::jsonb]) from generate_series(1, 500) n")
        .await;
    world.execute(SUBSCRIPTIONS).await;
    let counted =
        "select count(es_count_own_by_streams(s.subscription_id, es_horizon())) from es_subscriptions s";
    assert_eq!(world.value(counted).await, "0", "not analysed yet");
    world.execute("vacuum analyze es_events").await;
    world.execute("vacuum analyze es_streams").await;
    assert_eq!(world.value(counted).await, "0");
}

#[tokio::test]
async fn a_wrong_count_neither_loses_events_nor_ends_a_build_too_early() {
    // In pages of a thousand, and in one page of the rest.
    for pages in ["max_page_events = 1000", ""] {
        let world = World::new().await;
        world.seed("order", 60_000).await;
        // As nobody may: half of each stream is not known of.
        world.execute("update es_streams set stream_version = stream_version / 2").await;
        world.execute("vacuum analyze es_events").await;
        world.execute("vacuum analyze es_streams").await;
        world
            .execute(
                "create table built (position bigint);
                 create function note_built() returns trigger language plpgsql security definer as $$
                 begin
                     insert into public.built values (new.last_position);
                     return new;
                 end $$;
                 create trigger note_built before update of is_built on es_subscriptions
                 for each row when (new.is_built and not old.is_built) execute function note_built()",
            )
            .await;
        world.configure(&format!("[daemon]\n{pages}"));
        tally(&world, 1, "");
        let _daemon = world.daemon();
        role(&world, 1, "live").await;
        assert_eq!(
            world.value("select string_agg(position::text, ', ') from built").await,
            "60000",
            "{pages}"
        );
        assert_eq!(world.value("select sum(n) from tally.tally").await, "60000", "{pages}");
        assert_eq!(world.value("select n from tally.whole").await, "60000", "{pages}");
    }
}
