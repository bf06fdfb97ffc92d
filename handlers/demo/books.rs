//! The books: what Redis has, of the shop and of the group.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{AsyncCommands, RedisError, Value};
use streamhand::cli::CommandError;
use streamhand::{PooledConnection, Publisher, Settings};

use super::orders;
use crate::events::{INVENTORY, ORDERS};

const DEAD: &str = "{orders}:fulfilment:dead";
const AGAIN: &str = "{orders}:fulfilment:again";
const STOCK: &str = "{orders}:stock";
const DECISION: &str = "{orders}:decision:";
const RESERVED: &str = "{orders}:reserved:";
/// Entries and keys that are asked for at once.
const PAGE: usize = 1000;

/// Asks Redis.
pub struct Books {
    publisher: Publisher,
    group: String,
}

/// How far the group is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub published: u64,
    /// Delivered and not settled, the parked ones among them.
    pub pending: u64,
    /// Not delivered yet.
    pub lag: u64,
    /// Replayed and not settled yet.
    pub again: u64,
    pub dead: u64,
}

/// An entry's fields by their names.
type Fields = BTreeMap<String, Vec<u8>>;

impl Books {
    pub fn new(settings: &Settings) -> Result<Self, CommandError> {
        Ok(Books {
            publisher: Publisher::new(&settings.redis)?,
            group: settings.worker.group.clone(),
        })
    }

    /// Puts the stock there that the demo begins with.
    pub async fn stock_up(&self, events: u64) -> Result<(), CommandError> {
        let units = |units: Option<u64>| units.map_or("n/a".to_owned(), |units| units.to_string());
        let stock: Vec<_> = orders::stock(events)
            .into_iter()
            .map(|(sku, n)| (sku, units(n)))
            .collect();
        self.redis()
            .await?
            .hset_multiple(STOCK, &stock)
            .await
            .map_err(refused)
    }

    /// Says how many units there are of these.
    pub async fn mend_stock(&self, skus: &[&str], units: u64) -> Result<(), CommandError> {
        let stock: Vec<_> = skus.iter().map(|sku| (*sku, units)).collect();
        self.redis()
            .await?
            .hset_multiple(STOCK, &stock)
            .await
            .map_err(refused)
    }

    pub async fn position(&self) -> Result<Position, CommandError> {
        let (groups, published, again, dead): (Vec<HashMap<String, Value>>, u64, u64, u64) =
            redis::pipe()
                .cmd("XINFO")
                .arg("GROUPS")
                .arg(ORDERS)
                .cmd("XLEN")
                .arg(ORDERS)
                .cmd("XLEN")
                .arg(AGAIN)
                .cmd("XLEN")
                .arg(DEAD)
                .query_async(&mut self.redis().await?)
                .await
                .map_err(refused)?;
        let group = groups
            .first()
            .ok_or_else(|| CommandError::failed("the group is gone"))?;
        let number = |name: &str| {
            group
                .get(name)
                .and_then(|value| redis::from_redis_value_ref(value).ok())
        };
        Ok(Position {
            published,
            pending: number("pending").unwrap_or(0),
            // Where it is not known, there is some.
            lag: number("lag").unwrap_or(published),
            again,
            dead,
        })
    }

    /// How many workers wait for entries.
    pub async fn waiting(&self) -> Result<u64, CommandError> {
        let info: String = redis::cmd("INFO")
            .arg("clients")
            .query_async(&mut self.redis().await?)
            .await
            .map_err(refused)?;
        let waiting = info
            .lines()
            .find_map(|line| line.strip_prefix("blocked_clients:"));
        Ok(waiting
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or(0))
    }

    /// How many entries the worker holds that is this process.
    pub async fn held_by(&self, pid: u32) -> Result<u64, CommandError> {
        let consumers: Vec<HashMap<String, Value>> = redis::cmd("XINFO")
            .arg("CONSUMERS")
            .arg(ORDERS)
            .arg(&self.group)
            .query_async(&mut self.redis().await?)
            .await
            .map_err(refused)?;
        let mut held = 0;
        for mut consumer in consumers {
            let mut take = |name: &str| consumer.remove(name).unwrap_or(Value::Nil);
            let name: String =
                redis::from_redis_value(take("name")).map_err(|error| refused(error.into()))?;
            // sh<protocol>-<lease>-<host>-<pid>-<random>
            if name.rsplit('-').nth(1) == Some(&pid.to_string()) {
                held += redis::from_redis_value::<u64>(take("pending"))
                    .map_err(|error| refused(error.into()))?;
            }
        }
        Ok(held)
    }

