//! Retention: streams are trimmed to what their settings say, once every few seconds by one worker of all their groups,
//! and dead letters once a minute by one of their own. Where nothing is to be trimmed, nothing is asked.
//!
//! What may go is decided in Redis, in the step that lets it go: see `trim.lua`. Here it is decided when, and said what
//! was done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::replays::Replays;
use crate::config::{DeadLetterSettings, Keep, Retention, Settings};
use crate::names::shown;
use crate::reconnect::Complaint;
use crate::stream::{
    Expire, Expired, Hold, Link, Policy, Rhythm, Step, TRIM_EVERY, Trim, Trimmed, Trimming,
    Trouble, trim_policy, trim_rhythm,
};
use crate::worker::pace::tidying::{EXPIRE, expire_in, first_expire_in, trim_in};
use crate::worker::shard::clock::ServerClock;
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Steps of one turn. What is left after them is for the next: another stream may wait.
const STEPS: usize = 200;
/// How far the server's clock may be off what it should show. It takes a second to notice that it was set, and a busy
/// server some time to answer.
const LEEWAY: Duration = Duration::from_secs(5);
/// Between two steps, so that others get their turn at Redis.
const BREATH: Duration = Duration::from_millis(2);

/// Keeps streams and dead letters short.
pub(crate) struct Trimmer {
    by: TrimsBy,
    /// What a look at dead letters finds besides.
    replays: Replays,
    streams: Vec<Kept>,
    /// How many streams it has looked at whether they are.
    known: usize,
    settings: Settings,
    dead: DeadLetterSettings,
    trim_at: Instant,
    expire_at: Instant,
}

/// What the steps are made by.
struct TrimsBy {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    clock: Arc<ServerClock>,
}

/// A stream that is trimmed.
struct Kept {
    source: Arc<Source>,
    policy: Policy,
    /// Its groups, as far as they are known.
    groups: Vec<Vec<u8>>,
    complaint: Complaint,
}

