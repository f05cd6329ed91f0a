//! From the first load to the last table of the old version.

use super::{live, role, tally, version, waits_for};
use crate::world::{Daemon, World};

#[tokio::test]
async fn raising_the_version_builds_beside_the_live_one_and_takes_its_place() {
    let world = World::alone().await;
    live(&world, 500).await;
    tally(&world, 2, "");
    let _daemon = world.daemon();
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1000)"]);
    // The one before is kept, and kept fresh.
    assert_eq!(role(&world, 1, "previous").await["phase"], "live");
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1002)"]);
    world
        .eventually("the version before follows", async || {
            world.rows("tally__v1.tally").await == ["(Placed,501)"]
        })
        .await;
    let log = world.foldd(&["log", "tally@2"]).await.out;
    assert!(log.contains("cutover") && log.contains("foldd"), "{log}");
}

#[tokio::test]
async fn a_previous_version_is_retired_when_its_time_is_over() {
    let world = World::alone().await;
    live(&world, 50).await;
    tally(&world, 2, "keep_previous = \"0s\"");
    let _daemon = world.daemon();
    role(&world, 2, "live").await;
    world
        .eventually("the tables are gone", async || {
            world.value("select count(*) from pg_namespace where nspname like 'tally%'").await == "1"
        })
        .await;
    assert!(version(&world, 1).await.is_null());
    let left = "select (select count(*) from es_subscriptions where subscription_id like 'tally@1%')
                     + (select count(*) from pg_proc where proname = 'tally@1')";
    assert_eq!(world.value(left).await, "0");
    assert_eq!(world.rows("tally.tally").await, ["(Placed,100)"]);
}

#[tokio::test]
async fn what_depends_on_an_old_table_keeps_it_and_is_named() {
    let world = World::alone().await;
    live(&world, 50).await;
    world.execute("create view report as select * from tally.tally").await;
    tally(&world, 2, "keep_previous = \"0s\"");
    let plan = world.foldd(&["plan"]).await.out;
    assert!(plan.contains("public.report"), "{plan}");
    let daemon = world.daemon();
    role(&world, 2, "live").await;
    let said = "select coalesce(waiting_for, '') from es_projections where projection_id = 'tally@1'";
    world
        .eventually("the view is named", async || {
            world.value(said).await.contains("view public.report depends on")
        })
        .await;
    told(&world, &daemon, &["view public.report depends on", "Move what depends on it"]).await;
    // A view stays on the tables that it was made for, and those go on.
    world.append("order-1", "Placed", "{}").await;
    world.eventually("they are fresh", async || world.rows("public.report").await == ["(Placed,51)"]).await;
    world.execute("drop view report").await;
    world.eventually("they go", async || version(&world, 1).await.is_null()).await;
}

#[tokio::test]
async fn what_was_said_about_the_old_tables_holds_for_the_new_ones() {
    let world = World::alone().await;
    live(&world, 10).await;
    world
        .execute(
            "create role reader; create role writer;
             grant usage on schema tally to reader; grant select on tally.tally to reader with grant option;
             grant update (n) on tally.tally to writer;
             comment on schema tally is 'orders, counted'; comment on table tally.tally is 'by type';
             comment on column tally.tally.n is 'how many';
             alter default privileges for role foldd_daemon in schema tally grant select on tables to reader;
             alter table tally.whole enable row level security;
             create policy everything on tally.whole for select to reader using (n >= 0);
             create publication counted for table tally.tally where (n > 0)",
        )
        .await;
    tally(&world, 2, "");
    let daemon = world.daemon();
    // A publication can be changed by its owner alone. Nothing is left out: somebody has to hand it over.
    waits_for(&world, 2, "must be owner of publication counted").await;
    told(&world, &daemon, &["must be owner of publication counted", "have the owner grant"]).await;
    assert_eq!(world.rows("tally.whole").await, ["(1,10)"]);
    world.execute("alter publication counted owner to foldd_daemon").await;
    role(&world, 2, "live").await;
    let said = "select concat_ws(' | ',
        has_schema_privilege('reader', 'tally', 'usage'), has_table_privilege('reader', 'tally.tally', 'select with grant option'),
        has_table_privilege('reader', 'tally.whole', 'select'), has_column_privilege('writer', 'tally.tally', 'n', 'update'),
        obj_description('tally'::regnamespace, 'pg_namespace'), obj_description('tally.tally'::regclass, 'pg_class'),
        col_description('tally.tally'::regclass, 2),
        (select count(*) from pg_default_acl where defaclnamespace = 'tally'::regnamespace),
        (select relrowsecurity from pg_class where oid = 'tally.whole'::regclass),
        (select string_agg(policyname || ' ' || qual, ',') from pg_policies where schemaname = 'tally'),
        (select string_agg(schemaname || '.' || tablename, ',') from pg_publication_tables where pubname = 'counted'))";
    assert_eq!(
        world.value(said).await,
        "t | t | f | t | orders, counted | by type | how many | 1 | t | everything (n >= 0) | tally.tally"
    );
}

