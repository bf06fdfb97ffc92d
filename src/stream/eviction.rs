//! Whether the server deletes keys when its memory is full. What it may delete are marks, guards and failure records,
//! and with the policies for all keys whole streams: events are lost, and duplicates run.

use redis::RedisResult;
use redis::aio::ConnectionLike;

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::pool::Pool;
use crate::error::{Error, ErrorKind, Result};

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// By its `maxmemory-policy`.
    By(String),
    /// It does not say; why not.
    Unknown(String),
}

/// Something that a server may cost its users: what it is, what that costs, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Risk {
    pub what: String,
    pub cost: String,
    pub mend: String,
}

impl Eviction {
    /// What is wrong with it, and what would be right.
    pub fn warning(&self) -> Option<String> {
        match self {
            Eviction::By(_) => {
                let Risk { what, cost, mend } = self.risk()?;
                Some(format!("{what}: {cost}: {mend}"))
            }
            Eviction::Unknown(why) => Some(format!(
                "whether the server deletes keys when its memory is full is not known ({why}): allow this user INFO, and \
                 see to it that maxmemory-policy is noeviction"
            )),
        }
    }

    /// What is wrong with the policy, as far as it is known.
    pub fn risk(&self) -> Option<Risk> {
        let policy = self.policy().filter(|policy| *policy != "noeviction")?;
        Some(Risk {
            what: format!("the server's maxmemory-policy is {policy}"),
            cost:
                "when its memory is full it deletes keys, and then events are lost or handled twice"
                    .to_owned(),
            mend: "set maxmemory-policy to noeviction".to_owned(),
        })
    }

    /// The policy, where it is known.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Eviction::By(policy) => Some(policy),
            Eviction::Unknown(_) => None,
        }
    }
}

impl Link {
    /// Whether the server deletes keys when its memory is full.
    pub async fn eviction(&mut self) -> std::result::Result<Eviction, Trouble> {
        let asked = ask(&mut self.conn).await;
        asked.map_err(|error| Trouble::of(DOING, error))
    }
}

impl Pool {
    /// Whether the server deletes keys when its memory is full; in a cluster, whether any of its masters does.
    pub async fn eviction(&self) -> Result<Eviction> {
        let mut found = Err(Error::new(ErrorKind::Unreachable, "no master is known"));
        for master in self.masters().await? {
            let asked = match master.get().await {
                Ok(mut conn) => {
                    let asked = ask(&mut conn).await;
                    asked.map_err(|error| refusal(Who::Operator, DOING, error))
                }
                Err(error) => Err(error),
            };
            match asked {
                // Those that are there say it.
                Err(error) if self.is_of_one_node(&error) => found = found.or(Err(error)),
                asked => found = Ok(asked?),
            }
            if matches!(&found, Ok(found) if found.warning().is_some()) {
                break;
            }
        }
        found
    }
}

/// What a server says of how safe things are with it; None of what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerGauges {
    pub maxmemory_policy: Option<String>,
    pub append_only: Option<bool>,
}

impl Pool {
    /// What the server says of how safe things are with it; in a cluster the master that says the worst.
    pub async fn server_gauges(&self) -> Result<ServerGauges> {
        let mut all = ServerGauges::default();
        for master in self.masters().await? {
            let mut conn = match master.get().await {
                Ok(conn) => conn,
                Err(error) if self.is_of_one_node(&error) => continue,
                Err(error) => return Err(error),
            };
            // Two sections in one call: servers before 7.0 would not take them.
            let mut info = redis::cmd("INFO");
            info.arg("memory").arg("persistence");
            let info: RedisResult<String> = info.query_async(&mut conn).await;
            let info = match info {
                Ok(info) => info,
                Err(error) if error.code().is_some() => continue,
                Err(error) => return Err(refusal(Who::Operator, "asking for INFO", error)),
            };
            let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
            if let Some(policy) = of("maxmemory_policy:").map(str::trim)
                && all
                    .maxmemory_policy
                    .as_deref()
                    .is_none_or(|known| known == "noeviction")
            {
                all.maxmemory_policy = Some(policy.to_owned());
            }
            if let Some(enabled) = of("aof_enabled:") {
                let enabled = enabled.trim() == "1";
                all.append_only = Some(enabled && all.append_only.unwrap_or(true));
            }
        }
        Ok(all)
    }
}

const DOING: &str = "asking whether the server deletes keys";

/// Fails where no answer comes; that it is refused is one.
async fn ask(conn: &mut impl ConnectionLike) -> RedisResult<Eviction> {
    let info: RedisResult<String> = redis::cmd("INFO").arg("memory").query_async(conn).await;
    match info {
        Ok(info) => Ok(of_info(&info)),
        Err(error) => match error.code() {
            Some(code) => Ok(Eviction::Unknown(code.to_owned())),
            None => Err(error),
        },
    }
}

fn of_info(info: &str) -> Eviction {
    let mut lines = info.lines();
    match lines.find_map(|line| line.strip_prefix("maxmemory_policy:")) {
        Some(policy) => Eviction::By(policy.trim().to_owned()),
        None => Eviction::Unknown("INFO does not say".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_noeviction_is_warned_of() {
        let warning = |info: &str| of_info(info).warning();
        assert_eq!(
            warning("used_memory:1\r\nmaxmemory_policy:noeviction\r\n"),
            None
        );
        for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru"] {
            let warning = warning(&format!("maxmemory_policy:{policy}\r\n")).unwrap();
            assert!(warning.contains(policy), "{warning}");
        }
        assert!(
            warning("used_memory:1\r\n")
                .unwrap()
                .contains("is not known")
        );
    }
}
