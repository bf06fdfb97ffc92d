//! Plans crons: whenever the next occurrence of one has had its turn, the one after it is put on the schedule. All workers
//! that declare a cron do this, and whoever comes first has done it for the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cron::{Record, Step, decide};
use crate::handler::Cron;
use crate::partition::{self, Partition};
use crate::publisher::Topics;
use crate::reconnect::Complaint;
use crate::stream::{Link, StreamKeys, Trouble};

/// How often it is looked at if nothing happens: often enough to note in time that it is declared.
const LOOK: Duration = Duration::from_secs(20);
/// When it is due, whoever adds its event goes on with it; the others look a moment later.
const LATER: Duration = Duration::from_millis(300);
/// So long after something was refused.
const REFUSED: Duration = Duration::from_secs(1);
/// Most steps of one cron at once: others are to have their turn.
const STEPS: usize = 16;

/// The crons of one stream.
pub(super) struct Crons(Vec<Planned>);

struct Planned {
    cron: Arc<Cron>,
    /// When its next occurrence is due, in ms by the server's clock.
    due_ms: Option<u64>,
    look: Instant,
    complaint: Complaint,
    /// Why another declaration holds, as was told.
    behind: Option<String>,
}

impl Crons {
    /// Those, of these, whose occurrences stand on the schedule of this stream.
    pub fn of(all: &[(String, Arc<Cron>)], stream: &str) -> Self {
        let of_it = all.iter().filter(|(home, _)| home == stream);
        Crons(of_it.map(|(_, cron)| Planned::new(cron)).collect())
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().map(|planned| planned.look).min()
    }

    /// Events were added at this time, in ms: what was due has had its turn.
    pub fn added(&mut self, now_ms: u64) {
        let due = |planned: &&mut Planned| planned.due_ms.is_some_and(|due| due <= now_ms);
        for planned in self.0.iter_mut().filter(due) {
            planned.look = Instant::now();
        }
    }

    /// All of them are to be looked at.
    pub fn look(&mut self) {
        for planned in &mut self.0 {
            planned.look = Instant::now();
        }
    }

    /// Goes on with those whose time it is. Returns how long it is until the first of what it planned is due.
    pub async fn plan(
        &mut self,
        link: &mut Link,
        keys: &StreamKeys,
    ) -> Result<Option<Duration>, Trouble> {
        let mut first = None;
        for planned in &mut self.0 {
            if planned.look > Instant::now() {
                continue;
            }
            match planned.go_on(link, keys).await {
                Ok(due) => {
                    planned.complaint.clear();
                    first = due.into_iter().chain(first).min();
                }
                Err(trouble) if trouble.ends_the_link() => return Err(trouble),
                Err(refused) => {
                    let name = &planned.cron.declared.name;
                    let why = refused.error();
                    planned
                        .complaint
                        .warn(format!("the cron {name} can't be planned: {why}"));
                    planned.look = Instant::now() + REFUSED;
                }
            }
        }
        Ok(first)
    }
}

impl Planned {
    fn new(cron: &Arc<Cron>) -> Self {
        Planned {
            cron: cron.clone(),
            due_ms: None,
            look: Instant::now(),
            complaint: Complaint::default(),
            behind: None,
        }
    }

    async fn go_on(
        &mut self,
        link: &mut Link,
        keys: &StreamKeys,
    ) -> Result<Option<Duration>, Trouble> {
        let declared = &self.cron.declared;
        let name = &declared.name;
        let mut look = link.plan_cron(keys, name, None, None).await?;
        for _ in 0..STEPS {
            let record = look.record.as_deref().and_then(Record::parse);
            let step = decide(declared, record.as_ref(), look.stands, look.now_ms);
            let write = match step {
                Step::Write(write) => write,
                Step::Behind(why) => {
                    if self.behind.as_ref() != Some(&why) {
                        tracing::info!(cron = name, "{why}");
                    }
                    self.behind = Some(why);
                    self.due_ms = None;
                    self.look = Instant::now() + LOOK;
                    return Ok(None);
                }
                Step::Wait(due_ms) => {
                    self.behind = None;
                    return Ok(self.wait(due_ms, look.now_ms));
                }
            };
            let event = match write
                .put
                .as_ref()
                .map(|put| self.cron.event(put))
                .transpose()
            {
                Ok(event) => event,
                Err(error) => {
                    let message = format!("the event of the cron {name} can't be made: {error}");
                    self.complaint.warn(message);
                    self.look = Instant::now() + LOOK;
                    return Ok(None);
                }
            };
            if let Some((why, _, names)) = &write.note {
                tracing::warn!(
                    cron = name,
                    "occurrences were left out ({why}), from {names} on"
                );
            }
            let seen = look.record.as_deref();
            let write = Some((&*write, event.as_ref()));
            look = link.plan_cron(keys, name, seen, write).await?;
            if look.is_written {
                tracing::debug!(cron = name, "planned");
            }
        }
        self.look = Instant::now();
        Ok(Some(Duration::ZERO))
    }

    /// There is nothing to do before that. Returns how long it is until then, if that is to come.
    fn wait(&mut self, due_ms: Option<u64>, now_ms: u64) -> Option<Duration> {
        // Not all workers at once.
        let look = LOOK.mul_f64(0.75 + 0.5 * fastrand::f64());
        self.due_ms = due_ms;
        let due = due_ms.map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
        let soon = due.map(|due| due.max(LATER) + LATER.mul_f64(fastrand::f64()) + LATER);
        self.look = Instant::now() + soon.unwrap_or(look).min(look);
        due
    }
}

/// The stream on whose schedule a cron's occurrences stand: of a topic that is partitioned, the one that its subject, or
/// else its name, belongs to as long as the topic does not grow. It stays that for good.
pub(crate) fn home(cron: &Cron, topics: &Topics) -> String {
    let topic = &cron.stream;
    let Some(placed) = topics.known(topic) else {
        return topic.clone();
    };
    let declared = &cron.declared;
    let address = declared.spec.subject.as_ref().unwrap_or(&declared.name);
    let partitions = placed.layout.generations.first().copied().unwrap_or(1);
    let number = partition::partition_of(address.as_bytes(), partitions);
    Partition::first(topic, number).to_string()
}
