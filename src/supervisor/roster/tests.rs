use std::time::Duration;

use super::{AT_WORK, LastMost, Next, Roster, Seated};

impl Seated for &'static str {
    fn comes_last(&self) -> bool {
        self.starts_with("build")
    }

    fn leave(&mut self) {
        *self = "gone";
    }
}

/// So many at a time whatever the others do.
fn most(most: usize) -> LastMost {
    LastMost { alone: most, beside: most }
}

/// A roster on which everybody is due.
fn seated(names: Vec<&'static str>, last_most: LastMost) -> Roster<&'static str> {
    let roster = Roster::new(last_most);
    for name in names {
        roster.sit(roster.reserve(), name);
    }
    roster
}

/// Has the next turn and says who it was.
async fn turn(roster: &Roster<&'static str>, next: Next) -> &'static str {
    let (index, who) = roster.next().await;
    let name = *who;
    roster.give_back(index, who, next);
    name
}

#[tokio::test]
async fn who_is_far_behind_has_one_turn_between_those_of_who_is_woken() {
    let roster = seated(vec!["far behind", "live"], most(1));
    assert_eq!(turn(&roster, Next::Again).await, "far behind");
    assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
    for _ in 0..3 {
        assert_eq!(
            turn(&roster, Next::Again).await,
            "far behind",
            "it has all turns while nobody else wants one"
        );
    }
    for _ in 0..3 {
        roster.wake([1]);
        // Whoever is in front has one turn more, and no second one.
        assert_eq!(turn(&roster, Next::Again).await, "far behind");
        assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
    }
}

#[tokio::test]
async fn what_is_built_has_a_turn_when_nobody_else_wants_one_and_never_all_workers() {
    let roster = seated(vec!["build one", "build two", "live"], most(1));
    assert_eq!(turn(&roster, Next::Again).await, "live");
    assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
    let (index, build) = roster.next().await;
    assert_eq!(*build, "build one");
    let waits = tokio::time::timeout(Duration::from_millis(1), roster.next()).await;
    assert!(waits.is_err(), "one build at a time");
    roster.wake([2]);
    assert_eq!(turn(&roster, Next::WhenWoken).await, "live", "there is a worker left for it");
    roster.give_back(index, build, Next::Again);
    assert_eq!(turn(&roster, Next::WhenWoken).await, "build two");
    assert_eq!(turn(&roster, Next::WhenWoken).await, "build one");
}

#[tokio::test]
async fn more_is_built_at_once_while_the_others_have_no_work() {
    let roster = seated(vec!["build one", "build two", "live"], LastMost { alone: 2, beside: 1 });
    assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
    let (one, first) = roster.next().await;
    let waits = tokio::time::timeout(AT_WORK / 10, roster.next()).await;
    assert!(waits.is_err(), "the live one had work just now");
    let (two, second) = roster.next().await;
    assert_eq!((*first, *second), ("build one", "build two"), "nobody wakes the roster for it");
    roster.give_back(one, first, Next::Again);
    roster.give_back(two, second, Next::Again);
}

#[tokio::test]
async fn of_many_who_all_want_more_each_has_its_turn_in_each_round() {
    let names = ["a", "b", "c", "d"];
    let roster = seated(names.to_vec(), most(1));
    for _ in 0..3 {
        for name in names {
            assert_eq!(turn(&roster, Next::Again).await, name);
        }
    }
}

#[tokio::test]
async fn a_wake_up_during_a_turn_gives_another_one_and_one_while_resting_does_not() {
    let roster = seated(vec!["woken", "resting"], most(1));
    let (index, woken) = roster.next().await;
    roster.wake([index]);
    roster.give_back(index, woken, Next::WhenWoken);
    assert_eq!(turn(&roster, Next::After(Duration::from_secs(3600))).await, "resting");
    roster.wake([1]);
    assert_eq!(turn(&roster, Next::WhenWoken).await, "woken");
    assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err(), "nobody is due");
}
#[tokio::test]
async fn a_recall_ends_a_rest_and_what_is_left_of_it_gives_no_turn() {
    let roster = seated(vec!["resting"], most(1));
    let rest = Duration::from_millis(50);
    assert_eq!(turn(&roster, Next::After(rest)).await, "resting");
    roster.recall(0);
    roster.recall(0);
    let recalled = tokio::time::timeout(rest / 2, turn(&roster, Next::WhenWoken)).await;
    assert_eq!(recalled, Ok("resting"));
    assert!(
        tokio::time::timeout(rest * 2, roster.next()).await.is_err(),
        "neither the second recall nor the end of the old rest is a turn"
    );
    roster.wake([0]);
    assert_eq!(turn(&roster, Next::WhenWoken).await, "resting");
}

#[tokio::test]
async fn a_later_rest_is_not_ended_by_what_is_left_of_an_earlier_one() {
    let roster = seated(vec!["resting"], most(1));
    turn(&roster, Next::After(Duration::from_millis(20))).await;
    roster.recall(0);
    turn(&roster, Next::After(Duration::from_secs(3600))).await;
    assert!(tokio::time::timeout(Duration::from_millis(60), roster.next()).await.is_err());
}

#[tokio::test]
async fn a_recall_during_a_turn_gives_another_one_whatever_the_turn_wants() {
    for next in [Next::Again, Next::WhenWoken, Next::WhenCalled, Next::After(Duration::from_secs(3600))] {
        let roster = seated(vec!["recalled"], most(1));
        let (index, recalled) = roster.next().await;
        roster.wake([index]);
        roster.recall(index);
        roster.wake([index]);
        roster.give_back(index, recalled, next);
        assert_eq!(turn(&roster, Next::WhenWoken).await, "recalled");
        assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
    }
}

#[tokio::test]
async fn who_stands_aside_has_no_turn_when_woken_and_one_when_recalled() {
    let roster = seated(vec!["aside"], most(1));
    turn(&roster, Next::WhenCalled).await;
    roster.wake([0]);
    assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
    roster.recall(0);
    assert_eq!(turn(&roster, Next::WhenCalled).await, "aside");
}

#[tokio::test]
async fn a_recall_wakes_who_waits_for_a_turn_and_nobody_who_is_done() {
    let roster = std::sync::Arc::new(seated(vec!["idle"], most(1)));
    turn(&roster, Next::WhenWoken).await;
    let waiting = async { turn(&roster, Next::Never).await };
    let recalling = async {
        tokio::task::yield_now().await;
        roster.recall(0);
    };
    let (who, ()) = tokio::join!(waiting, recalling);
    assert_eq!(who, "idle");
    roster.recall(0);
    assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
}

#[tokio::test]
async fn who_is_dismissed_has_no_turn_any_more_and_holds_up_nobody() {
    let roster = seated(vec!["build one", "build two", "live"], most(1));
    assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
    let (index, build) = roster.next().await;
    roster.dismiss(index);
    roster.dismiss(1);
    roster.recall(index);
    assert_eq!(roster.drain(|_| ()), [index], "its turn has not ended");
    roster.give_back(index, build, Next::Again);
    let roster = seated(vec!["build one", "build two"], most(1));
    let (index, build) = roster.next().await;
    roster.dismiss(index);
    roster.give_back(index, build, Next::Again);
    assert_eq!(turn(&roster, Next::WhenWoken).await, "build two", "the place among builds is free");
    roster.recall(index);
    roster.wake_all();
    assert_eq!(turn(&roster, Next::WhenWoken).await, "build two");
    assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
    assert!(roster.drain(|_| ()).is_empty());
}
