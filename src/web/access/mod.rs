//! Who somebody is: by a password, a token, or the word of a proxy.

pub(super) mod password;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use super::visit::Rights;
use crate::config::web::{SHORTEST_TOKEN, too_short};
use crate::config::{Network, Role, Secret, WebSettings, password_in};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// A hash is costly on purpose: who guesses must not have all of this process.
const AT_ONCE: usize = 2;
/// How long a password that was right is not hashed again.
const KNOWN_FOR: Duration = Duration::from_secs(300);
const LONGEST: usize = 1024;
/// What whoever needs to say nothing is called in the audit.
const ANYBODY: &str = "somebody on this machine";

/// What is known of those who may come.
pub(super) struct Access {
    users: BTreeMap<String, User>,
    proxies: Vec<Network>,
    identity_header: Option<String>,
    /// What those may do who are none of the users.
    role: Option<Role>,
    /// Whether whoever comes has to say who they are.
    authenticates: bool,
    known: Mutex<Vec<Known>>,
    hashing: Semaphore,
}

struct User {
    rights: Rights,
    hash: Option<Secret>,
    token: Option<Secret>,
}

/// A password that was right.
struct Known {
    user: String,
    password: Secret,
    at: Instant,
}

/// Somebody, and what they may do.
#[derive(Clone, Debug)]
pub(super) struct Somebody {
    pub who: String,
    pub rights: Rights,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// They have not said who they are.
    Unsaid,
    /// What they said is not right.
    Wrong,
    /// A proxy names them, and nobody has said what they may do.
    Unknown,
}

impl Access {
    /// By the settings; tokens are read from their files.
    ///
    /// # Errors
    /// Where a file can't be read, or what is in it can't be used.
    pub fn new(settings: &WebSettings) -> Result<Self> {
        let mut users = BTreeMap::new();
        for (name, user) in &settings.users {
            let mut token = user.token.clone();
            if let Some(file) = &user.token_file {
                let refused = |why: String| {
                    let message = format!("the token_file of web.users.{name}: {why}");
                    Error::new(ErrorKind::Invalid, message)
                };
                let read = password_in(file).map_err(|(_, why)| refused(why))?;
                if read.expose().len() < SHORTEST_TOKEN {
                    return Err(refused(format!("what is in it {}", too_short())));
                }
                token = Some(read);
            }
            if let Some(hash) = &user.password_hash {
                password::check(hash).map_err(|why| {
                    let message = format!("the password_hash of web.users.{name} {why}");
                    Error::new(ErrorKind::Invalid, message)
                })?;
            }
            let rights = Rights {
                role: user.role,
                streams: user.streams.clone(),
            };
            let user = User {
                rights,
                hash: user.password_hash.clone(),
                token,
            };
            users.insert(name.clone(), user);
        }
        Ok(Access {
            users,
            proxies: settings.proxies.clone(),
            identity_header: settings.identity_header.clone(),
            role: settings.role,
            authenticates: settings.authenticates(),
            known: Mutex::default(),
            hashing: Semaphore::new(AT_ONCE),
        })
    }

    /// Whether an address is a proxy's that is believed.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// Whether a browser is to ask for a name and a password.
    pub fn asks(&self) -> bool {
        self.users
            .values()
            .any(|user| user.hash.is_some() || user.token.is_some())
    }