/// Terminal, API and log tell somebody what is waited for and what to do.
async fn told(world: &World, daemon: &Daemon, parts: &[&str]) {
    let status = world.foldd(&["status"]).await.out;
    let api = daemon.read("/api/status").await;
    let concerns = api["concerns"].as_array().cloned().unwrap_or_default();
    let concern = concerns.iter().find(|concern| concern["kind"] == "waiting");
    let concern = concern.unwrap_or_else(|| panic!("nobody is told: {api}")).to_string();
    for part in parts {
        daemon.says(part).await;
        assert!(status.contains(part), "no {part} in {status}");
        assert!(concern.contains(part), "no {part} in {concern}");
    }
}

#[tokio::test]
async fn the_cut_over_waits_for_a_snapshot_that_would_see_the_new_tables_empty_and_names_its_holder() {
    let world = World::alone().await;
    live(&world, 200).await;
    let mut reader = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql(
        "set transaction isolation level repeatable read; set local application_name = 'report'; select 1",
    )
    .execute(&mut *reader)
    .await
    .expect("it answers");
    tally(&world, 2, "");
    let daemon = world.daemon();
    waits_for(&world, 2, "report").await;
    told(&world, &daemon, &["report", "`select pg_terminate_backend("]).await;
    let old: i64 = sqlx::query_scalar("select n::bigint from tally.whole")
        .fetch_one(&mut *reader)
        .await
        .expect("it reads");
    assert_eq!(old, 200, "the snapshot sees the version that it was taken in");
    drop(reader);
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,400)"]);
}

#[tokio::test]
async fn a_lock_on_the_tables_is_waited_for_and_its_holder_named() {
    let world = World::alone().await;
    live(&world, 50).await;
    tally(&world, 2, "");
    let mut reader = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql("set local application_name = 'slow report'; select * from tally.tally")
        .execute(&mut *reader)
        .await
        .expect("it answers");
    let daemon = world.daemon();
    waits_for(&world, 2, "slow report").await;
    told(&world, &daemon, &["slow report", "`select pg_terminate_backend("]).await;
    // Neither readers nor the live version are held up meanwhile.
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,51)"]);
    drop(reader);
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,102)"]);
}

#[tokio::test]
async fn events_that_come_faster_than_they_are_folded_are_reported() {
    let world = World::alone().await;
    live(&world, 400).await;
    tally(&world, 2, "events_per_second = 20");
    let daemon = world.daemon();
    let build = role(&world, 2, "building").await["build"].clone();
    assert!(build["total"].as_i64() >= Some(400), "{build}");
    world
        .eventually("it says so", async || {
            world
                .execute("select es_append('order-' || n, null, null, array['Placed'], array['{}'::jsonb]) from generate_series(1, 40) n")
                .await;
            let build = version(&world, 2).await["build"].clone();
            build["waiting_for"].as_str().is_some_and(|waiting| waiting.contains("more speed"))
                && build["eta_seconds"].is_null()
        })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    tally(&world, 2, "");
    let _daemon = world.daemon();
    role(&world, 2, "live").await;
}
