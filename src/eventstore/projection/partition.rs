//! One public stream of a projection, within one process: whose it is to run it here, how far it is, and its batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::batch::{Bad, End, Head, Made, Rules, bury};
use super::catch_up::CatchUp;
use super::quarantine::{Portion, Quarantine};
use crate::about::{About, tell};
use crate::config::OnBadEvent;
use crate::event::{Entry, EntryId};
use crate::stream::{
    ActingAs, AppliedBatch, Batch, Deaths, From, LeaseStep, Link, ProjectionKeys, Stand, Standing,
    Taken, Trouble,
};

/// A public stream.
pub(super) struct Partition {
    pub number: usize,
    pub keys: ProjectionKeys,
    pub state: State,
    /// When its lease is to be taken, or renewed.
    pub due: Instant,
    pub head: Head,
    pub again: Head,
    /// Entries that this process has had applied, or passed over.
    pub passed: u64,
    /// The bad event that it has stopped before, and what is wrong with it.
    pub halted: Option<(EntryId, String)>,
    /// It was found to be another's, or gone.
    pub lost: bool,
    /// Those who ran it before have died.
    pub quarantine: Option<Quarantine>,
    is_first: bool,
}

/// Where it is.
pub(super) enum State {
    /// Others run it, or nobody.
    Elsewhere,
    /// It reads the public stream.
    Live(Stand),
    /// It reads the aggregates, for the public stream does not have it all. None if that is still to begin.
    CatchUp(Stand, Standing, Option<Box<CatchUp>>),
}

/// An event that the projection stops at.
struct Stopper<'a> {
    /// None if it is not at hand.
    entry: Option<&'a Entry>,
    id: EntryId,
    why: &'a str,
    attempts: u32,
    /// Who applies it dies.
    kills: bool,
}

impl Partition {
    pub fn new(number: usize, keys: ProjectionKeys) -> Self {
        Partition {
            number,
            keys,
            state: State::Elsewhere,
            due: Instant::now(),
            head: Head::default(),
            again: Head::default(),
            passed: 0,
            halted: None,
            lost: false,
            quarantine: None,
            is_first: true,
        }
    }

    pub fn stand(&self) -> Option<Stand> {
        match &self.state {
            State::Elsewhere => None,
            State::Live(stand) | State::CatchUp(stand, ..) => Some(*stand),
        }
    }

    /// Takes the lease, or renews it, where it is time.
    pub async fn look(&mut self, who: ActingAs<'_>, link: &mut Link) -> Result<(), Trouble> {
        if Instant::now() < self.due {
            return Ok(());
        }
        let asked = Instant::now();
        let step = match self.stand() {
            Some(_) => LeaseStep::Keep,
            None if self.is_first => LeaseStep::First,
            None => LeaseStep::Take,
        };
        let taken = link.lease_projection(who, step).await?;
        // Theirs may have just begun their lease, or be gone before it ends.
        let wait = match &taken {
            Taken::Theirs(left) => (*left).clamp(Duration::from_millis(20), who.lease / 3),
            Taken::Gone => Duration::ZERO,
            _ => who.lease / 3,
        };
        self.due = asked + wait;
        if !matches!(taken, Taken::Theirs(_)) {
            self.is_first = false;
        }
        self.heed(taken, who);
        Ok(())
    }

