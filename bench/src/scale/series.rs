//! The series and their cases: what each makes larger, and what stays the same.

use std::time::Duration;

use super::piles::Pile;
use super::{Kind, Ran};
use crate::Sizes;
use crate::events::fill;
use crate::figures::Percentiles;
use crate::job::Job;
use crate::job::Way;
use crate::pacer::Timetable;
use crate::rig::Rig;
use crate::runs::{Figures, backlog, paced};
use streamhand::cli::CommandError;

/// Events of a run with a backlog.
const EVENTS: u64 = 500_000;
/// The same where what is made larger has to be started, or is looked at by the clock.
const MANY_EVENTS: u64 = 1_000_000;
/// Bytes of all events of a run with large ones.
const BYTES: u64 = 200_000_000;
/// Events of a run with handlers that wait, and how many of them end in a second.
const WAITING: u64 = 4_000;
const ENDING: u64 = 500;
pub(super) const PER_SECOND: u64 = 10_000;
const SECONDS: f64 = 5.0;

/// Cases that differ in one thing.
pub(super) struct Series {
    pub name: &'static str,
    pub about: String,
    pub same_work: bool,
    pub cases: Vec<Case>,
    /// How long it takes before the first run.
    pub setting_up: Duration,
}

/// One size of it.
#[derive(Clone)]
pub(super) struct Case {
    pub name: String,
    pub value: f64,
    /// The case it is to be compared with: the bare loop's in the same circumstances.
    pub bare: Option<usize>,
    way: Way,
    crew: usize,
    pub streams: usize,
    concurrency: Option<usize>,
    wait: Option<Duration>,
    lease: Option<Duration>,
    bytes: Option<usize>,
    load: Load,
    pile: Pile,
}

#[derive(Clone, Copy)]
enum Load {
    Backlog(u64),
    Paced { seconds: Duration },
}

impl Series {
    pub fn of(kind: Kind, sizes: &Sizes) -> Series {
        let events = sizes.events(EVENTS);
        let seconds = sizes.seconds(SECONDS);
        let backlog = Case::new(Load::Backlog(events));
        let many = sizes.events(MANY_EVENTS);
        let long_backlog = Case::new(Load::Backlog(many));
        let trickle = Case::new(Load::Paced { seconds });
        let series = |name, about: String, cases| Series {
            name,
            about,
            same_work: true,
            cases,
            setting_up: Duration::ZERO,
        };
        let crews = |case: &Case| {
            [1, 2, 4, 8, 16].map(|crew| Case {
                crew,
                ..case.sized(crew as u64)
            })
        };
        let streams = |case: &Case| {
            [1, 10, 100].map(|streams| Case {
                streams,
                ..case.sized(streams as u64)
            })
        };
        match kind {
            Kind::Workers => {
                let about = format!("processes on one group, a backlog of {many}");
                series("workers", about, crews(&long_backlog).into())
            }
            Kind::Fleet => {
                let about = format!("processes on one group, {PER_SECOND} events a second");
                series("fleet", about, crews(&trickle).into())
            }
            Kind::Streams => {
                let about = format!("streams in one worker, a backlog of {many} over all of them");
                series("streams", about, streams(&long_backlog).into())
            }
            Kind::Trickle => {
                let about =
                    format!("streams in one worker, {PER_SECOND} events a second over all of them");
                series("trickle", about, streams(&trickle).into())
            }
            Kind::Concurrency => {
                let ending = if sizes.small { 10 * ENDING } else { ENDING };
                let about = format!(
                    "handlers at once, each waiting so long that {ending} a second are done"
                );
                let case = Case::new(Load::Backlog(sizes.events_of(WAITING)));
                let cases = [1, 10, 100, 1_000].map(|concurrency| Case {
                    concurrency: Some(concurrency),
                    wait: Some(Duration::from_millis(concurrency as u64 * 1_000 / ending)),
                    ..case.sized(concurrency as u64)
                });
                series("concurrency", about, cases.into())
            }
            Kind::Parked => {
                let pile = sizes.pile(1_000_000);
                let about = format!("parked entries in the group, a backlog of {events}");
                let cases = [Pile::None, Pile::parked(pile)].map(|pile| backlog.beside(pile));
                Series {
                    setting_up: Duration::from_secs(pile / 25_000),
                    ..series("parked", about, cases.into())
                }
            }
            Kind::Dead => {
                let pile = sizes.pile(100_000);
                let about = format!(
                    "entries pending at a dead worker, a backlog of {events}; where its lease is over they are \
                     taken over as well"
                );
                let mut cases = vec![
                    backlog.beside(Pile::None),
                    backlog.beside(Pile::dead(pile)),
                    backlog.beside(Pile::dead_and_over(pile)),
                ];
                for case in &mut cases {
                    // Nothing is taken over before the worker's own lease was renewed once.
                    case.lease = Some(Duration::from_secs(1));
                }
                series("dead", about, cases)
            }
            Kind::Payload => Series {
                same_work: false,
                ..series(
                    "payload",
                    "bytes of an event's data".to_owned(),
                    payloads(sizes),
                )
            },
            Kind::Backlog => {
                let cases = [10_000, 100_000, 1_000_000].map(|events| {
                    let events = sizes.events_of(events);
                    Case::new(Load::Backlog(events)).sized(events)
                });
                Series {
                    // A short run does not come into its stride.
                    same_work: false,
                    ..series(
                        "backlog",
                        "entries that wait when a worker starts".to_owned(),
                        cases.into(),
                    )
                }
            }
            Kind::Idle => unreachable!("it is no series"),
        }
    }
}

