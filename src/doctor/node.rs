//! A server that is looked at: what it says to commands, or what one has said that was recorded.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::Result;
use crate::stream::{Pool, Said, info_fields};

/// A server.
pub(super) struct Node {
    pub address: String,
    /// What its INFO says; why there is none.
    info: Result<HashMap<String, String>, String>,
    by: By,
}

enum By {
    Asking(Pool),
    #[cfg(test)]
    Recorded(HashMap<String, Said>),
}

impl Node {
    pub async fn of(pool: Pool) -> Result<Self> {
        let said = pool.ask_all(&[words("INFO")]).await?;
        let info = match said.into_iter().next() {
            Some(Said::Text(text)) => Ok(info_fields(&text)),
            Some(Said::Refused(why)) => Err(why),
            _ => Err("nothing".to_owned()),
        };
        Ok(Node {
            address: pool.address().to_owned(),
            info,
            by: By::Asking(pool),
        })
    }

    /// One by what it was heard to say: lines of INFO, and answers by their commands.
    #[cfg(test)]
    pub fn recorded(info: &str, said: &[(&str, Said)]) -> Self {
        let said = said.iter();
        Node {
            address: "redis:6379".to_owned(),
            info: match info.strip_prefix('-') {
                Some(refused) => Err(refused.to_owned()),
                None => Ok(info_fields(info)),
            },
            by: By::Recorded(
                said.map(|(command, said)| ((*command).to_owned(), said.clone()))
                    .collect(),
            ),
        }
    }

    pub fn info(&self, name: &str) -> Option<&str> {
        Some(self.info.as_ref().ok()?.get(name)?.trim())
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// Why there is no INFO.
    pub fn no_info(&self) -> Option<&str> {
        self.info.as_ref().err().map(String::as_str)
    }

    /// What it says to this command, whose words have no spaces.
    pub async fn ask(&self, command: &str) -> Said {
        let words: Vec<&str> = command.split_whitespace().collect();
        self.ask_words(&words).await
    }

    /// The same, of words that may have spaces.
    pub async fn ask_words(&self, words: &[&str]) -> Said {
        let said = self.ask_all(&[owned(words)]).await.into_iter().next();
        said.unwrap_or(Said::Nothing)
    }

    /// The same of several at once.
    pub async fn ask_all(&self, commands: &[Vec<String>]) -> Vec<Said> {
        match &self.by {
            By::Asking(pool) => match pool.ask_all(commands).await {
                Ok(said) => said,
                Err(error) => {
                    let refused = Said::Refused(error.to_string());
                    commands.iter().map(|_| refused.clone()).collect()
                }
            },
            #[cfg(test)]
            By::Recorded(said) => {
                let said = |words: &Vec<String>| {
                    let said = said.get(&words.join(" "));
                    let unknown = || Said::Refused("ERR unknown command".to_owned());
                    said.cloned().unwrap_or_else(unknown)
                };
                commands.iter().map(said).collect()
            }
        }
    }

    /// One of its settings; why it is not known.
    pub async fn setting(&self, name: &str) -> Result<String, String> {
        match self.ask(&format!("CONFIG GET {name}")).await {
            Said::Refused(why) => Err(why),
            said => match said.get(name).and_then(Said::text) {
                Some(value) => Ok(value.to_owned()),
                None => Err("nothing".to_owned()),
            },
        }
    }

    /// Whether its user may run each of these; None if it does not say.
    pub async fn may(&self, commands: &[Vec<String>]) -> Result<Option<Vec<bool>>> {
        match &self.by {
            By::Asking(pool) => pool.may(commands).await,
            #[cfg(test)]
            By::Recorded(said) => Ok(said.get("may").map(|allowed| {
                let of = |words: &Vec<String>| {
                    let mut allowed = allowed.items().iter();
                    allowed.any(|allowed| allowed.text() == Some(&words[0]))
                };
                commands.iter().map(of).collect()
            })),
        }
    }

    pub async fn pings(&self, count: usize) -> Result<Vec<Duration>> {
        match &self.by {
            By::Asking(pool) => pool.pings(count).await,
            #[cfg(test)]
            By::Recorded(_) => Ok(vec![Duration::from_micros(100); count]),
        }
    }

    pub async fn clock_ahead(&self) -> Result<(i64, Duration)> {
        match &self.by {
            By::Asking(pool) => pool.clock_ahead().await,
            #[cfg(test)]
            By::Recorded(_) => Ok((0, Duration::ZERO)),
        }
    }
}

/// A command as [`Node::ask_all`] takes it.
pub(super) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A command's words, none of which has spaces.
pub(super) fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

/// A list of texts, as servers say them.
#[cfg(test)]
pub(super) fn list(items: &[&str]) -> Said {
    Said::Many(
        items
            .iter()
            .map(|item| Said::Text((*item).to_owned()))
            .collect(),
    )
}
