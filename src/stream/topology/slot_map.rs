//! Which node is the master of which slot, as a node of the cluster tells it.

use std::collections::{HashMap, HashSet};

use redis::Value;

use super::slot::{SLOTS, Slot};
use crate::config::NodeAddress;
use crate::stream::reply;

/// Who owns each slot, by what one node said; and every node it knows, which can be asked as well.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SlotMap {
    /// For each slot the place of its master in `masters`, and one more; 0 if it has none.
    owners: Vec<u16>,
    /// Masters that have replicas, by their places.
    replicated: HashSet<u16>,
    masters: Vec<NodeAddress>,
    /// Masters and replicas.
    nodes: Vec<NodeAddress>,
    /// What nodes are called in redirections, if they are to be called otherwise: with TLS by their names.
    names: HashMap<NodeAddress, NodeAddress>,
}

impl Default for SlotMap {
    fn default() -> Self {
        SlotMap {
            owners: vec![0; usize::from(SLOTS)],
            replicated: HashSet::new(),
            masters: Vec::new(),
            nodes: Vec::new(),
            names: HashMap::new(),
        }
    }
}

impl SlotMap {
    /// What CLUSTER SLOTS of the node `asked` says. With `by_name` a node that has a name is called by it, as its
    /// certificate does. None if it can't be understood.
    pub fn of(answer: Value, asked: &NodeAddress, by_name: bool) -> Option<Self> {
        let mut map = SlotMap::default();
        for range in reply::array(answer)? {
            let mut parts = reply::array(range)?.into_iter();
            let (first, last) = (reply::int(&parts.next()?)?, reply::int(&parts.next()?)?);
            let (mut is_master, mut owner) = (true, 0);
            for node in parts {
                let Some(node) = map.node(node, asked, by_name) else {
                    // One whose address nobody knows yet.
                    is_master = false;
                    continue;
                };
                if std::mem::take(&mut is_master) {
                    owner = map.master(&node);
                    let range = usize::try_from(first).ok()?..=usize::try_from(last).ok()?;
                    map.owners.get_mut(range)?.fill(owner);
                } else {
                    map.replicated.insert(owner);
                }
                if !map.nodes.contains(&node) {
                    map.nodes.push(node);
                }
            }
        }
        Some(map)
    }

    /// The master of a slot.
    pub fn owner(&self, slot: Slot) -> Option<&NodeAddress> {
        let owner = self.owners[usize::from(slot.number())].checked_sub(1)?;
        self.masters.get(usize::from(owner))
    }

    /// Whether a slot is at this node, and nobody is there who could take over from it.
    pub fn is_alone(&self, slot: Slot, node: &NodeAddress) -> bool {
        let owner = self.owners[usize::from(slot.number())];
        self.owner(slot) == Some(node) && !self.replicated.contains(&owner)
    }

    /// The masters that have slots.
    pub fn masters(&self) -> Vec<NodeAddress> {
        let has_any = |at: usize| {
            self.owners
                .iter()
                .any(|owner| usize::from(*owner) == at + 1)
        };
        let masters = self.masters.iter().enumerate();
        let masters = masters.filter(|(at, _)| has_any(*at));
        masters.map(|(_, node)| node.clone()).collect()
    }

    /// Masters and replicas.
    pub fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// The first slot that has no master.
    pub fn gap(&self) -> Option<u16> {
        let gap = self.owners.iter().position(|owner| *owner == 0)?;
        u16::try_from(gap).ok()
    }

    /// A node says that a slot is there.
    pub fn moved(&mut self, slot: Slot, to: &NodeAddress) {
        let owner = self.master(to);
        self.owners[usize::from(slot.number())] = owner;
        if !self.nodes.contains(to) {
            self.nodes.push(to.clone());
        }
    }

    /// Where a redirection points to: `MOVED 3999 host:port`. No host is the host of the node that said so.
    pub fn redirection(&self, text: &str, said_by: &NodeAddress) -> Option<(Slot, NodeAddress)> {
        let mut words = text.split(' ').skip(1);
        let slot = Slot::numbered(words.next()?.parse().ok()?)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let port = port.split('@').next()?.parse().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host {
            "" | "?" => said_by.host.clone(),
            host => host.to_owned(),
        };
        let node = NodeAddress { host, port };
        Some((slot, self.names.get(&node).cloned().unwrap_or(node)))
    }

    fn master(&mut self, node: &NodeAddress) -> u16 {
        let known = self.masters.iter().position(|master| master == node);
        let at = known.unwrap_or_else(|| {
            self.masters.push(node.clone());
            self.masters.len() - 1
        });
        u16::try_from(at + 1).unwrap_or(0)
    }

