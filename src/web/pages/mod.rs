//! The pages, one file each.

mod now;

use super::route::Route;

/// Every route there is, but for files and what keeps pages up to date.
pub(super) fn routes() -> Vec<Route> {
    [now::routes()].concat()
}
