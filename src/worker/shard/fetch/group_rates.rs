//! Rates that a whole group keeps to: for every lot of entries that comes, one step in Redis says how many of them may
//! start. The others go back until the rate lets them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::delivery::Delivery;
use crate::policy::Granted;
use crate::reconnect::Complaint;
use crate::stream::{Link, RateRequest, Trouble};
use crate::worker::run::routes::{Bound, Routes};
use crate::worker::state::identity::Identity;

/// Asks for shares of the group's rates.
pub(crate) struct GroupRates {
    identity: Arc<Identity>,
    routes: Arc<Routes>,
    /// Rates that can't be counted.
    uncounted: Complaint,
}

impl GroupRates {
    pub fn new(identity: Arc<Identity>, routes: Arc<Routes>) -> Self {
        GroupRates {
            identity,
            routes,
            uncounted: Complaint::default(),
        }
    }

    /// Asks for what these entries need, handler by handler, all at once.
    pub async fn ask_for(&mut self, link: &Link, entries: &[Delivery]) -> Result<(), Trouble> {
        let routes = &self.routes;
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
                let (granted, rate) = (gate.granted()?, gate.rate_setting?);
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
            take(link, granted, &request, &mut self.uncounted).await?;
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
        if let (Some(granted), Some(rate)) = (gate.granted(), gate.rate_setting) {
            let request = RateRequest::new(&self.identity.group, &gate.name, rate, wanted);
            take(link, granted, &request, &mut self.uncounted).await?;
        }
        Ok(())
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
