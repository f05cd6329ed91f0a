//! What is folded aside: the `@test`s of projection files, `verify`, `build --into`.

mod build;
mod files;
mod hosted;
mod verify;

use crate::world::World;

/// Schemas, and rows of the books, that a verb might leave behind.
async fn traces(world: &World) -> String {
    world
        .value(
            "select (select string_agg(nspname, ',' order by nspname) from pg_namespace
                     where nspname !~ '^pg_(temp|toast_temp)_')
                    || ' ' || (select count(*) from es_projections) || ' ' || (select count(*) from es_subscriptions)
                    || ' ' || (select count(*) from es_events) || ' ' || (select count(*) from pg_proc p
                        join pg_namespace n on n.oid = p.pronamespace where n.nspname like 'foldd%')",
        )
        .await
}
