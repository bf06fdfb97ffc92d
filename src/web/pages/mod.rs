//! The pages, one file each.

mod aggregates;
mod audit;
mod crons;
mod dead;
mod entry;
mod find;
mod flow;
mod limits;
mod now;
mod projections;
mod redis;
mod scheduled;
mod types;
mod workers;

use super::route::Route;

/// Every route there is, but for files and what keeps pages up to date.
pub(super) fn routes() -> Vec<Route> {
    [
        now::routes(),
        flow::routes(),
        types::routes(),
        workers::routes(),
        dead::routes(),
        find::routes(),
        entry::routes(),
        scheduled::routes(),
        crons::routes(),
        projections::routes(),
        aggregates::routes(),
        limits::routes(),
        redis::routes(),
        audit::routes(),
    ]
    .concat()
}