    /// Takes notice of what an answer says of where it is.
    fn heed(&mut self, taken: Taken, who: ActingAs<'_>) {
        let stream = &self.keys.stream;
        if let Taken::Stopped(at, why) = &taken {
            if self.halted.is_none() {
                tracing::error!(projection = who.projection, stream, entry = %at, "the projection has stopped: {why}");
            }
            self.halted = Some((*at, why.clone()));
            self.state = State::Elsewhere;
            return;
        }
        let Taken::Yours {
            stand,
            public,
            gap,
            deaths,
        } = taken
        else {
            if !matches!(self.state, State::Elsewhere) {
                tracing::info!(
                    projection = who.projection,
                    stream,
                    "another worker runs the projection now"
                );
            }
            self.state = State::Elsewhere;
            self.lost = true;
            return;
        };
        self.lost = false;
        self.halted = None;
        if matches!(self.state, State::Elsewhere) {
            let Stand {
                generation,
                position,
            } = stand;
            tracing::info!(projection = who.projection, stream, generation, %position, "runs the projection");
            (self.head, self.again) = Default::default();
            self.quarantine = Quarantine::of(deaths);
            if let Deaths { count: 1.., at, .. } = deaths {
                let died = deaths.count;
                tracing::warn!(
                    projection = who.projection, stream, died, position = %at,
                    "whoever ran the projection died: an event may have killed them"
                );
            }
        }
        match &self.state {
            State::CatchUp(at, ..) | State::Live(at)
                if *at == stand && !(gap && self.is_live()) => {}
            _ if gap => self.goes_back(stand, public, who),
            _ => self.state = State::Live(stand),
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    fn goes_back(&mut self, stand: Stand, public: Standing, who: ActingAs<'_>) {
        let (stream, position) = (&self.keys.stream, stand.position);
        tracing::info!(
            projection = who.projection, stream, %position,
            "the public stream does not have it all: reading from the aggregates"
        );
        self.state = State::CatchUp(stand, public, None);
    }

    /// How much is to be applied of entries that come next.
    pub fn portion(&self, from: From, entries: &[Entry], rules: &Rules) -> Portion {
        match &self.quarantine {
            Some(quarantine) => quarantine.portion(from, entries, rules),
            None => Portion::whole(entries),
        }
    }

    /// Makes a batch of entries, on a thread where it may take its time. Nothing is applied yet.
    pub fn make(
        &mut self,
        from: From,
        entries: Vec<Entry>,
        killed: Option<u32>,
        rules: &Arc<Rules>,
    ) -> JoinHandle<(Vec<Entry>, Head, Made)> {
        let mut head = self.head(from).clone();
        head.wait = None;
        let rules = rules.clone();
        tokio::task::spawn_blocking(move || {
            let made = rules.make(&entries, &mut head, from == From::Again, killed);
            (entries, head, made)
        })
    }

    pub fn head(&mut self, from: From) -> &mut Head {
        match from {
            From::Again => &mut self.again,
            _ => &mut self.head,
        }
    }

    /// Applies a batch of entries that came from the public stream or from the aggregates, where it still stands there.
    pub async fn apply(
        &mut self,
        from: From,
        stand: Stand,
        batch: (&[Entry], Head, Made),
        rules: &Rules,
        who: ActingAs<'_>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        if self.stand() != Some(stand) {
            return Ok(());
        }
        let (entries, head, made) = batch;
        *self.head(from) = head;
        let Made {
            told,
            entries: count,
            end,
        } = made;
        if count > 0 {
            let batch = Batch {
                from,
                stand,
                to: entries[count - 1].id,
                entries: count,
                events: &told,
            };
            match link.project(who, &batch).await? {
                AppliedBatch::Done(position) => {
                    self.moved_to(stand, position);
                    self.passed += count as u64;
                    if let Some(quarantine) = &mut self.quarantine {
                        quarantine.passed(from, count, position);
                    }
                }
                AppliedBatch::Refused(place, why, position) => {
                    self.moved_to(stand, position);
                    let id = told.get(place).map(|told| told.id);
                    let bad = Bad {
                        reason: "permanent",
                        error: why,
                        attempts: 1,
                    };
                    return self.meet(from, id, entries, bad, rules, who, link).await;
                }
                AppliedBatch::Moved => {
                    self.look_again();
                    return Ok(());
                }
                AppliedBatch::Gap(public) => {
                    self.goes_back(stand, public, who);
                    return Ok(());
                }
            }
            self.renewed(who);
        }
        let projection = who.projection;
        // What comes behind all that were applied.
        let next = entries.get(count);
        match end {
            End::Whole => Ok(()),
            End::Retried(why, attempt) => {
                if let Some(entry) = next {
                    let about = About::raw(entry, &self.keys.stream, attempt);
                    tell!(warn, about, projection, "an event is tried again: {why}");
                }
                Ok(())
            }
            End::Bad {
                id,
                why,
                attempts,
                kills,
            } => {
                let bad = Stopper {
                    entry: next.filter(|entry| entry.id == id),
                    id,
                    why: &why,
                    attempts,
                    kills,
                };
                self.stop(bad, who, link).await
            }
        }
    }

    /// Says where that is due that what killed those before is behind it.
    pub async fn calm(
        &mut self,
        rules: &Rules,
        who: ActingAs<'_>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        if self
            .quarantine
            .as_ref()
            .is_some_and(|quarantine| quarantine.is_over(rules, who.lease))
        {
            link.lease_projection(who, LeaseStep::Calm).await?;
            self.quarantine = None;
        }
        Ok(())
    }

    /// An effect of this event can't be done, which its view says.
    #[allow(clippy::too_many_arguments)]
    async fn meet(
        &mut self,
        from: From,
        id: Option<EntryId>,
        entries: &[Entry],
        bad: Bad,
        rules: &Rules,
        who: ActingAs<'_>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        let (Some(stand), Some(place)) = (
            self.stand(),
            entries.iter().position(|entry| Some(entry.id) == id),
        ) else {
            return Err(Trouble::garbled("applying events"));
        };
        let entry = &entries[place];
        if rules.on_bad == OnBadEvent::Stop && from != From::Again {
            let bad = Stopper {
                entry: Some(entry),
                id: entry.id,
                why: &bad.error,
                attempts: bad.attempts,
                kills: false,
            };
            return self.stop(bad, who, link).await;
        }
        // Those between, which are passed over, are passed with it.
        let passed = match from {
            From::Again => 0,
            _ => entries[..place]
                .iter()
                .filter(|entry| entry.id > stand.position)
                .count(),
        };
        let told = [bury(entry, passed + 1, bad, &Head::default())];
        let batch = Batch {
            from,
            stand,
            to: entry.id,
            entries: passed + 1,
            events: &told,
        };
        match link.project(who, &batch).await? {
            AppliedBatch::Done(position) => {
                self.moved_to(stand, position);
                self.renewed(who);
            }
            // Read and looked at anew.
            _ => self.look_again(),
        }
        Ok(())
    }

