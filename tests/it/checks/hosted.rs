//! A Rust handler is verified, and built aside, by the program that has it.

use crate::examples::example;
use crate::world::{Done, World};

async fn own(world: &World, args: &[&str]) -> Done {
    let mut command = world.command_of(&example("own_daemon"), args);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the command's thread ends")
        .expect("the example is built: cargo build --examples");
    Done::of(output)
}

#[tokio::test]
async fn a_read_model_folded_in_rust_is_verified_and_built_as_it_was() {
    let world = World::new().await;
    let daemon = world.daemon_of(world.command_of(&example("own_daemon"), &["run"]));
    for n in 1..=30 {
        let data = format!(r#"{{"type": "Deposited", "cents": {n}}}"#);
        world.append(&format!("account-{}", n % 3), "Deposited", &data).await;
    }
    world.caught_up("balances").await;
    world.phase("balances", "live").await;
    let done = own(&world, &["verify", "balances"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("balance: 3 rows, all as the log gives them"), "{}", done.out);
    world.execute("update balances.balance set cents = cents + 1 where account = 'account-2'").await;
    let done = own(&world, &["verify", "balances"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.out.contains("- (account-2,155)") && done.out.contains("+ (account-2,156)"), "{}", done.out);

    let done = own(&world, &["build", "balances", "--into", "early", "--until", "6"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let sums = "select string_agg(account || '=' || cents, ' ' order by account) from early.balance";
    assert_eq!(world.value(sums).await, "account-0=9 account-1=5 account-2=7");
    // A program without the handler says so.
    let done = world.foldd(&["verify", "balances"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("balances@1 has a Rust handler"), "{}", done.err);
    daemon.stop().await;
}
