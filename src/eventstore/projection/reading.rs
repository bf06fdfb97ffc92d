//! Where a view is, for those who read it.

use super::super::public::PublicStreams;
use super::Projection;
use crate::config::RedisSettings;
use crate::error::Result;
use crate::stream::{Connector, Pool, ProjectionKeys, StreamKeys};
use std::fmt;

/// Finds the keys of a projection's view, as it is served. Cheap to clone; clones share their connection.
///
/// A view that is built anew takes the place of the old one, whose keys are deleted some seconds later: ask for the keys
/// whenever they are read, and do not keep them.
#[derive(Clone)]
pub struct ProjectionView {
    pool: Pool,
    partitions: Vec<ProjectionKeys>,
}

impl fmt::Debug for ProjectionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionView")
            .field("address", &self.pool.address())
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

impl ProjectionView {
    /// The view of a projection. Does not connect yet.
    ///
    /// # Errors
    /// Where the address is not one, or the projection's streams can be none.
    pub fn of<P: Projection>(settings: &RedisSettings) -> Result<Self> {
        let public = PublicStreams::new(P::STREAM)?.partitions(P::PARTITIONS)?;
        let keys = |stream: &str| StreamKeys::new(stream).projection(P::NAME);
        Ok(ProjectionView {
            pool: Connector::new(settings)?.pool(1)?,
            partitions: public.names().map(keys).collect(),
        })
    }

    /// Where a key of the view is in Redis, in each partition that has a view by now.
    ///
    /// # Errors
    /// Where Redis can't be read.
    pub async fn keys(&self, key: &str) -> Result<Vec<String>> {
        let served = self.pool.views_served(&self.partitions).await?;
        let all = self.partitions.iter().zip(served);
        Ok(all
            .filter_map(|(keys, generation)| Some(keys.view(generation?) + key))
            .collect())
    }
}
