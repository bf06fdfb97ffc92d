//! How much a group has to do, in numbers: for scrapers and scalers.

use super::Admin;
use crate::error::Result;
use crate::group_gauges::GroupLoad;

impl Admin {
    /// How much the group has to do with its streams, and who does it. It costs Redis the same however long they are.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say anything of any of them. One stream that can't be looked at is no
    /// error.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let load = admin.load().await?;
    /// println!("{} could be worked on now", load.runnable);
    /// # Ok(()) }
    /// ```
    pub async fn load(&self) -> Result<GroupLoad> {
        GroupLoad::look(&self.pool, &self.settings).await
    }
}