    async fn stop(
        &mut self,
        bad: Stopper<'_>,
        who: ActingAs<'_>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        let Some(stand) = self.stand() else {
            return Ok(());
        };
        let Stopper { id, why, kills, .. } = bad;
        let step = LeaseStep::Stop {
            stand,
            at: id,
            why,
            is_held: kills,
        };
        let stopped = link.lease_projection(who, step).await?;
        self.state = State::Elsewhere;
        self.due = Instant::now() + who.lease / 3;
        self.halted = Some((id, why.to_owned()));
        if let Taken::Done = stopped {
            let (projection, stream) = (who.projection, &self.keys.stream[..]);
            let again = match kills {
                true => "it is not tried again until `projection resume`",
                false => "a worker that is started tries it again",
            };
            match bad.entry {
                Some(entry) => tell!(
                    error,
                    About::raw(entry, stream, bad.attempts),
                    projection,
                    "the projection has stopped at a bad event, as on_bad_event says; {again}: {why}"
                ),
                None => tracing::error!(
                    projection, stream, entry = %id,
                    "the projection has stopped at a bad event, as on_bad_event says; {again}: {why}"
                ),
            }
        }
        Ok(())
    }

    /// Everything that is to be read from the aggregates has been: goes on with the public stream.
    pub async fn arrive(&mut self, who: ActingAs<'_>, link: &mut Link) -> Result<(), Trouble> {
        let State::CatchUp(stand, until, _) = self.state else {
            return Ok(());
        };
        let taken = link
            .lease_projection(who, LeaseStep::Arrive(stand, until))
            .await?;
        self.state = State::Live(stand);
        self.due = Instant::now() + who.lease / 3;
        self.heed(taken, who);
        Ok(())
    }

    fn moved_to(&mut self, stand: Stand, position: EntryId) {
        let stand = Stand { position, ..stand };
        match &mut self.state {
            State::Elsewhere => {}
            State::Live(at) => *at = stand,
            State::CatchUp(at, _, past) => {
                *at = stand;
                if let Some(past) = past {
                    past.pass(position);
                }
            }
        }
    }

    /// A batch renews the lease like a renewal.
    fn renewed(&mut self, who: ActingAs<'_>) {
        self.due = Instant::now() + who.lease / 3;
    }

    /// What is known of where it is does not hold.
    pub fn look_again(&mut self) {
        self.state = State::Elsewhere;
        self.due = Instant::now();
    }
}
