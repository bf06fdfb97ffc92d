//! What the server says of itself, and which commands it has found slow.

use std::collections::HashMap;

use redis::{RedisResult, Value};

use super::error::{Answer, Trouble, Who, refusal};
use super::pool::Pool;
use super::reply;
use super::script_names::script_name;
use crate::error::{Error, Result};

/// Most slow commands.
const SLOW: usize = 32;
/// Characters of a command that are kept.
const SHOWN: usize = 200;

/// What the server says of itself; what it does not say is left out.
#[derive(Debug)]
pub(crate) struct ServerSays {
    pub info: HashMap<String, String>,
    /// The commands it found slow, the latest first; why there are none where it does not say.
    pub slow: std::result::Result<Vec<Slow>, String>,
    pub address: String,
}

/// A command that the server found slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slow {
    pub at_s: u64,
    pub took_us: u64,
    /// The command's name, and of a script its name or its hash, and the first key: what else it says may be an event.
    pub what: String,
    pub client: String,
}

impl Pool {
    /// What each master says of itself; of one that is no cluster there is one. Of a master that is away its address, and
    /// why it can't be asked.
    pub async fn servers(&self) -> Result<Vec<std::result::Result<ServerSays, (String, Error)>>> {
        let mut all = Vec::new();
        for master in self.masters().await? {
            all.push(match master.server().await {
                Ok(says) => Ok(says),
                Err(error) if self.is_of_one_node(&error) => {
                    Err((master.address().to_owned(), error))
                }
                Err(error) => return Err(error),
            });
        }
        Ok(all)
    }

    async fn server(&self) -> Result<ServerSays> {
        let doing = "asking the server how it is";
        let mut conn = self.get().await?;
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("INFO")
            .cmd("SLOWLOG")
            .arg("GET")
            .arg(SLOW)
            .ignore_errors();
        let answers: Vec<RedisResult<Value>> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, doing, error))?;
        let mut answers = answers.into_iter();
        let info = answers
            .next()
            .ok_or_else(|| Trouble::garbled(doing).into_error())?;
        let info = info.map_err(|error| refusal(Who::Operator, doing, error))?;
        let info = match info {
            Value::VerbatimString { text, .. } => text,
            info => reply::text(info).unwrap_or_default(),
        };
        let slow = match answers.next() {
            Some(Ok(value)) => Ok(slow(value).unwrap_or_default()),
            Some(Err(error)) => {
                Err(Answer::of(&error).map_or_else(|| error.to_string(), |answer| answer.code))
            }
            None => Ok(Vec::new()),
        };
        Ok(ServerSays {
            info: info_fields(&info),
            slow,
            address: self.address().to_owned(),
        })
    }
}

/// What INFO says, by its names.
pub(crate) fn info_fields(info: &str) -> HashMap<String, String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn what(words: Vec<Vec<u8>>) -> String {
    let word = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word));
    let name = word(0).unwrap_or_default().to_ascii_uppercase();
    let what = match (&name[..], word(1), word(3)) {
        ("EVALSHA" | "EVALSHA_RO", Some(hash), key) => {
            let script =
                script_name(&hash).map_or(hash.into_owned(), |name| format!("script {name}"));
            format!("{script} {}", key.unwrap_or_default())
        }
        ("EVAL" | "EVAL_RO", _, key) => format!("a script of others {}", key.unwrap_or_default()),
        (name, Some(key), _) => format!("{name} {key}"),
        (name, None, _) => name.to_owned(),
    };
    what.trim_end().chars().take(SHOWN).collect()
}

fn slow(value: Value) -> Option<Vec<Slow>> {
    let one = |value| {
        let mut parts = reply::array(value)?.into_iter();
        let (_, at, took) = (parts.next()?, parts.next()?, parts.next()?);
        let words = reply::array(parts.next()?)?.into_iter();
        let client = parts.nth(1).and_then(reply::bytes).unwrap_or_default();
        Some(Slow {
            at_s: reply::int(&at)? as u64,
            took_us: reply::int(&took)? as u64,
            what: what(words.take(4).filter_map(reply::bytes).collect()),
            client: String::from_utf8_lossy(&client).into_owned(),
        })
    };
    Some(reply::array(value)?.into_iter().filter_map(one).collect())
}
