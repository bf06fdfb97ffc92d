//! Carries out what is to become of entries, as a worker's acker, settler and committer do: what they ask of Redis is made
//! by their own code, and so is what an answer comes to.

use std::sync::Arc;

use super::at::At;
use super::driver::Driver;
use super::unsettled::Came;
use crate::cuts;
use crate::metrics::entries::Outcome;
use crate::outbox::{Line, What};
use crate::stream::{Ack, Buried, CommitOutcome, ParkOutcome};
use crate::worker::run::outcome::Acks;
use crate::worker::shard::settle::commit_requests::Job as Commit;
use crate::worker::shard::settle::requests::{Job, Step};
use crate::worker::state::source::Source;

impl Driver {
    /// Something came while it waited.
    pub async fn came(&mut self, came: Came) {
        match came {
            Came::Acks(acks) => self.unsettled.acks.push(acks),
            Came::Settlement(settlement) => self.process.settler.sort(settlement),
            Came::Committing(committing) => self.unsettled.commits.push(committing),
            Came::Ask(ask) => self.process.committer.asked(ask),
            Came::Question(question) => self.answer(question).await,
            Came::Run(run) => self.process.rest.push_back(run),
            Came::Suspect(run) => self.process.rest.push_back(run),
            Came::Nothing => {}
        }
    }

    /// Carries out what there is. Returns whether anything was.
    pub async fn carry_out(&mut self) -> bool {
        if let Some(behind) = cuts::ended() {
            self.die(&format!("behind {behind}")).await;
            return true;
        }
        let inbox = &mut self.process.inbox;
        let mut news = Vec::new();
        while let Ok(settlement) = inbox.settlements.try_recv() {
            news.push(Came::Settlement(settlement));
        }
        while let Ok(committing) = inbox.committing.try_recv() {
            news.push(Came::Committing(committing));
        }
        while let Ok(ask) = inbox.asks.try_recv() {
            news.push(Came::Ask(ask));
        }
        while let Ok(question) = inbox.questions.try_recv() {
            news.push(Came::Question(question));
        }
        while let Ok(acks) = inbox.acks.try_recv() {
            news.push(Came::Acks(acks));
        }
        let mut any = !news.is_empty();
        for came in news {
            self.came(came).await;
        }
        if self.is_away() {
            return any;
        }
        let committing = std::mem::take(&mut self.unsettled.commits);
        let mut commits: Vec<Commit> = committing.into_iter().map(Commit::new).collect();
        commits.extend(self.process.committer.take_jobs());
        for commit in commits {
            any = true;
            if self.commit(commit).await {
                return true;
            }
        }
        for acks in std::mem::take(&mut self.unsettled.acks) {
            any = true;
            if self.acknowledge(acks).await {
                return true;
            }
        }
        for job in self.process.settler.take_jobs() {
            any = true;
            if self.settle(job).await {
                return true;
            }
        }
        any
    }

    /// Whether the next answer gets lost: what was asked is asked once more then.
    fn loses(&mut self, what: &str) -> bool {
        let loses = self.losses > 0;
        if loses {
            self.losses -= 1;
            self.log
                .say(format!("THE ANSWER IS LOST to {what}: it is asked again"));
        }
        loses
    }

    /// Acknowledges what succeeded. Returns whether the worker has died of it.
    async fn acknowledge(&mut self, acks: Acks) -> bool {
        let Acks { batch, slots, .. } = acks;
        let source = batch.source.clone();
        for (done, index) in slots.iter().enumerate() {
            if self.dies_at(At::BeforeAck).await {
                return true;
            }
            let slot = &batch.slots[*index as usize];
            let identity = self.process.identity.clone();
            let ack = Ack {
                id: slot.id,
                consumer: identity.consumer(batch.alone),
                count: slot.count,
            };
            let name = self.log.name_of(&source, slot.id);
            let times = 1 + usize::from(self.loses(&format!("the acknowledgement of {name}")));
            for _ in 0..times {
                let delete = source.deletes();
                self.store.ack(&source.keys, delete, &[ack]).await;
            }
            self.log.acknowledged(&name);
            if self.dies_at(At::AfterAck).await {
                return true;
            }
            self.process
                .inflight
                .acknowledge(&batch, &slots[done..=done]);
        }
        false
    }

