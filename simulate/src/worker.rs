//! The workers: what each asks between two decisions, which are the library's.

use std::time::{Duration, Instant};

use streamhand::unstable::pace::due::{self, DueTimes};
use streamhand::unstable::pace::duty::{self, Duty, Standing};
use streamhand::unstable::pace::reclaims::{self, ReclaimTimes};
use streamhand::unstable::pace::{leases, owning, pulses, reads, relays, tidying};
use streamhand::unstable::{OutageTimes, Pause, RefreshTimes, SLOT_MAP_EVERY};

use crate::clock::Clock;
use crate::counts::{Counted, Counts, Request};
use crate::nodes::{Consumer, Partition, Standby};

/// A round trip.
const TRIP: Duration = Duration::from_micros(300);
/// What a connection says first: CLIENT SETINFO twice, INFO, CLIENT ID, CLIENT SETNAME; a reader's one more.
const GREETING: (u64, u64) = (5, 6);
/// After trouble what nothing waits for is not tried for so long: as in `repair.rs`.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);
/// Most nodes that are asked for the slot map while it is not whole.
const ASKED: u64 = 6;
/// Entries of one read, at most.
const LOT: usize = 64;
/// How long a worker waits where the streams are others': as in `rounds.rs`.
const NOBODYS: Duration = Duration::from_secs(1);
/// How often a worker at rest pulses, divided by three: the setting's default.
const PULSE: Duration = Duration::from_secs(10);

/// What there is.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// How many workers.
    pub workers: usize,
    /// Which node each partition is at.
    pub partitions: Vec<usize>,
    /// How many nodes.
    pub nodes: usize,
    /// `worker.lease`.
    pub lease: Duration,
    /// How long a handler takes.
    pub handler: Duration,
    /// Every worker reads every partition, however many there are: as it was before there were duties.
    pub all_read_all: bool,
    /// `order = "subject"`: one worker has a partition, the others stand by.
    pub ordered: bool,
    /// What chance goes by.
    pub seed: u64,
}