    /// Who somebody is that comes from this address with these headers.
    pub async fn who(&self, from: IpAddr, headers: &HeaderMap) -> Result<Somebody, Stranger> {
        if !self.authenticates {
            let rights = Rights {
                role: Some(self.role.unwrap_or(Role::Operate)),
                streams: BTreeMap::new(),
            };
            let who = ANYBODY.to_owned();
            return Ok(Somebody { who, rights });
        }
        if let Some(name) = self.named_by_proxy(from, headers) {
            let rights = match self.users.get(&name) {
                Some(user) => user.rights.clone(),
                None => Rights {
                    role: Some(self.role.ok_or(Stranger::Unknown)?),
                    streams: BTreeMap::new(),
                },
            };
            return Ok(Somebody { who: name, rights });
        }
        let said = headers.get(header::AUTHORIZATION).ok_or(Stranger::Unsaid)?;
        let said = said.to_str().map_err(|_| Stranger::Wrong)?;
        let (scheme, said) = said.split_once(' ').ok_or(Stranger::Wrong)?;
        let name = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => self.by_token(said.trim()),
            "basic" => self.by_password(said.trim()).await,
            _ => None,
        };
        let name = name.ok_or(Stranger::Wrong)?;
        let user = self.users.get(&name).ok_or(Stranger::Wrong)?;
        let rights = user.rights.clone();
        Ok(Somebody { who: name, rights })
    }

    /// Without its header a proxy's request is one of nobody's; from elsewhere the header says nothing.
    fn named_by_proxy(&self, from: IpAddr, headers: &HeaderMap) -> Option<String> {
        let header = self.identity_header.as_ref()?;
        if !self.is_proxy(from) {
            return None;
        }
        let mut named = headers.get_all(header).iter();
        let name = named.next()?.to_str().ok()?.trim();
        // Two of them: one is the visitor's own.
        (named.next().is_none() && !name.is_empty()).then(|| name.to_owned())
    }

    fn by_token(&self, token: &str) -> Option<String> {
        // All are looked at, so that the time it takes tells nothing.
        let mut found = None;
        for (name, user) in &self.users {
            let own = user.token.as_ref().map_or("", |token| token.expose());
            if password::is_same(own, token) && !own.is_empty() {
                found = Some(name.clone());
            }
        }
        found
    }

    async fn by_password(&self, said: &str) -> Option<String> {
        let said = STANDARD.decode(said).ok()?;
        let said = String::from_utf8(said).ok()?;
        let (name, given) = said.split_once(':')?;
        if given.len() > LONGEST {
            return None;
        }
        let user = self.users.get(name);
        if let Some(token) = user.and_then(|user| user.token.as_ref())
            && password::is_same(token.expose(), given)
        {
            return Some(name.to_owned());
        }
        if self.is_known(name, given) {
            return Some(name.to_owned());
        }
        // Somebody who is not there takes as long.
        let hash = user.and_then(|user| user.hash.clone());
        let given = Secret::new(given);
        let permit = self.hashing.acquire().await.ok()?;
        let tried = given.clone();
        let is_right = tokio::task::spawn_blocking(move || password::verify(hash.as_ref(), &tried));
        let is_right = is_right.await.unwrap_or(false);
        drop(permit);
        if !is_right {
            return None;
        }
        let mut known = lock(&self.known);
        known.retain(|one| one.user != name && one.at.elapsed() < KNOWN_FOR);
        known.push(Known {
            user: name.to_owned(),
            password: given,
            at: Instant::now(),
        });
        Some(name.to_owned())
    }

    fn is_known(&self, name: &str, given: &str) -> bool {
        lock(&self.known).iter().any(|known| {
            known.user == name
                && known.at.elapsed() < KNOWN_FOR
                && password::is_same(known.password.expose(), given)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::WebUser;

    const TOKEN: &str = "0123456789abcdef0123";

    fn access(settings: WebSettings) -> Access {
        Access::new(&settings).expect("access")
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn basic(name: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
    }

    async fn who(access: &Access, from: &str, pairs: &[(&str, &str)]) -> Result<String, Stranger> {
        let from = from.parse().expect("an address");
        access.who(from, &headers(pairs)).await.map(|one| one.who)
    }

    #[tokio::test]
    async fn a_password_and_a_token_say_who_somebody_is() {
        let hash = password::hash("correct horse").expect("a hash");
        let alice = WebUser::new(Role::Operate).password_hash(hash);
        let ci = WebUser::new(Role::View).token(TOKEN);
        let settings = WebSettings::default().user("alice", alice).user("ci", ci);
        let access = access(settings);
        let ask = async |said: &str| who(&access, "127.0.0.1", &[("authorization", said)]).await;
        assert_eq!(
            ask(&basic("alice", "correct horse")).await.as_deref(),
            Ok("alice")
        );
        assert_eq!(
            ask(&basic("alice", "correct horse")).await.as_deref(),
            Ok("alice")
        );
        assert_eq!(ask(&format!("Bearer {TOKEN}")).await.as_deref(), Ok("ci"));
        assert_eq!(ask(&basic("ci", TOKEN)).await.as_deref(), Ok("ci"));
        let wrong = [
            basic("alice", "correct hors"),
            basic("alice", ""),
            basic("alice", TOKEN),
            basic("nobody", "correct horse"),
            basic("ci", ""),
            "Bearer ".to_owned(),
            "Bearer x".to_owned(),
            "Basic x".to_owned(),
            "Digest x".to_owned(),
        ];
        for wrong in &wrong {
            assert_eq!(ask(wrong).await, Err(Stranger::Wrong), "{wrong}");
        }
        assert_eq!(who(&access, "127.0.0.1", &[]).await, Err(Stranger::Unsaid));
    }

    #[tokio::test]
    async fn a_proxy_is_believed_where_it_is_named_and_nobody_else() {
        let settings = WebSettings::default()
            .proxies(vec!["10.0.0.0/8".parse().expect("a network")])
            .identity_header("x-user")
            .user("alice", WebUser::new(Role::Admin));
        let strict = access(settings.clone());
        let alice = [("x-user", "alice")];
        assert_eq!(
            who(&strict, "10.1.1.1", &alice).await.as_deref(),
            Ok("alice")
        );
        assert_eq!(
            who(&strict, "11.1.1.1", &alice).await,
            Err(Stranger::Unsaid)
        );
        assert_eq!(
            who(&strict, "127.0.0.1", &alice).await,
            Err(Stranger::Unsaid)
        );
        let twice = [("x-user", "alice"), ("x-user", "bob")];
        assert_eq!(
            who(&strict, "10.1.1.1", &twice).await,
            Err(Stranger::Unsaid)
        );
        let bob = [("x-user", "bob")];
        assert_eq!(who(&strict, "10.1.1.1", &bob).await, Err(Stranger::Unknown));
        let open = access(settings.role(Role::View));
        assert_eq!(who(&open, "10.1.1.1", &bob).await.as_deref(), Ok("bob"));
    }
}