impl Trimmer {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        clock: Arc<ServerClock>,
        replays: Replays,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        let mut trimmer = Trimmer {
            replays,
            streams: Vec::new(),
            known: 0,
            settings: settings.clone(),
            dead: settings.dead_letters.clone(),
            trim_at: now + trim_in(TRIM_EVERY),
            expire_at: now
                + first_expire_in(
                    settings.dead_letters.keep.is_some().then_some(TRIM_EVERY),
                    identity.lease,
                ),
            by: TrimsBy {
                identity,
                signals,
                sources,
                clock,
            },
        };
        trimmer.learn();
        trimmer
    }

    /// Takes in the streams that came since it last looked: a topic has grown.
    fn learn(&mut self) {
        let named = self.by.sources.named();
        let group = self.by.identity.group.as_bytes();
        for source in &named[self.known..] {
            if let Some(policy) = trim_policy(&self.settings, &source.keys.stream) {
                self.streams.push(Kept {
                    source: source.clone(),
                    policy,
                    groups: vec![group.to_vec()],
                    complaint: Complaint::default(),
                });
            }
        }
        self.known = named.len();
    }

    /// When there is something to do next.
    pub fn next(&self) -> Instant {
        if self.streams.is_empty() {
            self.expire_at
        } else {
            self.trim_at.min(self.expire_at)
        }
    }

    /// Does what there is to do. What is refused is tried again at the next turn: nothing waits for it.
    pub async fn round(&mut self, link: &mut Link) -> Result<(), Trouble> {
        self.learn();
        let by = &self.by;
        let now = Instant::now();
        if now >= self.trim_at {
            self.trim_at = now + trim_in(TRIM_EVERY);
            // A group that was destroyed a moment ago looks as if it had been long ago: its workers make it anew first.
            let grace = trim_rhythm(by.identity.lease).grace;
            if !by.clock.get().was_set_within(grace) {
                for stream in &mut self.streams {
                    stream.turn(by, link).await?;
                }
            }
        }
        if now >= self.expire_at {
            self.expire_at = now + expire_in();
            for source in by.sources.named().iter() {
                match expire(by, source, &self.dead, link).await {
                    Err(Trouble::Broken(error)) => return Err(Trouble::Broken(error)),
                    Err(trouble) => tracing::warn!("{}", trouble.error()),
                    Ok(Looked::Soon) => self.expire_at = now + trim_in(TRIM_EVERY),
                    Ok(Looked::Done(undriven)) => {
                        if let Some(run) = undriven {
                            self.replays.drive(&source.keys.stream, run);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Kept {
    async fn turn(&mut self, by: &TrimsBy, link: &mut Link) -> Result<(), Trouble> {
        match self.trim(by, link).await {
            Err(Trouble::Broken(error)) => Err(Trouble::Broken(error)),
            Err(refused) if !matches!(refused, Trouble::NoGroup(_)) => {
                self.complaint.warn(refused.error().to_string());
                Ok(())
            }
            // The group will be made anew, and until then nothing is trimmed.
            Ok(()) | Err(_) => {
                self.complaint.clear();
                Ok(())
            }
        }
    }

    async fn trim(&mut self, by: &TrimsBy, link: &mut Link) -> Result<(), Trouble> {
        let mut step = Step::Turn;
        let (mut entries, mut forced) = (0, 0);
        for _ in 0..STEPS {
            let clock = by.clock.get();
            let of = Trimming {
                keys: &self.source.keys,
                group: &by.identity.group,
                policy: Policy {
                    retention: match self.policy.retention {
                        Retention::Beyond(Keep::For(age)) => {
                            Retention::Beyond(Keep::For(clock.lasting(age)))
                        }
                        retention => retention,
                    },
                    ..self.policy
                },
                consumer: &by.identity.name,
                rhythm: Rhythm {
                    clock: Some(clock.expected(LEEWAY)),
                    ..trim_rhythm(by.identity.lease)
                },
                groups: &self.groups,
            };
            match link.trim(of, step).await? {
                Trim::NotNow | Trim::ClockIsOff => break,
                Trim::Groups(groups) => self.groups = groups,
                Trim::Done(done) => {
                    (entries, forced) = (entries + done.entries, forced + done.forced);
                    self.say_what_holds(&done);
                    if !done.more || by.signals.is_stopping() {
                        break;
                    }
                    step = Step::On;
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        let stream = &self.source.keys.stream;
        if forced > 0 {
            let retention = self.policy.retention;
            tracing::error!(
                stream, count = forced, %retention,
                "LOST TO TRIMMING: deleted by force, though a group had not settled all of them"
            );
        }
        if entries > forced {
            tracing::debug!(
                stream,
                count = entries - forced,
                "trimmed what every group has settled"
            );
        }
        Ok(())
    }

    fn say_what_holds(&self, done: &Trimmed) {
        let Some(hold) = done.hold.as_ref().filter(|hold| hold.warn) else {
            return;
        };
        let Hold {
            group,
            why,
            id,
            pending,
            unread,
            ..
        } = hold;
        let age = crate::duration::format(Duration::from_secs(hold.age.as_secs()));
        let unread = unread.map(|unread| unread.to_string());
        tracing::warn!(
            stream = self.source.keys.stream, group = %shown(group), why = why.name(), from = %id, %age, pending,
            unread = unread.as_deref().unwrap_or("unknown"),
            "the group holds the trimming back: it has not settled what should have gone by now; a group that is no \
             longer wanted is destroyed by XGROUP DESTROY"
        );
    }
}

/// What a look at the dead letters came to.
enum Looked {
    /// It is to be tried again soon.
    Soon,
    /// The number of a run of replays that nobody drives, if there is one.
    Done(Option<u64>),
}

async fn expire(
    by: &TrimsBy,
    source: &Source,
    settings: &DeadLetterSettings,
    link: &mut Link,
) -> Result<Looked, Trouble> {
    let (keys, stream) = (&source.keys, &source.keys.stream);
    let mut step = Step::Turn;
    let (mut dropped, mut range, mut undriven) = (0, None, None);
    loop {
        let clock = by.clock.get();
        let rhythm = Rhythm {
            every: EXPIRE,
            clock: Some(clock.expected(LEEWAY)),
            ..trim_rhythm(by.identity.lease)
        };
        let done = link
            .expire(
                keys,
                match settings.keep {
                    Some(Keep::For(age)) => Some(Keep::For(clock.lasting(age))),
                    keep => keep,
                },
                settings.warn_at,
                step,
                &by.identity.name,
                rhythm,
            )
            .await?;
        let done = match done {
            Expire::Done(done) => done,
            Expire::NotNow => break,
            Expire::ClockIsOff => return Ok(Looked::Soon),
        };
        undriven = undriven.or(done.undriven);
        let Expired {
            letters,
            first,
            last,
            ..
        } = done;
        if let (Some(first), Some(last)) = (first, last) {
            dropped += done.dropped;
            range = Some((range.map_or(first, |(first, _)| first), last));
        }
        if done.warn {
            let warn_at = settings.warn_at;
            tracing::warn!(
                stream,
                letters,
                warn_at,
                "many dead letters: the command `dlq stats` says of what kind; replay or purge them"
            );
        }
        if !done.more || by.signals.is_stopping() {
            break;
        }
        step = Step::On;
        tokio::time::sleep(BREATH).await;
    }
    if let (Some((first, last)), Some(keep)) = (range, settings.keep) {
        let time = |id: crate::event::EntryId| humantime::format_rfc3339_seconds(id.time());
        tracing::warn!(
            stream, dropped, %keep, buried_from = %time(first), buried_until = %time(last),
            "dead letters dropped: dead_letters.keep is over for them"
        );
    }
    Ok(Looked::Done(undriven))
}
