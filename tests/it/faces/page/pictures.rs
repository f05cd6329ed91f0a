//! The pictures of the documentation, taken of the demo: `cargo test --test it pictures -- --ignored`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::save;
use crate::faces::browser::Browser;
use crate::faces::trial::troubled;
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
    let folder = folder();
    // Long enough to have a line to draw.
    browser.go("http://127.0.0.1:3799/#/").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    for (page, name, there, height) in [
        ("#/", "overview", "All is well", 650),
        ("#/projections/parcels%401", "projection", "Batch times", 880),
    ] {
        browser.sized(1280, height).await;
        browser.go(&format!("http://127.0.0.1:3799/{page}")).await;
        browser.shows(there).await;
        in_both_themes(&mut browser, &folder, name).await;
    }
    demo.kill().expect("the demo ends");
    demo.wait().expect("the demo ends");
}

#[tokio::test]
#[ignore = "writes docs/pictures"]
async fn pictures_of_trouble() {
    let scene = troubled().await;
    let Some(mut browser) = Browser::start(&scene.world).await else { return };
    browser.sized(1280, 900).await;
    browser.go(&format!("http://{}/", scene.daemon.address().await)).await;
    browser.shows("need you now").await;
    browser.shows("nightly export").await;
    in_both_themes(&mut browser, &folder(), "trouble").await;
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

async fn in_both_themes(browser: &mut Browser, folder: &Path, name: &str) {
    for theme in ["light", "dark"] {
        browser.theme(theme).await;
        // Some samples in the new theme; nobody's verdict hangs on it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let picture = browser.picture().await;
        save(&folder.join(format!("{name}-{theme}.png")), &picture);
    }
}
