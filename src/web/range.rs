//! How far back a page looks, and what part of the group: from the address, and as tabs on the page.

use std::time::Duration;

use serde::Serialize;

use super::visit::Visit;
use super::visit::parameter;
use crate::config::Role;

/// The ranges: how they are called in an address, what is shown, and how long they are.
const RANGES: [(&str, &str, u64); 7] = [
    ("live", "2 min", 120),
    ("1h", "1 h", 3600),
    ("6h", "6 h", 6 * 3600),
    ("24h", "24 h", 24 * 3600),
    ("7d", "7 d", 7 * 86_400),
    ("30d", "30 d", 30 * 86_400),
    ("90d", "90 d", 90 * 86_400),
];

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Scope {
    pub range: &'static str,
    #[serde(skip)]
    pub span: Duration,
    /// One stream; None for all of the group.
    pub stream: Option<String>,
}

/// A link to the same page with something else.
pub(super) struct Tab {
    pub title: String,
    pub address: String,
    pub is_here: bool,
}

impl Scope {
    /// The last hour of all of the group.
    pub fn last_hour() -> Self {
        let (range, _, seconds) = RANGES[1];
        Scope {
            range,
            span: Duration::from_secs(seconds),
            stream: None,
        }
    }

    /// What the address says, as far as the visitor may see it. Who may not see all of the group sees one stream.
    pub fn of(visit: &Visit, streams: &[String]) -> Self {
        let wanted = parameter(&visit.query, "range").unwrap_or_else(|| "1h".to_owned());
        let range = RANGES.iter().find(|(name, ..)| *name == wanted);
        let (range, _, seconds) = range.unwrap_or(&RANGES[1]);
        let wanted = parameter(&visit.query, "of");
        let mut seen = streams
            .iter()
            .filter(|stream| visit.may(Role::View, stream));
        let stream = match wanted {
            Some(wanted) => seen.find(|stream| **stream == wanted).cloned(),
            None => None,
        };
        let sees_all = visit.may_all(Role::View, streams);
        let first = || {
            streams
                .iter()
                .find(|stream| visit.may(Role::View, stream))
                .cloned()
        };
        Scope {
            range,
            span: Duration::from_secs(*seconds),
            stream: stream.or_else(|| if sees_all { None } else { first() }),
        }
    }

    /// Whether seconds are shown, which come only while somebody looks.
    pub fn is_live(&self) -> bool {
        self.range == "live"
    }

    /// The labels of series that are meant.
    pub fn labels(&self) -> Vec<(&str, &str)> {
        self.stream
            .iter()
            .map(|stream| ("stream", &stream[..]))
            .collect()
    }

    /// Tabs for the ranges.
    pub fn ranges(&self, visit: &Visit, with_live: bool) -> Vec<Tab> {
        let ranges = RANGES
            .iter()
            .filter(|(name, ..)| with_live || *name != "live");
        let tab = |(name, title, _): &(&str, &str, u64)| Tab {
            title: (*title).to_owned(),
            address: self.address(visit, name, self.stream.as_deref()),
            is_here: *name == self.range,
        };
        ranges.map(tab).collect()
    }

    /// Tabs for the streams, if there is a choice.
    pub fn streams(&self, visit: &Visit, streams: &[String]) -> Vec<Tab> {
        let mut tabs = Vec::new();
        if visit.may_all(Role::View, streams) {
            tabs.push(Tab {
                title: "All streams".to_owned(),
                address: self.address(visit, self.range, None),
                is_here: self.stream.is_none(),
            });
        }
        let seen = streams
            .iter()
            .filter(|stream| visit.may(Role::View, stream));
        tabs.extend(seen.map(|stream| Tab {
            title: crate::names::shown(stream).to_string(),
            address: self.address(visit, self.range, Some(stream)),
            is_here: self.stream.as_ref() == Some(stream),
        }));
        if tabs.len() < 2 || streams.len() < 2 {
            tabs.clear();
        }
        tabs
    }

    fn address(&self, visit: &Visit, range: &str, stream: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("range", range);
        if let Some(stream) = stream {
            query.append_pair("of", stream);
        }
        format!("{}?{}", visit.to(&visit.path), query.finish())
    }
}