/// Every size twice: by the bare loop, and by the runtime.
fn payloads(sizes: &Sizes) -> Vec<Case> {
    let mut cases = Vec::new();
    let of_way = |way: Way, bytes: usize, name: &str| {
        let events = sizes.events_of((BYTES / bytes as u64).min(200_000));
        Case {
            way,
            name: name.to_owned(),
            bytes: Some(bytes),
            value: bytes as f64,
            ..Case::new(Load::Backlog(events.max(100)))
        }
    };
    for (bytes, name) in [(100, "100 B"), (1_000, "1 KB"), (100_000, "100 KB")] {
        cases.push(of_way(Way::Streamhand, bytes, name));
    }
    for (bytes, name) in [
        (100, "100 B, bare"),
        (1_000, "1 KB, bare"),
        (100_000, "100 KB, bare"),
    ] {
        let at = cases.len();
        cases[at - 3].bare = Some(at);
        cases.push(of_way(Way::Bare, bytes, name));
    }
    cases
}

impl Case {
    fn new(load: Load) -> Case {
        Case {
            name: String::new(),
            value: 0.0,
            bare: None,
            way: Way::Streamhand,
            crew: 1,
            streams: 1,
            concurrency: None,
            wait: None,
            lease: None,
            bytes: None,
            load,
            pile: Pile::None,
        }
    }

    /// The same of this size.
    fn sized(&self, size: u64) -> Case {
        Case {
            name: size.to_string(),
            value: size as f64,
            ..self.clone()
        }
    }

    fn beside(&self, pile: Pile) -> Case {
        Case {
            name: pile.name(),
            value: pile.size() as f64,
            pile,
            ..self.clone()
        }
    }

    /// About how long one run takes.
    pub fn takes(&self) -> Duration {
        match self.load {
            Load::Paced { seconds } => seconds + Duration::from_secs(2),
            Load::Backlog(events) if self.wait.is_some() => {
                Duration::from_secs(2 + events * 5 / 4 / ENDING)
            }
            Load::Backlog(events) => {
                let bytes = self.bytes.map_or(0, |bytes| bytes as u64 * events);
                Duration::from_millis(500 + events / 150 + bytes / 200_000)
            }
        }
    }

    /// How long events are published, where they come by a timetable.
    pub fn paced(&self) -> Option<Duration> {
        match self.load {
            Load::Paced { seconds } => Some(seconds),
            Load::Backlog(_) => None,
        }
    }

    /// One run, on streams of its own or on that of its pile.
    ///
    /// `publisher_us` is what a publisher by itself costs Redis, by the message.
    pub async fn run(
        &mut self,
        rig: &mut Rig,
        sizes: &Sizes,
        publisher_us: f64,
    ) -> Result<Ran, CommandError> {
        let streams = match self.pile.stream(rig).await? {
            Some(stream) => vec![stream],
            None => rig.streams(self.streams),
        };
        let mut job = Job::new(self.way, &streams);
        (job.concurrency, job.wait, job.lease) = (self.concurrency, self.wait, self.lease);
        let ran = match self.load {
            Load::Backlog(events) => {
                fill(rig, &streams, events, self.bytes).await?;
                let (rest, taken_over) = self.pile.counts();
                let figures = backlog(rig, &job, self.crew, events + taken_over, rest).await?;
                Ran {
                    figures,
                    latency: None,
                }
            }
            Load::Paced { seconds } => {
                job.due = true;
                let timetable = Timetable {
                    streams: streams.clone(),
                    per_second: PER_SECOND,
                    warm_up: sizes.warm_up(),
                    measured: seconds,
                    places: None,
                };
                let run = paced(rig, Some(&job), self.crew, &timetable).await?;
                Ran {
                    figures: Figures::of_paced(&run, publisher_us),
                    latency: Some(Percentiles::of(&run.latencies)),
                }
            }
        };
        if !self.pile.stays() {
            rig.drop_streams(&streams).await?;
        }
        Ok(ran)
    }

    /// After its last run.
    pub async fn tidy(&mut self, rig: &mut Rig) -> Result<(), CommandError> {
        self.pile.remove(rig).await
    }
}
