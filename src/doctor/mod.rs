//! Looks at the servers that a group's streams lie on, at the group itself and at its workers, for what will go wrong or is
//! going wrong: each finding says what it is, what it costs, and the command that mends it.
//!
//! A check is one file. It asks the server what it wants to know, and judges the answers; what it may not ask it says, as a
//! finding of its own. Checks of a node are made at each node, the others once.

mod buffers;
mod case;
mod clock;
mod connections;
mod drift;
mod eviction;
mod groups;
mod latency;
mod memory;
mod node;
mod persistence;
mod place;
mod replicas;
mod report;
mod rights;
mod service;
mod slots;
mod timeouts;
mod trimmers;
mod version;

pub use report::{Finding, Report, Severity};

use crate::admin::Admin;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::stream::Pool;
use case::Case;
use node::Node;

/// Looks at everything, in a few seconds; changes nothing.
///
/// # Errors
/// If Redis can't be reached. That it refuses to say something is a finding.
///
/// ```no_run
/// use streamhand::{Settings, doctor};
///
/// # async fn example(settings: &Settings) -> streamhand::Result<()> {
/// for finding in doctor::examine(settings).await?.findings {
///     println!("{}: {}", finding.check, finding.what);
/// }
/// # Ok(()) }
/// ```
pub async fn examine(settings: &Settings) -> Result<Report> {
    let admin = Admin::new(settings)?;
    let pool = admin.pool();
    let case = Case::of(settings, pool.user());
    let mut findings = Vec::new();
    for master in pool.masters().await? {
        let away = |error: &_| place::away(master.address(), error);
        let Some(node) = &reach(pool, master.clone(), away, &mut findings).await? else {
            continue;
        };
        let of_node = [
            version::look(node),
            service::look(node, &case).await,
            eviction::look(node),
            persistence::look(node).await,
            memory::look(node, &case).await,
            clock::look(node).await?,
            latency::look(node, &case).await?,
            replicas::look(node).await,
            slots::look(node).await,
            connections::look(node, &case),
            buffers::look(node, &case).await,
            timeouts::look(node, &case).await,
            rights::look(node, &case).await?,
        ];
        let of_node = of_node.into_iter().flatten();
        findings.extend(of_node.map(|finding| finding.at(&node.address)));
    }
    for keys in &case.streams {
        let away = |error: &_| place::stream_away(keys, error);
        let Some(here) = &reach(pool, pool.at(&keys.stream), away, &mut findings).await? else {
            continue;
        };
        findings.extend(groups::look(here, keys, &case).await);
        findings.extend(trimmers::look(here, keys, &case).await);
    }
    match admin.fleet().await {
        Ok(fleet) => findings.extend(drift::look(&fleet)),
        Err(error) => findings.push(report::unknown(
            drift::CHECK,
            "what workers there are",
            &error.to_string(),
            &case.user,
            "",
        )),
    }
    Ok(Report::of(findings))
}

/// Whether a worker could work at the servers of `[redis]`: what was found there, what they refuse or lack and what that
/// costs, what the user may do, and where each stream lies. Of what goes wrong later [`examine`] says more.
///
/// # Errors
/// As [`examine`].
pub async fn examine_connection(settings: &Settings) -> Result<Report> {
    let admin = Admin::new(settings)?;
    let pool = admin.pool();
    let case = Case::of(settings, pool.user());
    let masters = pool.masters().await?;
    let mut findings = vec![place::found(&settings.redis, pool, &masters)];
    for master in masters {
        let away = |error: &_| place::away(master.address(), error);
        let Some(node) = &reach(pool, master.clone(), away, &mut findings).await? else {
            continue;
        };
        let of_node = [
            version::look(node),
            service::look(node, &case).await,
            eviction::look(node),
            slots::look(node).await,
            rights::look(node, &case).await?,
        ];
        let of_node = of_node.into_iter().flatten();
        findings.extend(of_node.map(|finding| finding.at(&node.address)));
    }
    for keys in &case.streams {
        let away = |error: &_| place::stream_away(keys, error);
        let Some(here) = &reach(pool, pool.at(&keys.stream), away, &mut findings).await? else {
            continue;
        };
        findings.push(place::of_stream(pool, keys).await?);
        findings.extend(groups::look(here, keys, &case).await);
    }
    Ok(Report::of(findings))
}

/// What there is to look at; none, and a finding, if it is one node of several and can't be reached.
async fn reach(
    pool: &Pool,
    at: Pool,
    away: impl FnOnce(&Error) -> Finding,
    findings: &mut Vec<Finding>,
) -> Result<Option<Node>> {
    match Node::of(at).await {
        Err(error) if pool.is_of_one_node(&error) => {
            findings.push(away(&error));
            Ok(None)
        }
        node => node.map(Some),
    }
}
