//! Where the servers are if there are several: a cluster's nodes, or sentinels that know the primary.

use std::path::PathBuf;

use super::redis::RedisSettings;
use super::secret::RedisUrl;
use super::sentinel::RedisMode;

/// The port of a node that names none, and of a sentinel.
const PORTS: (u16, u16) = (6379, 26379);

/// The settings to log in to a sentinel with, as if it were the server.
pub(crate) fn of_sentinels(redis: &RedisSettings) -> RedisSettings {
    let sentinel = &redis.sentinel;
    let is_tls = sentinel.tls.unwrap_or_else(|| redis.url.is_tls());
    let url = match is_tls {
        true => "rediss://sentinel",
        false => "redis://sentinel",
    };
    let own = |own: &Option<PathBuf>, of_redis: &Option<PathBuf>| match is_tls {
        true => own.clone().or_else(|| of_redis.clone()),
        false => None,
    };
    // A certificate and its key come from one place.
    let own_certificate = sentinel.tls_cert.is_some() || sentinel.tls_key.is_some();
    let certificate = |own: &Option<PathBuf>, of_redis: &Option<PathBuf>| match own_certificate {
        _ if !is_tls => None,
        true => own.clone(),
        false => of_redis.clone(),
    };
    RedisSettings {
        url: RedisUrl::parse(url).expect("it is one"),
        username: sentinel.username.clone(),
        password: sentinel.password.clone(),
        password_file: sentinel.password_file.clone(),
        tls_ca: own(&sentinel.tls_ca, &redis.tls_ca),
        tls_cert: certificate(&sentinel.tls_cert, &redis.tls_cert),
        tls_key: certificate(&sentinel.tls_key, &redis.tls_key),
        ..RedisSettings::default()
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How the server to ask is found.
pub(crate) enum Topology {
    /// It is the one at `redis.url`, unless that says that it is a node of a cluster, where `may_be_a_cluster`.
    Single { may_be_a_cluster: bool },
    /// These sentinels know by this name where it is.
    Sentinel {
        master: String,
        nodes: Vec<NodeAddress>,
    },
    /// These are nodes of a cluster; none where `redis.url` alone is one.
    Cluster { nodes: Vec<NodeAddress> },
}

/// A setting of `[redis]` that can't work, by its key there, and what is wrong with it.
pub(crate) struct Misplaced {
    pub(crate) key: String,
    /// The other one that it can't work with.
    pub(crate) with: Option<&'static str>,
    pub(crate) message: String,
}

/// How the server to ask is found, or everything that is wrong with what says so.
pub(crate) fn topology(redis: &RedisSettings) -> Result<Topology, Vec<Misplaced>> {
    let mut wrong = Vec::new();
    let sentinel = &redis.sentinel;
    let mut add = |key: &str, with, message: &str| {
        wrong.push(Misplaced {
            key: key.to_owned(),
            with,
            message: message.to_owned(),
        });
    };
    let is_sentinel = match redis.mode {
        RedisMode::Auto => !sentinel.is_unset(),
        mode => mode == RedisMode::Sentinel,
    };
    if is_sentinel {
        match sentinel.master.as_deref() {
            None => add(
                "sentinel.master",
                Some("mode"),
                "is not set; write the name after `sentinel monitor` in the sentinels' configuration",
            ),
            Some(name) => {
                let is_known = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                if name.is_empty() || !name.chars().all(is_known) {
                    let what =
                        "is no name a sentinel takes; letters, digits and .-_, as in \"mymaster\"";
                    add("sentinel.master", None, what);
                }
            }
        }
        if sentinel.nodes.is_empty() {
            let what = "is empty; list all sentinels, as in [\"sentinel-1:26379\"]";
            add("sentinel.nodes", Some("mode"), what);
        }
        if !redis.nodes.is_empty() {
            let what = "is for clusters; list the sentinels in redis.sentinel.nodes";
            add("nodes", Some("mode"), what);
        }
    } else if !sentinel.is_unset() {
        let what = "is for redis.mode = \"sentinel\"; leave it out, or set the mode";
        add("sentinel", Some("mode"), what);
    }
    match redis.mode {
        RedisMode::Single if !redis.nodes.is_empty() => {
            let what = "is for redis.mode = \"cluster\"; leave it out, or set the mode; one server is named by redis.url";
            add("nodes", Some("mode"), what);
        }
        RedisMode::Cluster if redis.url.database() != 0 => {
            let what = "names a database, and a cluster has none but 0";
            add("url", Some("mode"), what);
        }
        _ => {}
    }
    let nodes = addresses("nodes", &redis.nodes, PORTS.0, &mut wrong);
    let sentinels = addresses("sentinel.nodes", &sentinel.nodes, PORTS.1, &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(match (redis.mode, sentinel.master.clone()) {
        (_, Some(master)) if is_sentinel => Topology::Sentinel {
            master,
            nodes: sentinels,
        },
        (RedisMode::Single, _) => Topology::Single {
            may_be_a_cluster: false,
        },
        (RedisMode::Cluster, _) => Topology::Cluster { nodes },
        // One server needs no list.
        _ if !nodes.is_empty() => Topology::Cluster { nodes },
        _ => Topology::Single {
            may_be_a_cluster: true,
        },
    })
}

fn addresses(
    key: &str,
    nodes: &[String],
    port: u16,
    wrong: &mut Vec<Misplaced>,
) -> Vec<NodeAddress> {
    let mut found = Vec::<NodeAddress>::new();
    for (at, text) in nodes.iter().enumerate() {
        let message = match node(text, port) {
            Ok(node) if found.contains(&node) => format!("{text:?} is in the list twice"),
            Ok(node) => {
                found.push(node);
                continue;
            }
            Err(message) => message,
        };
        wrong.push(Misplaced {
            key: format!("{key}[{at}]"),
            with: None,
            message,
        });
    }
    found
}

/// Reads `host`, `host:port`, `[::1]` or `[::1]:port`.
fn node(text: &str, default: u16) -> Result<NodeAddress, String> {
    if text.contains("://") || text.contains('@') {
        let what = "is a URL; write host:port, the scheme and the login of redis.url hold for all";
        return Err(what.to_owned());
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(""))),
        // An IPv6 address without brackets.
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/[]?#".contains(c);
    if host.is_empty() || host.contains(is_odd) {
        return Err(format!("{text:?} has no host; write host:port"));
    }
    let port = match port.map(str::parse::<u16>) {
        None => default,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => {
            return Err(format!(
                "{text:?} has no port that is one; write {host}:{default}"
            ));
        }
    };
    Ok(NodeAddress {
        host: host.to_owned(),
        port,
    })
}

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SentinelSettings;

    #[test]
    fn nodes_are_a_host_and_a_port() {
        let read = |text| node(text, 7000).map(|node| (node.host.clone(), node.port));
        for (text, host, port) in [
            ("redis-1", "redis-1", 7000),
            ("redis-1:6380", "redis-1", 6380),
            ("[::1]:6380", "::1", 6380),
            ("[::1]", "::1", 7000),
            ("::1", "::1", 7000),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            ":1",
            "a:0",
            "a:65536",
            "a:b",
            "redis://a:1",
            "u:p@a:1",
            "a b:1",
            "[::1]x",
            "a:1/0",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_mode_says_how_the_server_is_found() {
        let wrong = |redis: RedisSettings| -> Vec<String> {
            let wrong = topology(&redis).err().unwrap_or_default();
            wrong.into_iter().map(|wrong| wrong.key).collect()
        };
        let redis = RedisSettings::default;
        let sentinel = || SentinelSettings::new("mymaster", ["a", "b:26380"]);
        let found = topology(&redis().sentinel(sentinel())).ok();
        assert!(matches!(found, Some(Topology::Sentinel { nodes, .. })
            if nodes[0].port == 26379 && nodes[1].port == 26380));
        let found = topology(&redis().nodes(["a", "b"])).ok();
        assert!(matches!(found, Some(Topology::Cluster { nodes }) if nodes.len() == 2));
        assert_eq!(
            wrong(redis().mode(RedisMode::Sentinel)),
            ["sentinel.master", "sentinel.nodes"]
        );
        assert_eq!(
            wrong(redis().mode(RedisMode::Single).nodes(["a"])),
            ["nodes"]
        );
        assert_eq!(
            wrong(redis().mode(RedisMode::Cluster).sentinel(sentinel())),
            ["sentinel"]
        );
        assert_eq!(
            wrong(redis().sentinel(sentinel()).nodes(["a", "a"])),
            ["nodes", "nodes[1]"]
        );
        let database = RedisUrl::parse("redis://a/3").unwrap();
        assert_eq!(
            wrong(redis().mode(RedisMode::Cluster).url(database)),
            ["url"]
        );
        let names = redis().sentinel(sentinel().master("my master"));
        assert_eq!(wrong(names), ["sentinel.master"]);
    }
}
