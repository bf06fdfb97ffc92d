//! Circuit breakers, as the group knows of them. What changes here is told at once: for `status`, and for whoever starts
//! later, who begins with what is open. Where one is the whole group's, what others tell is looked for every second, and
//! one worker asks for the right to send the probes. Nothing waits for any of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::{Breakers, Circuit, State};
use crate::reconnect::sleep_until;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{BreakerNote, Probing, Trouble};
use crate::worker::shard::links::{KeptLink, Links};
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// How often it is looked for what others tell, and asked for what another has.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long others wait for a worker that may send the probes and does not.
const RIGHT: Duration = Duration::from_secs(5);

/// What has been told and heard.
pub(crate) struct BreakerReport {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    breakers: Arc<Breakers>,
    /// It has the stream by which workers agree.
    is_home: bool,
    link: KeptLink,
    notes: BTreeMap<String, BreakerNote>,
    /// The epoch of each that was told last.
    epochs: HashMap<String, u64>,
    /// How often each had opened and been closed when that was told last.
    told: HashMap<String, (u64, u64)>,
    /// When each may be asked for.
    ask_at: HashMap<String, Instant>,
    look_at: Instant,
}

impl BreakerReport {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        links: Arc<Links>,
        breakers: Arc<Breakers>,
        is_home: bool,
    ) -> Self {
        BreakerReport {
            is_home,
            identity,
            signals,
            sources,
            breakers,
            link: KeptLink::new(links, "tell", ANSWER),
            notes: BTreeMap::new(),
            epochs: HashMap::new(),
            told: HashMap::new(),
            ask_at: HashMap::new(),
            look_at: Instant::now(),
        }
    }

    /// Tells and hears of breakers until it is dropped. What can't be told is told later.
    pub async fn run(mut self) {
        self.signals.joined().await;
        let (mut pause, mut complaint) = (Pause::new(), Complaint::default());
        let news = self.breakers.news().clone();
        loop {
            let changes = news.next();
            match self.turn().await {
                Ok(has_changed) => {
                    if has_changed {
                        // What may be read depends on it.
                        self.signals.replan();
                    }
                    pause.reset();
                    let next = self.next_turn();
                    tokio::select! {
                        () = changes => {}
                        () = sleep_until(next), if next.is_some() => {}
                    }
                }
                Err(trouble) => {
                    if let Trouble::Refused(refused) = &trouble {
                        complaint.warn(format!(
                            "{refused}; circuit breakers are each worker's own meanwhile"
                        ));
                        self.alone();
                    }
                    tracing::debug!("{}", trouble.error());
                    self.link.broke();
                    tokio::time::sleep(pause.next()).await;
                }
            }
        }
    }

    /// Tells what has changed, asks for what is wanted, and looks at what others tell where it is time to.
    /// Answers whether something has changed here.
    async fn turn(&mut self) -> Result<bool, Trouble> {
        let (changed, epochs) = self.changed();
        self.tell(&changed).await?;
        self.epochs.extend(epochs);
        let of_group = self.of_group();
        let mut has_changed = !changed.is_empty();
        for circuit in &of_group {
            has_changed |= self.ask(circuit).await?;
        }
        if !of_group.is_empty() && self.look_at <= Instant::now() {
            self.look(&of_group).await?;
            self.look_at = Instant::now() + LOOK;
        }
        Ok(has_changed)
    }

    /// Those that have changed since that was told last, and their epochs before they are looked at: what changes meanwhile
    /// is told again.
    fn changed(&self) -> (Vec<Arc<Circuit>>, Vec<(String, u64)>) {
        let all = self.breakers.all().into_iter();
        let epochs = all.map(|circuit| {
            let epoch = circuit.epoch();
            (circuit, epoch)
        });
        let is_new = |(circuit, epoch): &(Arc<Circuit>, u64)| {
            let known = self.epochs.get(&circuit.key).copied();
            known.unwrap_or_default() != *epoch
        };
        let changed = epochs.filter(is_new);
        changed
            .map(|(circuit, epoch)| (circuit.clone(), (circuit.key.clone(), epoch)))
            .unzip()
    }

    /// When there is something to do though nothing changes here.
    fn next_turn(&self) -> Option<Instant> {
        (!self.of_group().is_empty()).then_some(self.look_at)
    }

    /// Those that are the whole group's, if it is here that workers agree on them.
    fn of_group(&self) -> Vec<Arc<Circuit>> {
        if !self.is_home {
            return Vec::new();
        }
        let all = self.breakers.all().into_iter();
        all.filter(|circuit| circuit.is_of_group()).collect()
    }

    async fn tell(&mut self, changed: &[Arc<Circuit>]) -> Result<(), Trouble> {
        if changed.is_empty() {
            return Ok(());
        }
        // Whoever reads the notes compares them with the server's clock.
        let now_ms = self.link.get().await?.now_ms().await?;
        for circuit in changed {
            self.notes.remove(&circuit.key);
            let note = note(circuit, now_ms).map(|note| (circuit.key.clone(), note));
            self.notes.extend(note);
        }
        let notes: Vec<BreakerNote> = self.notes.values().cloned().collect();
        let sources = self.sources.clone();
        for circuit in changed {
            let now = (circuit.opened(), circuit.closed());
            let before = self.told.get(&circuit.key).copied().unwrap_or_default();
            for source in told(&sources) {
                match circuit.state() {
                    // Opened here, and not because another one told so.
                    State::Open { until } if now.0 > before.0 => {
                        let left = until.saturating_duration_since(Instant::now());
                        let link = self.link.get().await?;
                        link.open_breaker(&source.keys, &circuit.key, left).await?;
                    }
                    State::Closed if now.1 > before.1 => {
                        let link = self.link.get().await?;
                        link.close_breaker(&source.keys, &circuit.key).await?;
                    }
                    _ => {}
                }
            }
            self.told.insert(circuit.key.clone(), now);
        }
        for source in told(&sources) {
            let link = self.link.get().await?;
            link.note_breakers(&source.keys, &self.identity.name, &notes)
                .await?;
        }
        Ok(())
    }

    /// Asks for the right to send the group's probes, or keeps it while they are on their way. Answers whether it has it.
    async fn ask(&mut self, circuit: &Arc<Circuit>) -> Result<bool, Trouble> {
        let now = Instant::now();
        let is_time = self.ask_at.get(&circuit.key).is_none_or(|at| *at <= now);
        if !is_time || !circuit.wants_to_probe() {
            return Ok(false);
        }
        let epoch = circuit.epoch();
        let named = self.sources.named();
        let Some(source) = named.iter().min_by_key(|source| &source.keys.stream) else {
            return Ok(false);
        };
        let link = self.link.get().await?;
        let asked = link.probe_breaker(&source.keys, &circuit.key, &self.identity.name, RIGHT);
        let answer = asked.await?;
        match answer {
            Probing::Granted(lasts) => circuit.grant(lasts),
            Probing::Open(left) => circuit.hear_open(left),
            Probing::Closed => circuit.hear_closed(epoch),
            Probing::Taken(_) => {}
        }
        self.ask_at.insert(circuit.key.clone(), now + LOOK);
        Ok(matches!(answer, Probing::Granted(_)))
    }

    /// What others tell. What has changed here meanwhile is told first.
    async fn look(&mut self, of_group: &[Arc<Circuit>]) -> Result<(), Trouble> {
        let sources = self.sources.clone();
        let epochs: Vec<u64> = of_group.iter().map(|circuit| circuit.epoch()).collect();
        let mut open: HashMap<String, Duration> = HashMap::new();
        for source in told(&sources) {
            for (key, left) in self.link.get().await?.open_breakers(&source.keys).await? {
                let longest = open.entry(key).or_default();
                *longest = left.max(*longest);
            }
        }
        for (circuit, epoch) in of_group.iter().zip(epochs) {
            match open.get(&circuit.key) {
                Some(left) if circuit.epoch() == epoch => circuit.hear_open(*left),
                Some(_) => {}
                None => circuit.hear_closed(epoch),
            }
        }
        Ok(())
    }

    /// The group can't be asked: what is its breaker is this worker's own.
    fn alone(&self) {
        for circuit in self.of_group() {
            circuit.grant(circuit.open_for().max(RIGHT));
        }
    }
}

/// The streams that it is told by: those whose group can be joined.
fn told(sources: &Sources) -> Vec<Arc<Source>> {
    let mut all = sources.named().to_vec();
    all.retain(|source| !source.is_barred());
    all
}

/// What there is to tell of a breaker, if anything; by the server's clock, which shows `now_ms`.
fn note(circuit: &Circuit, now_ms: u64) -> Option<BreakerNote> {
    let (state, until) = match circuit.state() {
        State::Closed => return None,
        State::HalfOpen => ("half-open", None),
        State::Open { until } => ("open", Some(until)),
    };
    let until_ms = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        now_ms + left.as_millis() as u64
    });
    Some(BreakerNote {
        name: circuit.name.clone(),
        state: state.to_owned(),
        opened: circuit.opened(),
        until_ms,
        why: circuit.why(),
    })
}
