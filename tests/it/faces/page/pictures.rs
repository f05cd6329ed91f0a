//! The pictures of the documentation, taken of the demo: `cargo test --test it pictures -- --ignored`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::save;
use crate::faces::browser::Browser;
use crate::world::World;

#[tokio::test]
#[ignore = "writes docs/pictures"]
async fn pictures_of_the_demo() {
    let world = World::bare().await;
    let Some(mut browser) = Browser::start(&world).await else { return };
    let mut command = world.command(&["demo", "--listen", "127.0.0.1:3799"]);
    let mut demo = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the demo starts");
    world
        .eventually("the demo listens", async || std::net::TcpStream::connect("127.0.0.1:3799").is_ok())
        .await;
    browser.sized(1280, 860).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    // Long enough to have a line to draw.
    browser.go("http://127.0.0.1:3799/#/").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    for (page, name, there) in
        [("#/", "overview", "All is well"), ("#/projections/parcels%401", "projection", "Batch times")]
    {
        browser.go(&format!("http://127.0.0.1:3799/{page}")).await;
        browser.shows(there).await;
        for theme in ["light", "dark"] {
            browser.theme(theme).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let picture = browser.picture().await;
            save(&folder.join(format!("{name}-{theme}.png")), &picture);
        }
    }
    demo.kill().expect("the demo ends");
    demo.wait().expect("the demo ends");
}
