//! Rates that a whole group keeps to: for every lot of entries that comes, one step in Redis says how many of them may
//! start. The others go back until the rate lets them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use crate::policy::Granted;
use crate::reconnect::Complaint;
use crate::stream::{Connector, Link, RateRequest, Trouble};
use crate::worker::run::routes::{Bound, Routes};
use crate::worker::state::identity::Identity;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks for shares of the group's rates.
pub(crate) struct GroupRates {
    identity: Arc<Identity>,
    routes: Arc<Routes>,
    /// In a cluster each is counted in a slot of its own, over a connection that leads there.
    connector: Connector,
    counted_at: HashMap<String, Link>,
    /// Rates that can't be counted.
    uncounted: Complaint,
}

impl GroupRates {
    pub fn new(identity: Arc<Identity>, routes: Arc<Routes>, connector: Connector) -> Self {
        GroupRates {
            identity,
            routes,
            connector,
            counted_at: HashMap::new(),
            uncounted: Complaint::default(),
        }
    }

    /// Asks for what these entries need, handler by handler, all at once.
    pub async fn ask_for(&mut self, link: &Link, entries: &[Delivery]) -> Result<(), Trouble> {
        let routes = self.routes.clone();
        if !routes.has_group_rates() || entries.is_empty() {
            return Ok(());
        }
        let mut wanted: BTreeMap<&[u8], u32> = BTreeMap::new();
        for delivery in entries {
            if let Some(event_type) = delivery.entry.fields.value("type") {
                *wanted.entry(event_type).or_default() += 1;
            }
        }
        let requests: Vec<_> = wanted
            .into_iter()
            .filter_map(|(event_type, wanted)| {
                let gate = &routes.find(event_type)?.gate;
                let (granted, rate) = (gate.granted()?, gate.rate()?);
                if granted.is_refused() && granted.dry_for().is_some() {
                    return None;
                }
                let wanted = wanted.saturating_sub(granted.left());
                Some((
                    granted,
                    RateRequest::new(&self.identity.group, &gate.name, rate, wanted),
                ))
            })
            .filter(|(_, request)| request.wanted > 0)
            .collect();
        for (granted, request) in requests {
            self.take(link, &granted, &request).await?;
        }
        Ok(())
    }

    /// Asks for so many starts of one handler.
    pub async fn ask_for_starts(
        &mut self,
        link: &Link,
        bound: &Bound,
        wanted: u32,
    ) -> Result<(), Trouble> {
        let gate = &bound.gate;
        if let (Some(granted), Some(rate)) = (gate.granted(), gate.rate()) {
            let request = RateRequest::new(&self.identity.group, &gate.name, rate, wanted);
            self.take(link, &granted, &request).await?;
        }
        Ok(())
    }

    async fn take(
        &mut self,
        link: &Link,
        granted: &Granted,
        request: &RateRequest,
    ) -> Result<(), Trouble> {
        if !self.connector.is_cluster() {
            return take(link, granted, request, &mut self.uncounted).await;
        }
        let there = match self.link_to(request.key()).await {
            Ok(there) => take(&there, granted, request, &mut self.uncounted).await,
            Err(trouble) => Err(trouble),
        };
        // Another node than the one that entries come from: that goes on.
        if let Err(trouble) = there {
            self.counted_at.remove(request.key());
            granted.refuse();
            self.uncounted
                .warn(format!("{}; what needs it waits", trouble.error()));
        }
        Ok(())
    }

    async fn link_to(&mut self, key: &str) -> Result<Link, Trouble> {
        if let Some(link) = self.counted_at.get(key).filter(|link| !link.is_over()) {
            return Ok(link.clone());
        }
        let name = format!("streamhand:{}:rate", self.identity.group);
        let connector = self.connector.at(key);
        let link = connector.connect(&name, ANSWER).await;
        let link = link.map_err(Trouble::Broken)?;
        self.counted_at.insert(key.to_owned(), link.clone());
        Ok(link)
    }
}

/// Takes what the group's rate grants. If the server refuses to count, the handler's entries go back for a while; those
/// of other handlers have nothing to do with it.
async fn take(
    link: &Link,
    granted: &Granted,
    request: &RateRequest,
    uncounted: &mut Complaint,
) -> Result<(), Trouble> {
    match link.clone().take_rate(request).await {
        Ok(answer) => granted.grant(answer.granted, answer.dry_for),
        Err(Trouble::Refused(error)) => {
            granted.refuse();
            uncounted.warn(format!("{error}; what needs it waits"));
        }
        Err(trouble) => return Err(trouble),
    }
    Ok(())
}
