//! After quarantine and retry the read model is the fold of the log, in stream order: over random failures.

use std::collections::BTreeMap;

use super::{HANDLERS, TABLES, append_bad, append_good, applied, file, letters, settled};
use crate::world::World;

/// Streams and which of their events fail, drawn at random.
fn draw(random: &mut fastrand::Rng) -> Vec<(String, bool)> {
    let streams = random.u32(1..8);
    (0..random.usize(5..60))
        .map(|_| (format!("order-{}", random.u32(0..streams)), random.u32(0..6) == 0))
        .collect()
}

/// What is applied and what is parked while nothing is mended.
fn expected(events: &[(String, bool)]) -> (Vec<String>, usize) {
    let mut streams: BTreeMap<&str, (u32, bool)> = BTreeMap::new();
    let mut parked = 0;
    for (stream, fails) in events {
        let (applied, is_quarantined) = streams.entry(stream).or_default();
        *is_quarantined |= fails;
        if *is_quarantined {
            parked += 1;
        } else {
            *applied += 1;
        }
    }
    (lines(streams.into_iter().map(|(stream, (applied, _))| (stream, applied))), parked)
}

fn whole(events: &[(String, bool)]) -> Vec<String> {
    let mut streams: BTreeMap<&str, u32> = BTreeMap::new();
    for (stream, _) in events {
        *streams.entry(stream).or_default() += 1;
    }
    lines(streams.into_iter())
}

fn lines<'s>(streams: impl Iterator<Item = (&'s str, u32)>) -> Vec<String> {
    let line = |(stream, events): (&str, u32)| {
        format!("{stream}: {}", (1..=events).map(|version| version.to_string()).collect::<Vec<_>>().join(" "))
    };
    streams.filter(|(_, events)| *events > 0).map(line).collect()
}

async fn append_all(world: &World, events: &[(String, bool)]) {
    for (stream, fails) in events {
        if *fails {
            append_bad(world, stream, "22012").await;
        } else {
            append_good(world, stream, 1).await;
        }
    }
}

#[tokio::test]
async fn quarantine_and_retry_give_the_fold_of_the_log() {
    let given = std::env::var("FOLDD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| fastrand::u64(..));
    println!("FOLDD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for (name, handlers) in HANDLERS {
        for _ in 0..3 {
            let world = World::new().await;
            world.projection(name, &file("on_error = \"quarantine_stream\"", TABLES, handlers));
            let pages = random.u32(1..40).to_string();
            let variables = [("FOLDD__DAEMON__MAX_PAGE_EVENTS", pages.as_str())];
            let mut events = draw(&mut random);
            append_all(&world, &events).await;
            let daemon = world.daemon_with(&variables);
            settled(&world, name).await;
            let more = draw(&mut random);
            append_all(&world, &more).await;
            events.extend(more);
            settled(&world, name).await;
            let (unharmed, parked) = expected(&events);
            assert_eq!(applied(&world, name).await, unharmed, "{events:?}");
            assert_eq!(letters(&world, name).await.len(), parked, "{events:?}");

            // Some streams are retried in vain, then all of them once they can be, beside new events.
            let done = world.foldd(&["dead-letters", "retry", name, "--stream", "order-0"]).await;
            assert!(done.code < 2, "{done:?}");
            assert_eq!(applied(&world, name).await, unharmed, "{events:?}");
            assert_eq!(letters(&world, name).await.len(), parked, "{events:?}");
            world.execute(&format!("insert into {name}.mended values (true)")).await;
            let more = draw(&mut random);
            let retry = ["dead-letters", "retry", name, "--all"];
            tokio::join!(world.foldd(&retry), append_all(&world, &more));
            events.extend(more);
            settled(&world, name).await;
            // What came behind a stream that was not whole yet was parked after the first retry had been asked for.
            world
                .eventually("the letters are gone", async || {
                    world.foldd(&["dead-letters", "retry", name, "--all"]).await;
                    letters(&world, name).await.is_empty()
                })
                .await;
            assert_eq!(applied(&world, name).await, whole(&events), "{events:?}");
            daemon.stop().await;
        }
    }
}
