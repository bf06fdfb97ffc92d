//! What a test does with a worker, and asks of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::assert::{Count, Emissions, Letters};
use super::at::At;
use super::driver::Driver;
use super::memory::Not;
use super::state::State;
use super::terms::How;
use crate::codec::{self, Encodable, Format};
use crate::config::check_stream;
use crate::dead_letters::WholeLetter;
use crate::effects::Effect;
use crate::event::{Entry, EntryId, Envelope, Event, demand, envelope_of};
use crate::event_type;
use crate::partition::{Partition, address, partition_of};
use crate::rfc3339;
use crate::stream::Keys;

/// Who replays in a test.
const BY: &str = "test";

/// A worker under test: see the [module](super).
pub struct TestWorker {
    driver: Driver,
    seed: u64,
    /// Of the next event that is published.
    number: u64,
    seen: Seen,
}

/// What there was when the worker last stood still.
#[derive(Default)]
pub(super) struct Seen {
    pub letters: Vec<WholeLetter>,
    pub parked: usize,
    pub entries: BTreeMap<String, Vec<Entry>>,
}

impl TestWorker {
    pub(super) async fn new(driver: Driver, seed: u64) -> Self {
        let seen = Seen::default();
        TestWorker {
            driver,
            seed,
            number: 0,
            seen,
        }
    }

    /// Publishes an event to a stream. It has an id and a time as if a [`Publisher`](crate::Publisher) had published it.
    ///
    /// # Panics
    /// If that can't be published.
    pub async fn publish<E: Event + Encodable>(&mut self, stream: &str, event: &E) -> EntryId {
        let envelope = self.envelope(event);
        self.publish_envelope(stream, envelope).await
    }

    /// The same with an event that is ready made.
    ///
    /// # Panics
    /// If that can't be published.
    pub async fn publish_envelope(&mut self, stream: &str, event: Envelope) -> EntryId {
        let published = self.give(stream, event, How::Now).await;
        published.expect("what is published now has an id")
    }

    /// Publishes an event unless the same one, by its id, was published within `window`. Returns the id that the entry was
    /// given then.
    ///
    /// # Panics
    /// If that can't be published.
    pub async fn publish_once<E: Event + Encodable>(
        &mut self,
        stream: &str,
        id: &str,
        event: &E,
        window: Duration,
    ) -> EntryId {
        let envelope = self.envelope(event).with("id", id);
        let published = self.give(stream, envelope, How::Once(window)).await;
        published.expect("what is published now has an id")
    }

    /// Publishes an event at a time of the test, by [`now`](Self::now). Returns its id, by which it is
    /// [cancelled](Self::cancel_scheduled).
    ///
    /// # Panics
    /// If that can't be published.
    pub async fn publish_at<E: Event + Encodable>(
        &mut self,
        stream: &str,
        event: &E,
        at: SystemTime,
    ) -> String {
        self.schedule(stream, event, How::at(at)).await
    }

    /// Publishes an event so much later.
    ///
    /// # Panics
    /// If that can't be published.
    pub async fn publish_after<E: Event + Encodable>(
        &mut self,
        stream: &str,
        event: &E,
        delay: Duration,
    ) -> String {
        self.schedule(stream, event, How::After(delay)).await
    }

    async fn schedule<E: Event + Encodable>(
        &mut self,
        stream: &str,
        event: &E,
        how: How,
    ) -> String {
        let envelope = self.envelope(event);
        let envelope = self.complete(envelope);
        let id = envelope.id().into_owned();
        self.give(stream, envelope, how).await;
        id
    }

    /// Forgets a scheduled event. False if there is none of this id.
    pub async fn cancel_scheduled(&mut self, stream: &str, id: &str) -> bool {
        self.driver.store.cancel(stream, id).await > 0
    }

    async fn give(&mut self, stream: &str, event: Envelope, how: How) -> Option<EntryId> {
        if let Err(error) = check_stream(stream) {
            panic!("{error}");
        }
        if let Err(why) = event_type::check(event.event_type()) {
            panic!("the event type {:?} {why}", event.event_type());
        }
        let event = self.complete(event);
        let (log, name) = (self.driver.log.clone(), event.event_type().to_owned());
        log.is_own(&event.id());
        let stream = &self.placed(stream, &event)[..];
        self.driver.streams.insert(stream.to_owned());
        let published = self.driver.store.publish(stream, &event, how).await;
        match published {
            Some(id) => {
                let entry = log.name(stream, id);
                log.say(format!("{entry} {name}: published"));
            }
            None => log.say(format!("{stream}: {name} is scheduled")),
        }
        published
    }

