//! What begins and ends with a worker.

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// What handlers need beside them as long as a worker works: processes, say.
pub(crate) trait Companion: Send + Sync {
    /// Is called before the first handler runs. What it starts is to live on `runtime`.
    fn start(&self, runtime: &Handle);

    /// Is called when no handler runs any more.
    fn stop(&self) -> BoxFuture<'_, ()>;
}
