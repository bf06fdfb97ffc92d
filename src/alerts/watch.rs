//! Looking, and telling: a turn at a time, of all processes that are to watch the group.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::evidence::{Evidence, Finding, NewFailure, WINDOWS};
use super::notice;
use super::rule::{RULES, Rule};
use super::standing::{Case, Standing};
use crate::admin::Admin;
use crate::config::{AlertSettings, Settings};
use crate::dead_letters::Filter;
use crate::error::{Error, ErrorKind, Result};
use crate::http_client::{HttpClient, Post, Tries};
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::Id;
use crate::pulse::history::History;
use crate::pulse::slot::Length;
use crate::reconnect::Complaint;
use crate::retry::Backoff;
use crate::stream::{AlertKeys, AlertTurn};

/// How long it is tried to tell somebody; what could not be told is owed at the next look.
const TELLING: Tries = Tries {
    most: 3,
    each: Duration::from_secs(5),
    all: Duration::from_secs(12),
    backoff: Backoff {
        initial: Duration::from_millis(500),
        factor: 2.0,
        max: Duration::from_secs(5),
        jitter: 0.2,
    },
};
/// What takes longer to look at is left for the next look.
const LOOKING: Duration = Duration::from_secs(10);
/// A turn outlasts a look, and then telling what it found.
const TURN: Duration = Duration::from_secs(15);

/// Watches a group and tells a webhook or an Alertmanager what is wrong with it, and when it is over. Programs of
/// [`cli`](crate::cli) run one beside each worker if `[alerts]` says whom to tell.
///
/// However many watch a group, one of them looks at a time. What is owed to whoever is told survives its process.
///
/// ```no_run
/// use streamhand::alerts::Alerts;
/// use streamhand::config::{Settings, Sources};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Settings::load(Sources::from_process())?;
/// if let Some(alerts) = Alerts::new(&settings)? {
///     tokio::spawn(alerts.run());
/// }
/// # Ok(()) }
/// ```
#[must_use]
pub struct Alerts {
    admin: Admin,
    settings: AlertSettings,
    client: HttpClient,
    webhook: Option<Post>,
    alertmanager: Option<Post>,
    keys: AlertKeys,
    who: String,
}

/// Somebody who watches; no longer once this is dropped.
pub(crate) struct Watching {
    _stop: DropGuard,
}