impl Fleet {
    /// So many workers and partitions over so many nodes.
    pub fn new(workers: usize, partitions: usize, nodes: usize) -> Self {
        Fleet {
            workers,
            partitions: (0..partitions).map(|at| at % nodes).collect(),
            nodes,
            lease: Duration::from_secs(30),
            handler: Duration::from_millis(2),
            all_read_all: false,
            ordered: false,
            seed: 7,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start(u32),
    /// The fetcher of a shard has something to do, unless its number has changed.
    Fetch(u32, u32),
    Renew(u32, u32),
    Mend(u32, u32),
    Expire(u32, u32),
    Relay(u32, u32),
    Own(u32, u32),
    Pulse(u32, u32),
    Map(u32, u32),
    /// So many handlers of a shard have ended.
    Done(u32, u32, u32),
    Publish,
    /// The others know that it is gone.
    Failed(u32),
    Promoted(u32),
}

/// The parts of a worker that have a connection to each node.
#[derive(Clone, Copy)]
enum Link {
    Fetch = 1,
    Renew = 2,
    Tidy = 4,
    Settle = 8,
    Own = 16,
}

#[derive(Debug)]
struct Worker {
    /// Which of its lives; an event of another one is nothing any more.
    life: u32,
    is_alive: bool,
    map: RefreshTimes,
    /// Which masters it knows.
    epoch: u32,
    /// By node: its connections, and since when it can't be had.
    links: Vec<(u8, Option<OutageTimes>)>,
    /// At how many partitions it is on duty.
    on: usize,
}

#[derive(Debug)]
struct Shard {
    /// Counts what its fetcher begins anew: what was to happen before does not.
    number: u32,
    is_open: bool,
    adopts: bool,
    has_begun: bool,
    times: Option<(DueTimes, ReclaimTimes)>,
    pause: Pause,
    renew_pause: Pause,
    duty: Duty,
    rank: u64,
    /// Since when its renewals are answered.
    healthy: Option<Instant>,
    /// It has not been renewed yet since it began.
    is_new: bool,
    held: u32,
    /// Its place on the partition's list, and that is one more.
    consumer: u32,
}

/// A fleet in virtual time.
#[derive(Debug)]
pub struct Simulation {
    fleet: Fleet,
    clock: Clock<Event>,
    counts: Counts,
    partitions: Vec<Partition>,
    ranks_of: Vec<String>,
    workers: Vec<Worker>,
    /// Worker by worker, a shard for each partition.
    shards: Vec<Shard>,
    /// By node, whether it answers, and whether others know if it does not.
    nodes: Vec<(bool, bool)>,
    epoch: u32,
    /// Events a second, and none.
    publishes: f64,
    delays_us: Vec<u64>,
}

impl Simulation {
    /// Nobody has begun yet.
    pub fn new(fleet: Fleet) -> Self {
        fastrand::seed(fleet.seed);
        let clock = Clock::new();
        let count = fleet.partitions.len();
        let worker = |_| Worker {
            life: 0,
            is_alive: false,
            map: RefreshTimes::default(),
            epoch: 0,
            links: (0..fleet.nodes).map(|_| (0, None)).collect(),
            on: 0,
        };
        let shard = |_| Shard {
            number: 0,
            is_open: false,
            adopts: false,
            has_begun: false,
            times: None,
            pause: Pause::new(),
            renew_pause: Pause::new(),
            duty: Duty::new(true, true),
            rank: 0,
            healthy: None,
            is_new: true,
            held: 0,
            consumer: 0,
        };
        let partition = |node: &usize| Partition {
            node: *node,
            ..Partition::default()
        };
        Simulation {
            counts: Counts::of(fleet.nodes),
            partitions: fleet.partitions.iter().map(partition).collect(),
            ranks_of: (0..count).map(|n| format!("{{orders:{n}}}")).collect(),
            workers: (0..fleet.workers).map(worker).collect(),
            shards: (0..fleet.workers * count).map(shard).collect(),
            nodes: vec![(true, false); fleet.nodes],
            epoch: 0,
            publishes: 0.0,
            delays_us: Vec::new(),
            clock,
            fleet,
        }
    }

    /// All workers begin, at any time within `spread`.
    pub fn start(&mut self, spread: Duration) {
        for worker in 0..self.workers.len() as u32 {
            self.clock
                .after(spread.mul_f64(fastrand::f64()), Event::Start(worker));
        }
    }

    /// All workers are killed, and begin again within `spread`.
    pub fn restart(&mut self, spread: Duration) {
        for worker in 0..self.workers.len() {
            self.kill(worker);
        }
        self.start(spread);
    }

    /// A worker is gone from one moment to the next.
    pub fn kill(&mut self, worker: usize) {
        let it = &mut self.workers[worker];
        (it.is_alive, it.on) = (false, 0);
        it.life += 1;
        it.links.iter_mut().for_each(|link| *link = (0, None));
        for at in self.shards_of(worker) {
            self.closes(at);
            let shard = &mut self.shards[at];
            (shard.held, shard.has_begun) = (0, false);
            let consumer = std::mem::take(&mut shard.consumer);
            if consumer > 0 {
                let partition = &mut self.partitions[at % self.fleet.partitions.len()];
                partition.consumers[consumer as usize - 1].shard = None;
            }
        }
    }

    /// A node dies. The others know after two seconds, and a replica takes its place after three.
    pub fn kill_node(&mut self, node: usize) {
        self.nodes[node] = (false, false);
        let second = Duration::from_secs(1);
        self.clock.after(2 * second, Event::Failed(node as u32));
        self.clock.after(3 * second, Event::Promoted(node as u32));
        for worker in &mut self.workers {
            worker.links[node].0 = 0;
        }
        let count = self.partitions.len();
        for at in 0..self.shards.len() {
            if self.partitions[at % count].node == node && self.shards[at].is_open {
                self.closes(at);
                self.tries_again(at);
            }
        }
    }

    /// So many events a second come from now on, at partitions by chance.
    pub fn publish(&mut self, a_second: f64) {
        let comes = self.publishes == 0.0 && a_second > 0.0;
        self.publishes = a_second;
        if comes {
            self.clock.after(Duration::ZERO, Event::Publish);
        }
    }

    /// Goes on for so long. Returns what was asked meanwhile.
    pub fn run(&mut self, lasts: Duration) -> Counted {
        let until = self.clock.now_us() + lasts.as_micros() as u64;
        while let Some(event) = self.clock.next(until) {
            self.happens(event);
        }
        self.counts.take(self.clock.now_us())
    }

    /// Goes on until `is` so, but no longer than `at_most`. Returns how long that took.
    pub fn until(
        &mut self,
        at_most: Duration,
        is: impl Fn(&Simulation) -> bool,
    ) -> Option<Duration> {
        let began = self.clock.now_us();
        let step = Duration::from_millis(50).as_micros() as u64;
        while self.clock.now_us() - began < at_most.as_micros() as u64 {
            let until = self.clock.now_us() + step;
            while let Some(event) = self.clock.next(until) {
                self.happens(event);
            }
            if is(self) {
                return Some(Duration::from_micros(self.clock.now_us() - began));
            }
        }
        None
    }

    /// Whether somebody reads every partition.
    pub fn all_are_read(&self) -> bool {
        let count = self.partitions.len();
        let mut read = vec![false; count];
        let open = self.shards.iter().enumerate().filter(|(_, it)| it.is_open);
        let reads = open.filter(|(at, _)| self.has(*at));
        reads.for_each(|(at, _)| read[at % count] = true);
        read.into_iter().all(|read| read)
    }

    /// How many workers read a partition: the fewest and the most.
    pub fn readers(&self) -> (usize, usize) {
        let count = self.partitions.len();
        let mut readers = vec![0; count];
        let open = self.shards.iter().enumerate().filter(|(_, it)| it.is_open);
        open.for_each(|(at, _)| readers[at % count] += 1);
        let least = readers.iter().min().copied().unwrap_or(0);
        (least, readers.iter().max().copied().unwrap_or(0))
    }

    /// How many partitions a worker reads: the fewest and the most.
    pub fn read_by_each(&self) -> (usize, usize) {
        let reads = |worker| {
            let shards = self.shards[self.shards_of(worker)].iter();
            shards.filter(|shard| shard.is_open).count()
        };
        let reads: Vec<usize> = (0..self.workers.len()).map(reads).collect();
        let least = reads.iter().min().copied().unwrap_or(0);
        (least, reads.iter().max().copied().unwrap_or(0))
    }

    /// How many connections there are to the node that has most of them.
    pub fn connections(&self) -> usize {
        let mut each = vec![0; self.fleet.nodes];
        for worker in &self.workers {
            for (node, (links, _)) in worker.links.iter().enumerate() {
                each[node] += links.count_ones() as usize;
            }
        }
        let count = self.partitions.len();
        let open = self.shards.iter().enumerate().filter(|(_, it)| it.is_open);
        open.for_each(|(at, _)| each[self.partitions[at % count].node] += 1);
        each.into_iter().max().unwrap_or(0)
    }

    /// How long the event that waited longest did before it was read, of those that came since this was asked last.
    pub fn longest_delay(&mut self) -> Duration {
        let longest = self.delays_us.iter().max().copied().unwrap_or(0);
        let waits = self.partitions.iter().filter_map(|of| of.backlog.front());
        let waits = waits.map(|at| self.clock.now_us() - at).max().unwrap_or(0);
        self.delays_us.clear();
        Duration::from_micros(longest.max(waits))
    }

    fn shards_of(&self, worker: usize) -> std::ops::Range<usize> {
        let count = self.partitions.len();
        worker * count..(worker + 1) * count
    }

    fn name(&self, worker: usize) -> String {
        let (lease, life) = (self.fleet.lease.as_millis(), self.workers[worker].life);
        format!("sh2-{lease}-host-{worker}-{life:08x}")
    }

    fn ask(&mut self, node: usize, request: Request, times: u64) {
        self.counts.count(node, request, times, self.clock.now_us());
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Start(worker) => self.starts(worker as usize),
            Event::Fetch(shard, number) => {
                if self.shards[shard as usize].number == number {
                    self.fetches(shard as usize);
                }
            }
            Event::Renew(shard, life) => self.kept(shard, life, Self::renews),
            Event::Mend(shard, life) => self.kept(shard, life, Self::mends),
            Event::Expire(shard, life) => self.kept(shard, life, Self::expires),
            Event::Relay(shard, life) => self.kept(shard, life, Self::relays),
            Event::Own(shard, life) => self.kept(shard, life, Self::owns),
            Event::Pulse(worker, life) => self.pulses(worker as usize, life),
            Event::Map(worker, life) => {
                if self.lives(worker as usize, life) {
                    self.doubts_the_map(worker as usize);
                    self.clock.after(SLOT_MAP_EVERY, event);
                }
            }
            Event::Done(shard, life, entries) => self.done(shard as usize, life, entries),
            Event::Publish => self.published(),
            Event::Failed(node) => self.nodes[node as usize].1 = true,
            Event::Promoted(node) => {
                self.nodes[node as usize] = (true, false);
                self.epoch += 1;
            }
        }
    }

    fn lives(&self, worker: usize, life: u32) -> bool {
        self.workers[worker].is_alive && self.workers[worker].life == life
    }

    fn kept(&mut self, shard: u32, life: u32, part: fn(&mut Self, usize)) {
        if self.lives(shard as usize / self.partitions.len(), life) {
            part(self, shard as usize);
        }
    }

    fn starts(&mut self, worker: usize) {
        let now = self.clock.now();
        let (me, count) = (self.name(worker), self.partitions.len());
        let it = &mut self.workers[worker];
        (it.is_alive, it.epoch) = (true, self.epoch);
        it.map.asked(now);
        let life = it.life;
        // What it is that it connects to, the slot map, and how many partitions the topic has.
        let any = fastrand::usize(..self.fleet.nodes);
        self.ask(any, Request::Greet, GREETING.0);
        self.ask(any, Request::SlotMap, 2);
        self.ask(any, Request::Greet, GREETING.0 + 1);
        self.clock
            .after(SLOT_MAP_EVERY, Event::Map(worker as u32, life));
        self.clock
            .after(pulses::first_in(), Event::Pulse(worker as u32, life));
        let names: Vec<&str> = self.ranks_of.iter().map(String::as_str).collect();
        let own = duty::own(&names, &me);
        let begins_on = self.fleet.all_read_all || duty::begins_with_all(count);
        let ranks: Vec<u64> = names.iter().map(|name| duty::rank(name, &me)).collect();
        let mut visited = 0;
        let mut order: Vec<usize> = (0..count).collect();
        fastrand::shuffle(&mut order);
        for place in order {
            let at = worker * count + place;
            let shard = &mut self.shards[at];
            shard.rank = ranks[place];
            shard.duty = Duty::new(own[place], begins_on);
            (shard.times, shard.healthy, shard.is_new) = (None, None, true);
            (shard.pause, shard.renew_pause) = (Pause::new(), Pause::new());
            let mut wait = TRIP;
            if shard.duty.is_on() {
                self.workers[worker].on += 1;
            } else {
                wait = duty::first_visit_in(visited);
                visited += 1;
            }
            self.fetch_at(at, now + wait);
        }
    }

    fn fetch_at(&mut self, at: usize, when: Instant) {
        let shard = &mut self.shards[at];
        shard.number += 1;
        let event = Event::Fetch(at as u32, shard.number);
        self.clock.at(when, event);
    }

    fn closes(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        shard.number += 1;
        (shard.is_open, shard.healthy) = (false, None);
    }

    fn tries_again(&mut self, at: usize) {
        let wait = self.shards[at].pause.next();
        self.fetch_at(at, self.clock.now() + wait);
    }

    /// Whether a part has its connection to the node of a shard, which it makes if it can.
    fn has_link(&mut self, at: usize, link: Link) -> bool {
        let (count, now) = (self.partitions.len(), self.clock.now());
        let (worker, node) = (at / count, self.partitions[at % count].node);
        let is_there = self.nodes[node].0 && self.workers[worker].epoch == self.epoch;
        let (links, outage) = &mut self.workers[worker].links[node];
        if is_there && *links & link as u8 > 0 {
            return true;
        }
        let may_try = match outage {
            Some(outage) => outage.lets_try(now),
            None => true,
        };
        if !may_try {
            self.doubts_the_map(worker);
            return false;
        }
        if !is_there {
            match outage {
                Some(outage) => outage.failed(now),
                None => *outage = Some(OutageTimes::new(now)),
            }
            self.doubts_the_map(worker);
            return false;
        }
        *outage = None;
        *links |= link as u8;
        self.ask(node, Request::Greet, GREETING.0);
        true
    }

    /// Asks for the slot map, unless that was done a moment ago.
    fn doubts_the_map(&mut self, worker: usize) {
        let now = self.clock.now();
        if !self.workers[worker].map.may_ask(now) {
            return;
        }
        self.workers[worker].map.asked(now);
        let is_whole = self.nodes.iter().all(|(_, has_failed)| !has_failed);
        for _ in 0..if is_whole { 1 } else { ASKED } {
            let any = fastrand::usize(..self.nodes.len());
            if self.nodes[any].0 {
                self.ask(any, Request::SlotMap, 2);
            }
        }
        self.workers[worker].epoch = self.epoch;
    }

    /// What the fetcher does next: it begins, visits, or goes on with its rounds.
    fn fetches(&mut self, at: usize) {
        let shard = &self.shards[at];
        if !shard.duty.is_on() {
            self.visits(at);
        } else if shard.is_open {
            self.round(at);
        } else {
            self.connects(at);
        }
    }

    fn connects(&mut self, at: usize) {
        if !self.has_link(at, Link::Fetch) {
            return self.tries_again(at);
        }
        let (count, now) = (self.partitions.len(), self.clock.now());
        let (worker, node) = (at / count, self.partitions[at % count].node);
        self.ask(node, Request::Greet, GREETING.1);
        let life = self.workers[worker].life;
        let shard = &mut self.shards[at];
        shard.times = Some((DueTimes::new(now), ReclaimTimes::new(now)));
        (shard.is_open, shard.adopts) = (true, true);
        shard.pause.reset();
        let is_first = !std::mem::replace(&mut shard.has_begun, true);
        // A breaker that is open there already is asked for once.
        self.ask(node, Request::Join, 1 + u64::from(is_first));
        let place = at as u32;
        // Another server than before: what is held is renewed at once.
        self.clock.after(TRIP, Event::Renew(place, life));
        if is_first {
            let lease = self.fleet.lease;
            let mend = tidying::mend_in(lease);
            self.clock.after(mend, Event::Mend(place, life));
            let expire = tidying::first_expire_in(None, lease);
            self.clock.after(expire, Event::Expire(place, life));
            self.clock.after(TRIP, Event::Relay(place, life));
            if self.fleet.ordered {
                self.clock.after(TRIP, Event::Own(place, life));
            }
            if self.has_link(at, Link::Tidy) {
                // Whether the server deletes keys when it is full.
                self.ask(node, Request::Greet, 1);
            }
        }
        self.round(at);
    }

    /// One turn of everything that brings entries: see `rounds.rs`.
    fn round(&mut self, at: usize) {
        let (count, now) = (self.partitions.len(), self.clock.now());
        let (place, lease) = (at % count, self.fleet.lease);
        let node = self.partitions[place].node;
        let is_idle = self.shards[at].held == 0 && !(self.fleet.ordered && self.has(at));
        if !self.fleet.all_read_all && self.shards[at].duty.may_leave() && is_idle {
            return self.leaves(at);
        }
        if !self.has(at) {
            // It asks for nothing: see `rounds.rs`.
            return self.fetch_at(at, now + NOBODYS);
        }
        if std::mem::take(&mut self.shards[at].adopts) {
            self.ask(node, Request::Adopt, 2);
        }
        let shard = &mut self.shards[at];
        let Some((mut due, mut reclaims)) = shard.times.take() else {
            return;
        };
        let healthy = shard.healthy;
        let is_healthy =
            || healthy.is_some_and(|since| now.saturating_duration_since(since) >= lease);
        if let reclaims::Turn::Look { .. } = reclaims.begin(now, true, is_healthy, lease) {
            let (next, others) = self.looks_at_consumers(at);
            reclaims.end(now, next, false, false, others);
        }
        if due.begin(now, None, false) == due::Turn::Look {
            self.ask(node, Request::Wake, 1);
            due.end(now, false, due::POLL);
        }
        let next_look = due.next().min(reclaims.next());
        let shard = &mut self.shards[at];
        shard.times = Some((due, reclaims));
        self.ask(node, Request::Read, 1);
        let now_us = self.clock.now_us();
        let waits = self.partitions[place].backlog.len().min(LOT);
        for _ in 0..waits {
            let came = self.partitions[place].backlog.pop_front();
            self.delays_us.extend(came.map(|at| now_us - at));
        }
        self.seen(at, waits as u32);
        if waits > 0 {
            self.checks(at);
            self.handles(at, waits as u32);
            return self.fetch_at(at, now + TRIP);
        }
        let wait = reads::patience(now, next_look, lease);
        self.fetch_at(at, now + wait);
        let number = self.shards[at].number;
        let Simulation {
            partitions, shards, ..
        } = self;
        let waiting = &mut partitions[place].waiting;
        while let Some((shard, number)) = waiting.front()
            && shards[*shard as usize].number != *number
        {
            waiting.pop_front();
        }
        waiting.push_back((at as u32, number));
    }

    /// It has asked for entries, and so many came.
    fn seen(&mut self, at: usize, came: u32) {
        let place = at % self.partitions.len();
        let now_us = self.clock.now_us();
        let (shard, consumers) = (&mut self.shards[at], &mut self.partitions[place].consumers);
        if shard.consumer == 0 {
            consumers.push(Consumer {
                shard: Some(at as u32),
                rank: shard.rank,
                seen_us: now_us,
                pending: 0,
            });
            shard.consumer = consumers.len() as u32;
        }
        let consumer = &mut consumers[shard.consumer as usize - 1];
        consumer.seen_us = now_us;
        consumer.pending += came;
    }

    /// Where it stands among those that read its partition.
    fn standing(&self, at: usize) -> Standing {
        if self.fleet.ordered {
            return self.stands_by(at);
        }
        let (now_us, mine) = (self.clock.now_us(), self.shards[at].rank);
        let consumers = &self.partitions[at % self.partitions.len()].consumers;
        let others = consumers.iter();
        let others = others.filter(|other| other.shard != Some(at as u32));
        let seen = |other: &Consumer| Duration::from_micros(now_us - other.seen_us);
        let fresh = others.filter(|other| seen(other) < duty::FRESH);
        let mut standing = Standing {
            readers: 0,
            before: 0,
        };
        for other in fresh {
            standing.readers += 1;
            standing.before += usize::from(other.rank > mine);
        }
        standing
    }

    /// Whether it is to read its partition: anybody is, or its owner.
    fn has(&self, at: usize) -> bool {
        let owner = self.partitions[at % self.partitions.len()].owner;
        !self.fleet.ordered || owner.is_some_and(|(owner, _)| owner as usize == at)
    }

    /// Where it stands among those that are there to have its partition.
    fn stands_by(&self, at: usize) -> Standing {
        let (now_us, mine) = (self.clock.now_us(), self.shards[at].rank);
        let crew = &self.partitions[at % self.partitions.len()].crew;
        let others = crew
            .iter()
            .filter(|other| other.until_us > now_us && other.rank != mine);
        let ranks: Vec<u64> = others.map(|other| other.rank).collect();
        Standing {
            readers: ranks.len(),
            before: ranks.iter().filter(|rank| **rank > mine).count(),
        }
    }

    /// Looks whose its partition is: see `ownership.rs`.
    fn owns(&mut self, at: usize) {
        let (count, lease) = (self.partitions.len(), self.fleet.lease);
        let (life, place) = (self.workers[at / count].life, at % count);
        if !self.shards[at].duty.is_on() {
            return;
        }
        if !self.has_link(at, Link::Own) {
            return self
                .clock
                .after(Duration::from_millis(500), Event::Own(at as u32, life));
        }
        let (node, now_us) = (self.partitions[place].node, self.clock.now_us());
        self.ask(node, Request::Own, 1);
        let (rank, until_us) = (self.shards[at].rank, now_us + lease.as_micros() as u64);
        let partition = &mut self.partitions[place];
        partition
            .crew
            .retain(|other| other.until_us > now_us && other.rank != rank);
        partition.crew.push(Standby { rank, until_us });
        let crew = partition.crew.len();
        let standing = self.stands_by(at);
        if !self.fleet.all_read_all {
            self.shards[at].duty.sees(standing);
        }
        let (is_first, owner) = (standing.before == 0, self.partitions[place].owner);
        let is_mine = owner.is_some_and(|(owner, _)| owner as usize == at);
        let is_free = owner.is_none_or(|(_, until)| until <= now_us);
        if is_mine && !is_first {
            self.partitions[place].owner = None;
        } else if is_mine || (is_first && is_free) {
            self.partitions[place].owner = Some((at as u32, until_us));
            if !is_mine {
                // What is pending, of replayed entries as well, and which letters hold.
                self.ask(node, Request::Own, 4);
                self.shards[at].adopts = true;
                if self.shards[at].is_open {
                    self.fetch_at(at, self.clock.now() + TRIP);
                }
            }
        }
        let wait = owning::look_in(1, crew, standing.before, lease);
        self.clock.after(wait, Event::Own(at as u32, life));
    }

    /// Behind what was read of a partition whose events have an order.
    fn checks(&mut self, at: usize) {
        if self.fleet.ordered {
            let node = self.partitions[at % self.partitions.len()].node;
            self.ask(node, Request::Check, 1);
        }
    }

    /// Looks who else there is, and takes over what who is gone has left. Returns when the next lease runs out, and how
    /// many others read.
    fn looks_at_consumers(&mut self, at: usize) -> (Duration, usize) {
        let place = at % self.partitions.len();
        let (node, lease) = (self.partitions[place].node, self.fleet.lease);
        let lease_ms = lease.as_millis() as u64;
        self.ask(node, Request::Consumers, 1);
        let mut others = 0;
        if !self.fleet.all_read_all && !self.fleet.ordered {
            let standing = self.standing(at);
            self.shards[at].duty.sees(standing);
            others = standing.readers;
        }
        let (mut next, now_us) = (reclaims::LONGEST.min(lease), self.clock.now_us());
        let mut taken = 0;
        // Who lives has been seen a moment ago: there the longest wait decides.
        let consumers = &mut self.partitions[place].consumers;
        let mut asked = 0;
        for gone in consumers.iter_mut().filter(|other| other.shard.is_none()) {
            let left = lease_ms.saturating_sub((now_us - gone.seen_us) / 1000);
            match reclaims::runs_out_in(left) {
                Some(wait) => next = next.min(wait),
                None if gone.pending > 0 => {
                    asked += 1;
                    taken += std::mem::take(&mut gone.pending);
                }
                None => {}
            }
        }
        self.ask(node, Request::Reclaim, asked);
        if taken > 0 {
            self.seen(at, taken);
            self.handles(at, taken);
        }
        (next, others)
    }

    fn handles(&mut self, at: usize, entries: u32) {
        self.shards[at].held += entries;
        let life = self.workers[at / self.partitions.len()].life;
        let done = Event::Done(at as u32, life, entries);
        self.clock.after(TRIP + self.fleet.handler, done);
    }

    fn done(&mut self, at: usize, life: u32, entries: u32) {
        if !self.lives(at / self.partitions.len(), life) {
            return;
        }
        if !self.has_link(at, Link::Settle) {
            // What is done is acknowledged once that can be.
            let again = Event::Done(at as u32, life, entries);
            return self.clock.after(Duration::from_millis(200), again);
        }
        let place = at % self.partitions.len();
        self.ask(self.partitions[place].node, Request::Ack, 1);
        let shard = &mut self.shards[at];
        shard.held = shard.held.saturating_sub(entries);
        if shard.consumer > 0 {
            let consumer = &mut self.partitions[place].consumers[shard.consumer as usize - 1];
            consumer.pending = consumer.pending.saturating_sub(entries);
        }
    }

    fn published(&mut self) {
        if self.publishes == 0.0 {
            return;
        }
        let wait = Duration::from_secs_f64(-fastrand::f64().max(1e-9).ln() / self.publishes);
        self.clock.after(wait, Event::Publish);
        let place = fastrand::usize(..self.partitions.len());
        let (node, now) = (self.partitions[place].node, self.clock.now());
        if !self.nodes[node].0 {
            // It waits at its publisher.
            self.partitions[place]
                .backlog
                .push_back(self.clock.now_us());
            return;
        }
        self.ask(node, Request::Publish, 1);
        while let Some((at, number)) = self.partitions[place].waiting.pop_front() {
            if self.shards[at as usize].number == number {
                self.delays_us.push(0);
                self.seen(at as usize, 1);
                self.checks(at as usize);
                self.handles(at as usize, 1);
                return self.fetch_at(at as usize, now + TRIP);
            }
        }
        self.partitions[place]
            .backlog
            .push_back(self.clock.now_us());
    }

    /// It reads the partition no more: it takes itself off the list, and visits now and then.
    fn leaves(&mut self, at: usize) {
        let (count, now) = (self.partitions.len(), self.clock.now());
        let (worker, place) = (at / count, at % count);
        let node = self.partitions[place].node;
        self.ask(node, Request::Forget, 1);
        if self.fleet.ordered {
            self.ask(node, Request::Own, 1);
            let rank = self.shards[at].rank;
            self.partitions[place].crew.retain(|it| it.rank != rank);
        }
        let readers = self.standing(at).readers;
        let consumer = std::mem::take(&mut self.shards[at].consumer);
        if consumer > 0 {
            let consumers = &mut self.partitions[place].consumers;
            consumers.swap_remove(consumer as usize - 1);
            let moved = consumers.get(consumer as usize - 1);
            if let Some(moved) = moved.and_then(|moved| moved.shard) {
                self.shards[moved as usize].consumer = consumer;
            }
        }
        self.closes(at);
        self.shards[at].duty.leaves();
        self.workers[worker].on -= 1;
        let on = self.workers[worker].on;
        self.fetch_at(at, now + duty::visit_in(readers, on, count - on));
    }

    /// It reads the partition not, and looks whether it should.
    fn visits(&mut self, at: usize) {
        let (count, now) = (self.partitions.len(), self.clock.now());
        if !self.has_link(at, Link::Fetch) {
            return self.tries_again(at);
        }
        let look = match self.fleet.ordered {
            true => Request::Own,
            false => Request::Consumers,
        };
        self.ask(self.partitions[at % count].node, look, 1);
        let standing = self.standing(at);
        self.shards[at].duty.sees(standing);
        let worker = &mut self.workers[at / count];
        if self.shards[at].duty.is_on() {
            worker.on += 1;
            self.connects(at);
        } else {
            let on = worker.on;
            let wait = duty::visit_in(standing.readers, on, count - on);
            self.fetch_at(at, now + wait);
        }
    }

    fn renews(&mut self, at: usize) {
        let life = self.workers[at / self.partitions.len()].life;
        if !self.shards[at].duty.is_on() {
            self.shards[at].is_new = true;
            return;
        }
        let (lease, now) = (self.fleet.lease, self.clock.now());
        let wait = if self.has_link(at, Link::Renew) {
            let node = self.partitions[at % self.partitions.len()].node;
            let is_new = std::mem::take(&mut self.shards[at].is_new);
            self.ask(node, Request::Renew, 1 + u64::from(is_new));
            let shard = &mut self.shards[at];
            shard.healthy.get_or_insert(now);
            shard.renew_pause.reset();
            leases::every(lease)
        } else {
            let shard = &mut self.shards[at];
            shard.healthy = None;
            shard.renew_pause.next().min(leases::every(lease))
        };
        self.clock.after(wait, Event::Renew(at as u32, life));
    }

    fn mends(&mut self, at: usize) {
        let lease = self.fleet.lease;
        self.tidies(at, Request::Mend, 2, tidying::mend_in(lease), Event::Mend);
    }

    fn expires(&mut self, at: usize) {
        let wait = tidying::expire_in();
        self.tidies(at, Request::Expire, 1, wait, Event::Expire);
    }

    fn relays(&mut self, at: usize) {
        self.tidies(at, Request::Outbox, 1, relays::look_in(), Event::Relay);
    }

    /// Does what nothing waits for, and again after so long.
    fn tidies(
        &mut self,
        at: usize,
        request: Request,
        times: u64,
        wait: Duration,
        event: fn(u32, u32) -> Event,
    ) {
        let life = self.workers[at / self.partitions.len()].life;
        if !self.shards[at].duty.is_on() {
            self.shards[at].has_begun = false;
            return;
        }
        let wait = match self.has_link(at, Link::Tidy) {
            true => {
                let node = self.partitions[at % self.partitions.len()].node;
                self.ask(node, request, times);
                wait
            }
            false => wait.min(AFTER_TROUBLE),
        };
        self.clock.after(wait, event(at as u32, life));
    }

    fn pulses(&mut self, worker: usize, life: u32) {
        if !self.lives(worker, life) {
            return;
        }
        // All pulses of a group are at one node.
        self.ask(0, Request::Pulse, 1);
        let rest = PULSE * pulses::AT_REST;
        self.clock.after(rest, Event::Pulse(worker as u32, life));
    }
}