    /// Commits what a handler leaves. Returns whether the worker has died of it.
    async fn commit(&mut self, mut job: Commit) -> bool {
        for event in &mut job.items.events {
            event.stream = self.placed(&event.stream, &event.envelope);
        }
        for line in &mut job.items.lines {
            if let What::Schedule(later) = &mut line.what {
                later.stream = self.placed(&later.stream, &later.envelope);
            }
        }
        if self.dies_at(At::BeforeAck).await {
            return true;
        }
        let source = job.batch.source.clone();
        self.process.clock.shows(self.clock.now_ms());
        let id = job.slot().id;
        let name = self.log.name_of(&source, id);
        let mut outcome = self.ask_to_commit(&source, &job).await;
        if self.loses(&format!("the commit of {name}")) {
            outcome = self.ask_to_commit(&source, &job).await;
        }
        if outcome == CommitOutcome::Done {
            for event in &job.items.events {
                let (stream, event) = (&event.stream, event.envelope.event_type());
                self.streams.insert(stream.clone());
                self.log.say(format!("{name}: emits {event} to {stream}"));
            }
            for (stream, event) in job.items.lines.iter().flat_map(Line::events) {
                let event = event.event_type();
                self.streams.insert(stream.to_owned());
                self.log
                    .say(format!("{name}: emits {event} to {stream}, later"));
            }
            for effect in &job.items.effects {
                self.log.say(format!("{name}: {effect}"));
            }
            self.log.took_effect(&job.items.effects);
            self.log
                .handled_in_full(&name, job.ctx.envelope().event_type());
        }
        let is_settled = matches!(
            outcome,
            CommitOutcome::Done | CommitOutcome::Duplicate { .. }
        );
        if is_settled && self.dies_at(At::AfterAck).await {
            return true;
        }
        self.process.committer.came(job, Some(outcome));
        false
    }

    async fn ask_to_commit(&mut self, source: &Arc<Source>, job: &Commit) -> CommitOutcome {
        self.process.commits += 1;
        let number = self.process.commits;
        let commit = job.commit(&self.process.commit_requests, |_, _| true);
        let me = &self.process.identity.name;
        self.store
            .commit(
                &source.keys,
                me,
                number,
                source.deletes(),
                &commit,
                &job.items.lines,
            )
            .await
    }

    /// Parks or buries. Returns whether the worker has died of it.
    async fn settle(&mut self, job: Job) -> bool {
        if self.dies_at(At::BeforeRetry).await {
            return true;
        }
        self.process.clock.shows(self.clock.now_ms());
        let name = self.log.name_of(&job.batch.source, job.slot().id);
        let mut answer = self.ask_to_settle(&job).await;
        if self.loses(&format!("what becomes of {name}")) {
            let second = self.ask_to_settle(&job).await;
            answer = match (answer, second) {
                // It had been done.
                (Answer::Parked(ParkOutcome::Parked), _) => answer,
                (_, second) => second,
            };
        }
        match answer {
            Answer::Parked(outcome) => self.process.settler.was_parked(job, outcome),
            Answer::Buried(outcome) => self.process.settler.was_buried(job, outcome),
            Answer::None => {
                let index = [job.index];
                self.process
                    .inflight
                    .settle(&job.batch, index, Outcome::Lost);
            }
        }
        false
    }

    async fn ask_to_settle(&mut self, job: &Job) -> Answer {
        let source = job.batch.source.clone();
        if matches!(job.step, Step::Park { nobodys: true, .. }) {
            // Nothing takes an entry out of its group here but who holds it.
            return Answer::None;
        }
        if let Some(parking) = self.process.requests.parking(job) {
            let outcome = self.store.park(&source.keys, &[parking]).await.pop();
            return outcome.map_or(Answer::None, Answer::Parked);
        }
        let Some(burial) = self.process.requests.burial(job) else {
            return Answer::None;
        };
        let (group, delete) = (&source.surroundings.group, source.deletes());
        let outcome = self.store.bury(&source.keys, group, delete, &burial).await;
        Answer::Buried(outcome)
    }
}

/// What a step came to.
#[derive(Clone, Copy)]
enum Answer {
    Parked(ParkOutcome),
    Buried(Buried),
    None,
}
