//! Limits of a group that operators set while it runs. Each stands as the name of a field beside what is paused, so that
//! workers hear of it by a look that they make anyway, and an earlier release passes over it.

use crate::config::Rate;

/// What stands before the rest in the field's name.
const PREFIX: &str = "limit:";

/// What a handler of the whole group is limited to, in place of what is configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetLimit {
    pub handler: String,
    /// When it was set: of two the later one holds.
    pub since_ms: u64,
    pub rate: Option<Rate>,
    pub concurrency: Option<usize>,
}

impl SetLimit {
    /// The name of its field: `limit:1732360000000:50/s:8:order.created`, and `-` for what is as configured.
    pub fn field(&self) -> String {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rate = or_none(self.rate.map(|rate| rate.to_string()));
        let concurrency = or_none(self.concurrency.map(|slots| slots.to_string()));
        let (since, handler) = (self.since_ms, &self.handler);
        format!("{PREFIX}{since}:{rate}:{concurrency}:{handler}")
    }

    /// None if it is something else, or of a release that says more.
    pub fn parse(field: &str) -> Option<Self> {
        let mut parts = field.strip_prefix(PREFIX)?.splitn(4, ':');
        let since_ms = parts.next()?.parse().ok()?;
        let rate = match parts.next()? {
            "-" => None,
            text => Some(Rate::parse(text).ok()?),
        };
        let concurrency = match parts.next()? {
            "-" => None,
            text => Some(text.parse().ok().filter(|slots| *slots > 0)?),
        };
        Some(SetLimit {
            handler: parts.next()?.to_owned(),
            since_ms,
            rate,
            concurrency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_comes_back_from_its_name() {
        for (rate, concurrency) in [(None, Some(8)), (Rate::parse("5/10s").ok(), None)] {
            let set = SetLimit {
                handler: "order.created".to_owned(),
                since_ms: 1_732_360_000_000,
                rate,
                concurrency,
            };
            assert_eq!(SetLimit::parse(&set.field()), Some(set));
        }
        for other in [
            "stream",
            "handler:limit",
            "limit:",
            "limit:1:x:y:z",
            "limit:1:-:0:z",
        ] {
            assert_eq!(SetLimit::parse(other), None);
        }
    }
}