/// What a look found, for who asks for one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Found {
    /// The name of the alert.
    pub alert: &'static str,
    /// `critical` or `warning`.
    pub severity: &'static str,
    /// What tells it from others of its name.
    pub labels: std::collections::BTreeMap<&'static str, String>,
    /// What is wrong, in a sentence.
    pub summary: String,
    /// What it means, and what to do about it.
    pub help: &'static str,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Alerts {
    /// One by the settings of `[alerts]`; None if there is nobody to tell.
    ///
    /// # Errors
    /// If an address can't be one, without quoting it.
    pub fn new(settings: &Settings) -> Result<Option<Self>> {
        let of = &settings.alerts;
        if !of.is_on() {
            return Ok(None);
        }
        let webhook = of.webhook.as_ref().map(|webhook| {
            let url = address("alerts.webhook", webhook.expose())?;
            Post::new(&url, "application/json", "")
        });
        let alertmanager = of.alertmanager.as_ref().map(|base| {
            let base = format!("{}/api/v2/alerts", base.trim_end_matches('/'));
            Post::new(
                &address("alerts.alertmanager", &base)?,
                "application/json",
                "",
            )
        });
        Ok(Some(Alerts {
            admin: Admin::new(settings)?,
            settings: of.clone(),
            client: HttpClient::new(None)?,
            webhook: webhook.transpose()?,
            alertmanager: alertmanager.transpose()?,
            keys: AlertKeys::new(&settings.worker.group),
            who: uuid::Uuid::now_v7().to_string(),
        }))
    }

    /// Watches for as long as it is polled. It waits for a Redis that can't be reached.
    pub async fn run(self) {
        let (mut looking, mut telling) = (Complaint::default(), Complaint::default());
        // Workers that start together need not look together.
        tokio::time::sleep(self.settings.every.mul_f64(fastrand::f64() / 4.0)).await;
        let mut every = tokio::time::interval(self.settings.every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let looked = tokio::time::timeout(LOOKING, self.look()).await;
            let looked = looked.unwrap_or_else(|_| {
                let message = format!("took longer than {}", crate::duration::format(LOOKING));
                Err(Error::new(ErrorKind::Redis, message))
            });
            match looked {
                Ok(None) => {
                    looking.clear();
                }
                Ok(Some((mut standing, now))) => {
                    looking.clear();
                    match self.tell(&mut standing, now).await {
                        Ok(()) => {
                            telling.clear();
                        }
                        Err(error) => telling.warn(format!("an alert could not be told: {error}")),
                    }
                }
                Err(error) => looking.warn(format!("could not look for what is wrong: {error}")),
            }
        }
    }

    /// Watches on a thread of its own, so that no handler that blocks its runtime keeps it from telling, until what this
    /// returns is dropped.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn beside(self) -> Result<Watching> {
        let internal = |error: std::io::Error| {
            let message = format!("can't watch for what is wrong: {error}");
            Error::new(ErrorKind::Internal, message)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(internal)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("streamhand-alerts".to_owned())
            .spawn(move || runtime.block_on(stopped.run_until_cancelled(self.run())))
            .map_err(internal)?;
        Ok(Watching {
            _stop: stop.drop_guard(),
        })
    }

    /// Tells whoever is to be told that this is a test.
    ///
    /// # Errors
    /// If one of them can't be reached, or refuses.
    pub async fn test(&self) -> Result<()> {
        let now = self.admin.now().await?;
        let case = Case::test(ms(now));
        self.send(&[&case], &[&case], now).await.map_err(refused)
    }

    /// Takes its turn if nobody else has it, and looks. Returns what stands, which is kept by then.
    async fn look(&self) -> Result<Option<(Standing, SystemTime)>> {
        let turn = self.turn();
        let pool = self.admin.pool();
        let kept = match pool.alerts_turn(&self.keys, &self.who, turn, None).await? {
            AlertTurn::Anothers => return Ok(None),
            AlertTurn::Mine(kept) => kept,
        };
        // What another release has kept and this one can't read is forgotten: it is told again.
        let standing = kept.and_then(|kept| serde_json::from_str(&kept).ok());
        let mut standing: Standing = standing.unwrap_or_default();
        let now = self.admin.now().await?;
        let admin = self.admin.as_grown().await;
        let found = found(&admin, &self.settings, &mut standing, now).await?;
        standing.look(found, self.settings.every, ms(now));
        match self.keep(&standing).await? {
            true => Ok(Some((standing, now))),
            false => Ok(None),
        }
    }

    /// Keeps what stands, unless it is another's turn by now.
    async fn keep(&self, standing: &Standing) -> Result<bool> {
        let turn = self.turn();
        let text = serde_json::to_string(standing)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        let pool = self.admin.pool();
        let kept = pool
            .alerts_turn(&self.keys, &self.who, turn, Some(&text))
            .await?;
        Ok(kept != AlertTurn::Anothers)
    }

    /// For how long nobody else looks.
    fn turn(&self) -> Duration {
        TURN + self.settings.every
    }

    async fn tell(&self, standing: &mut Standing, now: SystemTime) -> Result<(), String> {
        let repeat = self.settings.repeat;
        let owed = standing.owed(repeat, ms(now));
        let firing: Vec<&Case> = standing.firing().collect();
        if firing.is_empty() {
            return Ok(());
        }
        for case in &owed {
            let (alert, text) = (&case.rule, &case.text);
            match case.over {
                true => tracing::info!(alert, "over: {text}"),
                false => tracing::warn!(alert, "{text}"),
            }
        }
        self.send(&owed, &firing, now).await?;
        if owed.is_empty() {
            return Ok(());
        }
        standing.told(repeat, ms(now));
        // If this fails it is told once more.
        self.keep(standing)
            .await
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Tells the webhook what is owed, and an Alertmanager, which forgets, everything that fires.
    async fn send(&self, owed: &[&Case], firing: &[&Case], now: SystemTime) -> Result<(), String> {
        let group = self.admin.group();
        if let Some(post) = &self.alertmanager {
            self.post(post, notice::alertmanager(group, firing, now))
                .await?;
        }
        match &self.webhook {
            Some(post) if !owed.is_empty() => {
                self.post(post, notice::webhook(group, owed, now)).await
            }
            _ => Ok(()),
        }
    }

    async fn post(&self, post: &Post, body: Value) -> Result<(), String> {
        let post = post.with_body(body.to_string());
        let reply = self.client.post_until_heard(&post, TELLING).await;
        let reply = reply.map_err(|failed| failed.to_string())?;
        match reply.status.is_success() {
            true => Ok(()),
            false => Err(format!(
                "{} replied {}: {}",
                post.shown(),
                reply.status,
                reply.text()
            )),
        }
    }
}