    /// Every answer of the inventory: the id of the event it answers.
    pub async fn answers(&self) -> Result<Vec<String>, CommandError> {
        let answers = self.entries(INVENTORY).await?;
        Ok(answers
            .iter()
            .map(|fields| text(fields, "causationid"))
            .collect())
    }

    /// Every dead letter: the id of its event, and the reason.
    pub async fn dead(&self) -> Result<Vec<(String, String)>, CommandError> {
        let letters = self.entries(DEAD).await?;
        Ok(letters
            .iter()
            .map(|fields| (text(fields, "id"), text(fields, "dead.reason")))
            .collect())
    }

    /// Every event that was published: its id, its type and its order.
    pub async fn published(&self) -> Result<Vec<[String; 3]>, CommandError> {
        let events = self.entries(ORDERS).await?;
        Ok(events
            .iter()
            .map(|fields| ["id", "type", "subject"].map(|name| text(fields, name)))
            .collect())
    }

    /// What was decided about every order.
    pub async fn decisions(&self) -> Result<BTreeMap<String, String>, CommandError> {
        let mut redis = self.redis().await?;
        let mut decisions = BTreeMap::new();
        for keys in self.keys(DECISION).await?.chunks(PAGE) {
            let some: Vec<String> = redis.mget(keys).await.map_err(refused)?;
            decisions.extend(
                keys.iter()
                    .map(|key| key[DECISION.len()..].to_owned())
                    .zip(some),
            );
        }
        Ok(decisions)
    }

    /// How much of each sku is reserved, by all orders together.
    pub async fn reserved(&self) -> Result<BTreeMap<String, u64>, CommandError> {
        let mut redis = self.redis().await?;
        let mut reserved = BTreeMap::new();
        for keys in self.keys(RESERVED).await?.chunks(PAGE) {
            let mut ask = redis::pipe();
            for key in keys {
                ask.hgetall(key);
            }
            let orders: Vec<BTreeMap<String, u64>> =
                ask.query_async(&mut redis).await.map_err(refused)?;
            for (sku, units) in orders.into_iter().flatten() {
                *reserved.entry(sku).or_default() += units;
            }
        }
        Ok(reserved)
    }

    /// How much of a sku is left; nothing where that is no number.
    pub async fn left(&self, sku: &str) -> Result<u64, CommandError> {
        let left: Option<String> = self
            .redis()
            .await?
            .hget(STOCK, sku)
            .await
            .map_err(refused)?;
        Ok(left.and_then(|left| left.parse().ok()).unwrap_or(0))
    }

    /// All entries of a stream, without their ids.
    async fn entries(&self, stream: &str) -> Result<Vec<Fields>, CommandError> {
        let mut redis = self.redis().await?;
        let (mut all, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let page: Vec<(String, Fields)> = redis::cmd("XRANGE")
                .arg(stream)
                .arg(&from)
                .arg("+")
                .arg("COUNT")
                .arg(PAGE)
                .query_async(&mut redis)
                .await
                .map_err(refused)?;
            match page.last() {
                Some((id, _)) => from = format!("({id}"),
                None => return Ok(all),
            }
            all.extend(page.into_iter().map(|(_, fields)| fields));
        }
    }

    /// All keys that begin so.
    async fn keys(&self, prefix: &str) -> Result<Vec<String>, CommandError> {
        let mut redis = self.redis().await?;
        let (mut keys, mut cursor) = (BTreeSet::new(), 0u64);
        loop {
            let (next, some): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{prefix}*"))
                .arg("COUNT")
                .arg(PAGE)
                .query_async(&mut redis)
                .await
                .map_err(refused)?;
            // A key may come twice.
            keys.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(keys.into_iter().collect());
            }
        }
    }

    async fn redis(&self) -> Result<PooledConnection, CommandError> {
        Ok(self.publisher.redis().await?)
    }
}

impl Position {
    /// Whether nothing is left to be done.
    pub fn is_settled(&self) -> bool {
        self.lag + self.pending + self.again == 0
    }

    /// How many events are settled.
    pub fn settled(&self) -> u64 {
        self.published
            .saturating_sub(self.lag + self.pending + self.again)
    }
}

fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).map_or_else(String::new, |value| {
        String::from_utf8_lossy(value).into_owned()
    })
}

fn refused(error: RedisError) -> CommandError {
    CommandError::failed(format!("the demo's server: {error}"))
}