    /// The stream of an event: that of its partition, if it is published to a topic.
    fn placed(&self, stream: &str, event: &Envelope) -> String {
        self.driver.placed(stream, event)
    }

    fn envelope<E: Event + Encodable>(&mut self, event: &E) -> Envelope {
        const { demand::<E>() };
        envelope_of(event, Format::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a publisher adds, made of the seed and the test's time.
    fn complete(&mut self, mut event: Envelope) -> Envelope {
        self.number += 1;
        if !event.says("id") {
            let name = format!("{} {}", self.seed, self.number);
            let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
            event = event.with("id", id.hyphenated().to_string());
        }
        if !event.says("time") {
            event = event.with("time", rfc3339::millis(self.now()));
        }
        if !event.says("datacontenttype") {
            event = event.with("datacontenttype", codec::JSON);
        }
        event
    }

    /// Works until there is nothing to do but to wait for a retry, a scheduled event, a breaker or a lease. Handlers that
    /// wait are waited for, and time passes for them.
    pub async fn run_until_idle(&mut self) {
        self.driver.work(None).await;
        self.look().await;
    }

    /// Lets so much time pass. What falls due meanwhile is done at its time: retries, scheduled events, what breakers and
    /// rates held back, what dead workers left.
    pub async fn advance(&mut self, time: Duration) {
        self.driver.advance(time).await;
        self.look().await;
    }

    /// The time of the test.
    pub fn now(&self) -> SystemTime {
        self.driver.clock.now()
    }

    /// The worker dies when it next comes there, and another one begins at once. What it held comes back when its lease is
    /// over, as it does in production.
    pub fn kill(&mut self, at: At) {
        self.driver.dies.push(at);
    }

    /// The next step that settles an entry is done, and its answer gets lost: the worker asks for it once more.
    pub fn lose_answer(&mut self) {
        self.driver.losses += 1;
    }

    /// For so long nothing is read or settled: Redis can't be reached. Handlers that run go on.
    pub fn redis_away(&mut self, time: Duration) {
        let until = self.driver.clock.now_ms() + time.as_millis() as u64;
        self.driver.away_until = Some(until);
        self.driver.log.say(format!(
            "REDIS IS AWAY for {}",
            crate::duration::format(time)
        ));
    }

    /// Pauses a stream.
    pub async fn pause(&mut self, stream: &str) {
        self.set_pause(stream, "stream", true).await;
    }

    /// Goes on with a stream.
    pub async fn resume(&mut self, stream: &str) {
        self.set_pause(stream, "stream", false).await;
    }

    /// Pauses one handler for a stream.
    pub async fn pause_handler<E: Event>(&mut self, stream: &str) {
        let what = format!("handler:{}", E::TYPE);
        self.set_pause(stream, &what, true).await;
    }

    /// Goes on with one handler.
    pub async fn resume_handler<E: Event>(&mut self, stream: &str) {
        let what = format!("handler:{}", E::TYPE);
        self.set_pause(stream, &what, false).await;
    }

    async fn set_pause(&mut self, stream: &str, what: &str, is_paused: bool) {
        let keys = Keys::new(stream, &self.driver.settings.worker.group);
        let log = &self.driver.log;
        match is_paused {
            true => {
                log.say(format!("{stream}: {what} is paused"));
                self.driver.store.pause(&keys, what, None).await;
            }
            false => {
                log.say(format!("{stream}: {what} is resumed"));
                self.driver.store.resume(&keys, what).await;
            }
        }
    }

    /// Gives all dead letters back to their group. Returns how many.
    pub async fn replay(&mut self) -> usize {
        let mut replayed = 0;
        for source in self.driver.process.sources.clone() {
            for letter in self.driver.store.letters(&source.keys).await {
                let done = self.driver.store.replay(&source.keys, letter.id, BY).await;
                replayed += usize::from(done);
            }
        }
        self.driver
            .log
            .say(format!("{replayed} dead letters are replayed"));
        self.look().await;
        replayed
    }

    /// Does an effect by itself: what a handler is to find.
    ///
    /// # Panics
    /// If it can't be done.
    pub async fn given(&mut self, effect: Effect) {
        if let Err(wrong) = effect.check() {
            panic!("{wrong}");
        }
        match self.driver.store.apply(&effect).await {
            Ok(()) => {}
            Err(Not::Refused(_)) => panic!("the effect {effect} was refused by its guard"),
            Err(Not::Failed(why)) => panic!("the effect can't be done: {why}"),
        }
    }

    /// What a key holds that effects are on.
    pub async fn state(&mut self, key: &str) -> State {
        State(self.driver.store.value(key).await)
    }

    /// How many events of this type were handled: their handlers succeeded, and they are acknowledged.
    pub fn handled<E: Event>(&self) -> Count {
        let count = self.driver.log.handled(E::TYPE);
        self.count(format!("{} was handled", E::TYPE), count)
    }

    /// How often the handler of this type ran.
    pub fn attempts<E: Event>(&self) -> Count {
        let count = self.driver.log.runs(E::TYPE);
        self.count(format!("the handler of {} ran", E::TYPE), count)
    }

    /// How many events wait for another attempt.
    pub fn parked(&self) -> Count {
        self.count("an event waits".to_owned(), self.seen.parked)
    }

    /// The dead letters.
    pub fn dead_letters(&self) -> Letters {
        Letters::new(self.seen.letters.clone(), self.timeline())
    }

    /// What handlers have emitted or published of this type, to whatever stream: what left, and not what was about to.
    pub fn emitted<E: Event>(&self) -> Emissions<E> {
        let log = &self.driver.log;
        let mut events = Vec::new();
        for (stream, entries) in &self.seen.entries {
            let entries = entries.iter().cloned().map(Envelope::decode);
            let entries = entries.filter_map(Result::ok);
            let emitted = entries.filter(|event| event.event_type() == E::TYPE);
            let emitted = emitted.filter(|event| !log.published_by_test(&event.id()));
            events.extend(emitted.map(|event| (stream.clone(), event)));
        }
        Emissions::new(events, self.timeline())
    }

    /// All that handlers emitted, by type, stream and data.
    pub(super) fn all_emitted(&self) -> Vec<String> {
        let log = &self.driver.log;
        let mut emitted = Vec::new();
        for (stream, entries) in &self.seen.entries {
            let entries = entries.iter().cloned().map(Envelope::decode);
            let entries = entries.filter_map(Result::ok);
            let entries = entries.filter(|event| !log.published_by_test(&event.id()));
            emitted.extend(entries.map(|event| {
                let (of, id) = (event.event_type(), event.id());
                format!("the event {of} ({id}) emitted to {stream}")
            }));
        }
        emitted
    }

    /// The effects that took place, in their order.
    pub fn effects(&self) -> Vec<Effect> {
        self.driver.log.effects()
    }

    /// What happened, line by line, as a failing assertion prints it.
    pub fn timeline(&self) -> String {
        self.driver.log.timeline()
    }

    fn count(&self, what: String, count: usize) -> Count {
        Count::new(what, count, self.timeline())
    }

    /// Looks at what there is now.
    async fn look(&mut self) {
        let mut seen = Seen::default();
        for source in self.driver.process.all_sources() {
            seen.parked += self.driver.store.parked(&source.keys).await.len();
        }
        for source in self.driver.process.sources.clone() {
            let letters = self.driver.store.letters(&source.keys).await;
            let stream = &source.surroundings.stream;
            let letters = letters.into_iter();
            seen.letters
                .extend(letters.filter_map(|letter| WholeLetter::parse(letter, stream)));
        }
        for stream in self.driver.streams.clone() {
            let entries = self.driver.store.entries(&stream).await;
            seen.entries.insert(stream, entries);
        }
        self.seen = seen;
    }
}

impl Driver {
    /// The stream of an event: that of its partition, if it goes to a topic.
    pub fn placed(&self, stream: &str, event: &Envelope) -> String {
        let mut topics = self.settings.topics();
        let Some((topic, partitions)) = topics.find(|(topic, _)| *topic == stream) else {
            return stream.to_owned();
        };
        let id = event.id();
        let address = address(event.subject().map(str::as_bytes), id.as_bytes());
        Partition::first(topic, partition_of(address, partitions)).to_string()
    }
}

impl fmt::Debug for TestWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorker")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