    /// A node of an answer: its address, its port, its id, and what else it is called.
    fn node(&mut self, node: Value, asked: &NodeAddress, by_name: bool) -> Option<NodeAddress> {
        let mut parts = reply::array(node)?.into_iter();
        let host = parts.next().and_then(reply::text).unwrap_or_default();
        let port = u16::try_from(reply::int(&parts.next()?)?).ok()?;
        let host = match &host[..] {
            "" | "?" => asked.host.clone(),
            _ => host,
        };
        let endpoint = NodeAddress { host, port };
        let more = parts.nth(1).and_then(reply::pairs).unwrap_or_default();
        let name = more.into_iter().find(|(what, _)| what == "hostname");
        let name = name
            .map(|(_, name)| name)
            .filter(|name| !name.is_empty() && name != "?");
        match name.filter(|_| by_name) {
            Some(host) => {
                let named = NodeAddress { host, port };
                self.names.insert(endpoint, named.clone());
                Some(named)
            }
            None => (port > 0).then_some(endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64, more: Vec<Value>) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(more)])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let range = [Value::Int(first), Value::Int(last)];
        Value::Array(range.into_iter().chain(nodes).collect())
    }

    fn at(host: &str, port: u16) -> NodeAddress {
        let host = host.to_owned();
        NodeAddress { host, port }
    }

    fn slot(number: u16) -> Slot {
        Slot::numbered(number).unwrap()
    }

    #[test]
    fn a_map_says_who_the_master_of_a_slot_is() {
        let answer = Value::Array(vec![
            range(
                0,
                5460,
                vec![node(bulk("a"), 1, vec![]), node(bulk("b"), 2, vec![])],
            ),
            range(5461, 5461, vec![node(bulk("c"), 3, vec![])]),
            range(10000, 16383, vec![node(bulk("a"), 1, vec![])]),
        ]);
        let mut map = SlotMap::of(answer, &at("asked", 9), false).unwrap();
        assert_eq!(map.owner(slot(0)), Some(&at("a", 1)));
        assert_eq!(map.owner(slot(5461)), Some(&at("c", 3)));
        assert_eq!(map.owner(slot(16383)), Some(&at("a", 1)));
        assert_eq!((map.owner(slot(5462)), map.gap()), (None, Some(5462)));
        assert_eq!(map.nodes(), [at("a", 1), at("b", 2), at("c", 3)]);
        assert!(map.is_alone(slot(5461), &at("c", 3)) && !map.is_alone(slot(5461), &at("a", 1)));
        assert!(!map.is_alone(slot(0), &at("a", 1)) && !map.is_alone(slot(0), &at("b", 2)));
        map.moved(slot(5461), &at("d", 4));
        assert_eq!(map.owner(slot(5461)), Some(&at("d", 4)));
        assert_eq!(map.masters(), [at("a", 1), at("d", 4)]);
    }

    #[test]
    fn a_node_without_a_host_is_the_one_that_was_asked() {
        for host in [Value::Nil, bulk(""), bulk("?")] {
            let answer = Value::Array(vec![range(0, 16383, vec![node(host, 7000, vec![])])]);
            let map = SlotMap::of(answer, &at("asked", 9), false).unwrap();
            assert_eq!(map.owner(slot(1)), Some(&at("asked", 7000)));
        }
        let map = SlotMap::default();
        let said_by = at("said", 1);
        for (text, node) in [
            ("MOVED 3999 10.0.0.1:6381", at("10.0.0.1", 6381)),
            ("MOVED 3999 :6381", at("said", 6381)),
            ("ASK 3999 ?:6381", at("said", 6381)),
            ("ASK 3999 fd00::1:6381", at("fd00::1", 6381)),
        ] {
            assert_eq!(
                map.redirection(text, &said_by),
                Some((slot(3999), node)),
                "{text}"
            );
        }
        for text in ["MOVED", "MOVED x a:1", "MOVED 16384 a:1", "MOVED 1 a"] {
            assert_eq!(map.redirection(text, &said_by), None, "{text}");
        }
    }

    #[test]
    fn with_tls_a_node_is_called_by_its_name_also_in_a_redirection() {
        let more = || vec![bulk("hostname"), bulk("redis-1.internal")];
        let answer = || {
            Value::Array(vec![range(
                0,
                16383,
                vec![node(bulk("10.0.0.1"), 1, more())],
            )])
        };
        let map = SlotMap::of(answer(), &at("asked", 9), true).unwrap();
        let named = at("redis-1.internal", 1);
        assert_eq!(map.owner(slot(1)), Some(&named));
        let redirected = map.redirection("MOVED 1 10.0.0.1:1", &at("asked", 9));
        assert_eq!(redirected, Some((slot(1), named)));
        let map = SlotMap::of(answer(), &at("asked", 9), false).unwrap();
        assert_eq!(map.owner(slot(1)), Some(&at("10.0.0.1", 1)));
    }

    #[test]
    fn what_is_no_map_is_none() {
        let asked = at("asked", 9);
        for answer in [
            Value::Okay,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, vec![node(bulk("a"), 1, vec![])])]),
            Value::Array(vec![range(-1, 3, vec![node(bulk("a"), 1, vec![])])]),
            Value::Array(vec![range(9, 3, vec![node(bulk("a"), 70000, vec![])])]),
        ] {
            let map = SlotMap::of(answer, &asked, false);
            assert!(map.is_none_or(|map| map.gap() == Some(0)));
        }
    }
}