/// Looks once, whoever's turn it is, and tells nobody. What must last before it is told of is found at once, and what can
/// only be known of two looks is not.
///
/// # Errors
/// If Redis can't be reached, or refuses to say.
pub async fn look_once(admin: &Admin, settings: &Settings) -> Result<Vec<Found>> {
    let now = admin.now().await?;
    let mut standing = Standing::default();
    let found = found(admin, &settings.alerts, &mut standing, now)
        .await?
        .into_iter();
    Ok(found
        .map(|(rule, finding)| Found {
            alert: rule.name,
            severity: rule.severity.name(),
            labels: finding.labels.into_iter().collect(),
            summary: finding.text,
            help: rule.help,
        })
        .collect())
}

/// What the rules find now.
async fn found(
    admin: &Admin,
    settings: &AlertSettings,
    standing: &mut Standing,
    now: SystemTime,
) -> Result<Vec<(&'static Rule, Finding)>> {
    let is_on = |name: &str| !settings.off.iter().any(|off| off == name);
    let mut gauges = Snapshot::default();
    admin.load().await?.add_to(&mut gauges);
    for stream in admin.status().await?.streams {
        for breaker in stream.circuit_breakers {
            let labels = [admin.group(), &breaker.name, &breaker.state];
            gauges.gauge(Id::BreakerState, &labels, 1.0);
        }
    }
    let lags = gauges.iter().filter(|(id, ..)| *id == Id::GroupLag);
    let lags = lags.filter_map(|(_, labels, value)| match value {
        crate::metrics::snapshot::Value::Gauge(lag) => Some((labels[0].to_string(), *lag as u64)),
        _ => None,
    });
    standing.note_lags(lags.collect::<Vec<_>>(), ms(now));
    let new_failures = match is_on("new_failure") {
        true => new_failures(admin, standing, ms(now)).await?,
        false => Vec::new(),
    };
    let evidence = Evidence {
        settings,
        counted: counted(admin, settings, now).await?,
        lags: standing.lags().clone(),
        new_failures,
        lease: Some(admin.lease()),
        gauges,
    };
    let rules = RULES.iter().filter(|rule| is_on(rule.name));
    let look = |rule: &'static Rule| {
        (rule.look)(&evidence)
            .into_iter()
            .map(move |found| (rule, found))
    };
    Ok(rules.flat_map(look).collect())
}

/// What all workers have counted within each of the windows.
async fn counted(
    admin: &Admin,
    settings: &AlertSettings,
    now: SystemTime,
) -> Result<[Snapshot; WINDOWS.len()]> {
    let history = History::new(admin.pool().clone(), admin.group());
    let mut counted: [Snapshot; WINDOWS.len()] = Default::default();
    for (window, counted) in WINDOWS.iter().zip(&mut counted) {
        // The long ones are for what is to end in time.
        let length = match window.as_secs() {
            ..=600 => Length::Minute,
            _ if settings.end_to_end.is_none() => continue,
            _ => Length::Ten,
        };
        let to = ms(now);
        let from = to.saturating_sub(ms_of(*window));
        match history.slots(from, to, length).await {
            Ok(slots) => slots.iter().for_each(|slot| counted.merge(&slot.counted)),
            // What workers tell lies at one node. Without it the rules that go by counts are silent, and no others.
            Err(error) if admin.pool().is_of_one_node(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(counted)
}

async fn new_failures(admin: &Admin, standing: &mut Standing, now: u64) -> Result<Vec<NewFailure>> {
    let dead = admin.dead_letters()?.leaving_out_unreachable();
    let groups = dead.groups(Filter::new()).await?.groups;
    if standing.is_first_look() && !dead.left_out().is_empty() {
        // What is seen at the first look is not new; all of it would be that is not seen now.
        return Ok(Vec::new());
    }
    let kind = |stream: &str, fingerprint: &str| format!("{stream} {fingerprint}");
    let kinds = groups
        .iter()
        .map(|group| kind(&group.stream, &group.fingerprint));
    let new = standing.new_kinds(kinds.collect::<Vec<_>>(), now);
    let of =
        |group: &crate::dead_letters::Group| new.contains(&kind(&group.stream, &group.fingerprint));
    Ok(groups
        .into_iter()
        .filter(of)
        .map(|group| NewFailure {
            stream: group.stream,
            fingerprint: group.fingerprint,
            error: group.example,
            event_type: group.event_type.unwrap_or_default(),
        })
        .collect())
}

fn address(setting: &str, text: &str) -> Result<Url> {
    Url::parse(text).map_err(|_| {
        let message = format!("{setting} is no address; write \"https://host/path\"");
        Error::new(ErrorKind::Invalid, message)
    })
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::Unreachable, why)
}

fn ms(time: SystemTime) -> u64 {
    ms_of(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn ms_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
