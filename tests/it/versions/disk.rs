//! The disk is full while a version is built beside the live one. Needs the right to mount; skipped without.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;

use super::{live, role, version};
use crate::world::World;

/// A file system of its own, with a size.
struct Small {
    path: PathBuf,
}

impl Small {
    /// `None` where nobody may mount.
    fn mount(name: &str, size: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("foldd-small-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        let small = Self { path };
        let mounted = small.run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0777"), "tmpfs"]);
        if !mounted {
            eprintln!("skipped: this process may not mount a small file system");
            return None;
        }
        Some(small)
    }

    /// Lets whatever is created in the world's database from now on stand here.
    async fn take_in(&self, world: &World) {
        let space = self.path.join("space");
        std::fs::create_dir(&space).expect("a folder can be made");
        // The server runs as another user where this is root.
        let data = world.value("select current_setting('data_directory')").await;
        let owner = std::fs::metadata(data).expect("the server's folder is there");
        chown(&space, Some(owner.uid()), Some(owner.gid())).expect("it can be handed over");
        world.execute(&format!("create tablespace small location '{}'", space.display())).await;
        world.execute("grant create on tablespace small to public").await;
        let database = world.value("select quote_ident(current_database())").await;
        world.execute(&format!("alter database {database} set default_tablespace = small")).await;
    }

    fn run(&self, program: &str, args: &[&str]) -> bool {
        let output = Command::new(program).args(args).arg(&self.path).output();
        output.is_ok_and(|output| output.status.success())
    }

    fn grow(&self) {
        assert!(self.run("mount", &["-o", "remount,size=400m"]), "it can be made larger");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The server may still have files open there.
        self.run("umount", &["-l"]);
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Two kilobytes an event.
const BULKY: &str = "\
/* foldd
version = 2
categories = [\"order\"]
*/
-- @tables
create table whole (only_row int primary key, n bigint not null);
create table bulk (global_position bigint primary key, pad text not null);
-- @batch
insert into whole select 1, count(*) * 2 from batch having count(*) > 0
on conflict (only_row) do update set n = whole.n + excluded.n;
-- @batch
insert into bulk select global_position, repeat(md5(global_position::text), 60) from batch;
";

#[tokio::test]
async fn a_full_disk_stops_the_build_alone_which_goes_on_when_there_is_space() {
    let Some(small) = Small::mount("build", "4m") else { return };
    let world = World::alone().await;
    live(&world, 4000).await;
    small.take_in(&world).await;
    world.projection("tally", BULKY);
    let daemon = world.daemon();
    world
        .eventually("the disk is full", async || version(&world, 2).await["error"]["sqlstate"] == "53100")
        .await;
    let build = version(&world, 2).await;
    assert_eq!((&build["role"], &build["phase"]), (&"building".into(), &"backing_off".into()), "{build}");
    let error = &build["error"];
    assert!(error["message"].as_str().is_some_and(|it| it.contains("No space left on device")), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|it| it.contains("free some space")), "{error}");
    let status = world.foldd(&["status"]).await.out;
    assert!(status.contains("free some space"), "{status}");
    daemon.says("disk full (53100)").await;
    // The live one has its space elsewhere.
    world.append("order-1", "Placed", "{}").await;
    world.eventually("the live one goes on", async || world.rows("tally.whole").await == ["(1,4001)"]).await;
    assert_eq!(version(&world, 1).await["phase"], "live");
    small.grow();
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,8002)"]);
    assert_eq!(world.value("select count(*) from tally.bulk").await, "4001");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_version_that_finds_no_space_at_all_is_laid_out_once_there_is_some() {
    // Not even an empty index fits.
    let Some(small) = Small::mount("none", "4k") else { return };
    let world = World::alone().await;
    live(&world, 100).await;
    small.take_in(&world).await;
    world.projection("tally", BULKY);
    let daemon = world.daemon();
    world
        .eventually("the disk is full", async || version(&world, 2).await["error"]["sqlstate"] == "53100")
        .await;
    let error = version(&world, 2).await["error"].clone();
    assert!(error["remedy"].as_str().is_some_and(|it| it.contains("free some space")), "{error}");
    daemon.says("cannot be built").await;
    world.append("order-1", "Placed", "{}").await;
    world.eventually("the live one goes on", async || world.rows("tally.whole").await == ["(1,101)"]).await;
    small.grow();
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,202)"]);
    assert_eq!(daemon.stop().await.code(), Some(0));
}
