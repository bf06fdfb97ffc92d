//! Which event is with which child: who waits, who has what in hand, and who gets the next one. It speaks to nobody, and
//! is told the time.
//!
//! Events are given out in the order in which they came, each to the child that has the fewest. An event at its last
//! attempt has a child to itself: if a child dies with several events in hand nobody knows whose fault it was, and what
//! is innocent is to live.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::ended::Ended;
use crate::context::Context;

/// Which child of a pool: no two ever have the same number.
pub(super) type ChildId = u64;

/// `Out` is what takes lines for a child.
pub(super) struct Desk<Out> {
    waiting: VecDeque<Request>,
    /// Those that want a child to themselves.
    waiting_alone: VecDeque<Request>,
    children: Vec<Hands<Out>>,
}

/// An event on its way to a child.
pub(super) struct Request {
    pub id: u64,
    /// What is sent.
    pub line: Vec<u8>,
    pub alone: bool,
    pub ctx: Context,
    pub reply: oneshot::Sender<Ended>,
}

/// A child, and what it has in hand.
pub(super) struct Hands<Out> {
    pub child: ChildId,
    pub out: Out,
    at_once: usize,
    /// It gets nothing more.
    leaving: bool,
    /// What it has it has to itself.
    alone: bool,
    in_hand: FxHashMap<u64, InHand>,
    /// How many events it has answered.
    pub answered: u64,
    /// Since when it has nothing in hand.
    pub idle_since: Instant,
}

struct InHand {
    ctx: Context,
    reply: oneshot::Sender<Ended>,
    /// If it has not been answered by then its child is killed.
    kill_at: Option<Instant>,
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It was waiting, and no longer does: no child has seen it.
    Withdrawn,
    WithChild(ChildId),
    /// It has been answered.
    Gone,
}

impl<Out> Desk<Out> {
    pub fn new() -> Self {
        Desk {
            waiting: VecDeque::new(),
            waiting_alone: VecDeque::new(),
            children: Vec::new(),
        }
    }

    pub fn wait(&mut self, request: Request) {
        match request.alone {
            true => self.waiting_alone.push_back(request),
            false => self.waiting.push_back(request),
        }
    }

    /// A child has said hello.
    pub fn welcome(&mut self, child: ChildId, at_once: usize, out: Out, now: Instant) {
        self.children.push(Hands {
            child,
            out,
            at_once,
            leaving: false,
            alone: false,
            in_hand: FxHashMap::default(),
            answered: 0,
            idle_since: now,
        });
    }

    /// Gives out what waits, as far as there are hands for it.
    pub fn assign(&mut self, mut give: impl FnMut(&mut Out, &[u8])) {
        while let Some(request) = self.waiting_alone.pop_front() {
            if request.reply.is_closed() {
                continue;
            }
            let free = self.children.iter_mut().find(|hands| hands.is_free());
            let Some(hands) = free else {
                self.waiting_alone.push_front(request);
                break;
            };
            hands.alone = true;
            hands.take(request, &mut give);
        }
        // The one that is emptied for it.
        let reserved = match self.waiting_alone.is_empty() {
            true => None,
            false => {
                let able = self
                    .children
                    .iter()
                    .filter(|hands| !hands.leaving && !hands.alone);
                able.min_by_key(|hands| hands.in_hand.len())
                    .map(|hands| hands.child)
            }
        };
        while let Some(request) = self.waiting.pop_front() {
            if request.reply.is_closed() {
                continue;
            }
            let able = self
                .children
                .iter_mut()
                .filter(|hands| hands.has_room() && Some(hands.child) != reserved);
            let Some(hands) = able.min_by_key(|hands| hands.in_hand.len()) else {
                self.waiting.push_front(request);
                break;
            };
            hands.take(request, &mut give);
        }
    }

    /// A child has answered. Returns whom the answer is for; None if it never had that event, or has answered it before.
    pub fn answered(
        &mut self,
        child: ChildId,
        id: u64,
        now: Instant,
    ) -> Option<oneshot::Sender<Ended>> {
        let hands = self.hands(child)?;
        let answered = hands.in_hand.remove(&id)?;
        hands.answered += 1;
        if hands.in_hand.is_empty() {
            hands.alone = false;
            hands.idle_since = now;
        }
        Some(answered.reply)
    }

    /// An event is asked back. If a child has it, that child is killed when it has not answered within `grace`.
    pub fn cancel(&mut self, id: u64, grace: Option<Duration>, now: Instant) -> Whereabouts {
        for waiting in [&mut self.waiting, &mut self.waiting_alone] {
            if let Some(at) = waiting.iter().position(|request| request.id == id) {
                waiting.remove(at);
                return Whereabouts::Withdrawn;
            }
        }
        for hands in &mut self.children {
            if let Some(in_hand) = hands.in_hand.get_mut(&id) {
                if let Some(grace) = grace {
                    in_hand.kill_at.get_or_insert(now + grace);
                }
                return Whereabouts::WithChild(hands.child);
            }
        }
        Whereabouts::Gone
    }

    /// A child gets nothing more.
    pub fn leaves(&mut self, child: ChildId) {
        if let Some(hands) = self.hands(child) {
            hands.leaving = true;
        }
    }

    pub fn hands(&mut self, child: ChildId) -> Option<&mut Hands<Out>> {
        self.children.iter_mut().find(|hands| hands.child == child)
    }

    /// A child is gone. Each event it had in hand comes to what `ended` says, which is told whether its time was over.
    pub fn bury(&mut self, child: ChildId, now: Instant, ended: impl Fn(bool) -> Ended) {
        let Some(at) = self.children.iter().position(|hands| hands.child == child) else {
            return;
        };
        for in_hand in self.children.swap_remove(at).in_hand.into_values() {
            let was_overdue = in_hand.is_overdue(now);
            let _ = in_hand.reply.send(ended(was_overdue));
        }
    }

    /// No child will take what waits.
    pub fn dismiss(&mut self, ended: impl Fn() -> Ended) {
        let waiting = self.waiting.drain(..).chain(self.waiting_alone.drain(..));
        for request in waiting {
            let _ = request.reply.send(ended());
        }
    }

    pub fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    #[cfg(test)]
    pub fn children(&self) -> usize {
        self.children.len()
    }

    #[cfg(test)]
    pub fn waits(&self) -> usize {
        self.waiting.len() + self.waiting_alone.len()
    }
}

impl<Out> Hands<Out> {
    fn take(&mut self, request: Request, give: &mut impl FnMut(&mut Out, &[u8])) {
        let Request {
            id,
            line,
            ctx,
            reply,
            ..
        } = request;
        give(&mut self.out, &line);
        let kill_at = None;
        self.in_hand.insert(
            id,
            InHand {
                ctx,
                reply,
                kill_at,
            },
        );
    }

    fn has_room(&self) -> bool {
        !self.leaving && !self.alone && self.in_hand.len() < self.at_once
    }

    fn is_free(&self) -> bool {
        !self.leaving && self.in_hand.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.in_hand.is_empty()
    }

    /// When it is to be killed, unless it answers.
    pub fn kill_at(&self) -> Option<Instant> {
        self.in_hand
            .values()
            .filter_map(|in_hand| in_hand.kill_at)
            .min()
    }

    /// The events it has in hand.
    pub fn events(&self) -> impl Iterator<Item = &Context> {
        self.in_hand.values().map(|in_hand| &in_hand.ctx)
    }
}

impl InHand {
    fn is_overdue(&self, now: Instant) -> bool {
        self.kill_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk whose children keep what they are sent.
    struct Rig {
        desk: Desk<Vec<String>>,
        now: Instant,
        last: u64,
        replies: Vec<(u64, oneshot::Receiver<Ended>)>,
    }

    impl Rig {
        fn new(children: &[usize]) -> Self {
            let (mut desk, now) = (Desk::new(), Instant::now());
            for (child, at_once) in (1..).zip(children) {
                desk.welcome(child, *at_once, Vec::new(), now);
            }
            let replies = Vec::new();
            Rig {
                desk,
                now,
                last: 0,
                replies,
            }
        }

        fn ask(&mut self, alone: bool) -> u64 {
            self.last += 1;
            let id = self.last;
            let (reply, replied) = oneshot::channel();
            let (line, ctx) = (id.to_string().into_bytes(), Context::for_test());
            self.desk.wait(Request {
                id,
                line,
                alone,
                ctx,
                reply,
            });
            self.replies.push((id, replied));
            self.assign();
            id
        }

        fn assign(&mut self) {
            self.desk
                .assign(|out, line| out.push(String::from_utf8(line.to_vec()).unwrap()));
        }

        fn answer(&mut self, child: ChildId, id: u64) -> bool {
            let reply = self.desk.answered(child, id, self.now);
            self.assign();
            reply.is_some()
        }

        fn sent(&mut self, child: ChildId) -> String {
            self.desk.hands(child).unwrap().out.join(" ")
        }

        fn came_to(&mut self, id: u64) -> Option<Ended> {
            let (_, reply) = self.replies.iter_mut().find(|(of, _)| *of == id).unwrap();
            reply.try_recv().ok()
        }
    }

    #[test]
    fn events_go_in_order_to_the_child_that_has_the_fewest() {
        let mut rig = Rig::new(&[2, 2]);
        for _ in 0..6 {
            rig.ask(false);
        }
        assert_eq!((rig.sent(1), rig.sent(2)), ("1 3".into(), "2 4".into()));
        assert!(rig.answer(2, 4));
        assert!(rig.answer(2, 2));
        assert_eq!((rig.sent(1), rig.sent(2)), ("1 3".into(), "2 4 5 6".into()));
        assert_eq!(rig.desk.waits(), 0);
    }

    #[test]
    fn an_answer_to_what_a_child_does_not_have_is_for_nobody() {
        let mut rig = Rig::new(&[1, 1]);
        let (first, second) = (rig.ask(false), rig.ask(false));
        assert!(!rig.answer(1, second), "it is the other one's");
        assert!(!rig.answer(1, 99));
        assert!(rig.answer(1, first));
        assert!(!rig.answer(1, first), "twice");
    }

    #[test]
    fn a_last_attempt_has_a_child_to_itself_and_others_do_not_wait_for_it() {
        let mut rig = Rig::new(&[3, 3]);
        for _ in 0..3 {
            rig.ask(false);
        }
        // Child 1 has 1 and 3, child 2 has 2 and is emptied for 4.
        let last = rig.ask(true);
        rig.ask(false);
        assert_eq!((rig.sent(1), rig.sent(2)), ("1 3 5".into(), "2".into()));
        assert!(rig.answer(2, 2));
        rig.ask(false);
        assert_eq!((rig.sent(1), rig.sent(2)), ("1 3 5".into(), "2 4".into()));
        assert!(rig.answer(2, last));
        assert_eq!(rig.sent(2), "2 4 6");
    }

    #[test]
    fn what_is_cancelled_is_withdrawn_or_has_its_child_killed_in_time() {
        let mut rig = Rig::new(&[1]);
        let (held, waiting) = (rig.ask(false), rig.ask(false));
        let (grace, now) = (Duration::from_secs(5), rig.now);
        assert_eq!(
            rig.desk.cancel(waiting, Some(grace), now),
            Whereabouts::Withdrawn
        );
        assert_eq!(rig.desk.cancel(held, None, now), Whereabouts::WithChild(1));
        assert_eq!(
            rig.desk.hands(1).unwrap().kill_at(),
            None,
            "a stop is no reason to kill"
        );
        assert_eq!(
            rig.desk.cancel(held, Some(grace), now),
            Whereabouts::WithChild(1)
        );
        assert_eq!(
            rig.desk.cancel(held, Some(grace), now + grace),
            Whereabouts::WithChild(1)
        );
        assert_eq!(
            rig.desk.hands(1).unwrap().kill_at(),
            Some(now + grace),
            "asking again buys no time"
        );
        assert!(rig.answer(1, held));
        assert_eq!(rig.desk.cancel(held, Some(grace), now), Whereabouts::Gone);
        assert_eq!(rig.sent(1), "1");
    }

    #[test]
    fn whose_time_was_over_is_told_apart_when_a_child_is_gone() {
        let mut rig = Rig::new(&[2]);
        let (guilty, innocent, waiting) = (rig.ask(false), rig.ask(false), rig.ask(false));
        let grace = Duration::from_secs(5);
        rig.desk.cancel(guilty, Some(grace), rig.now);
        let gone = |overdue: bool| match overdue {
            true => Ended::Died("killed".to_owned()),
            false => Ended::Spared("another's fault".to_owned()),
        };
        rig.desk.bury(1, rig.now + grace, gone);
        assert!(matches!(rig.came_to(guilty), Some(Ended::Died(_))));
        assert!(matches!(rig.came_to(innocent), Some(Ended::Spared(_))));
        assert!(
            rig.came_to(waiting).is_none(),
            "it waits for the next child"
        );
        rig.desk.welcome(2, 1, Vec::new(), rig.now);
        rig.assign();
        assert_eq!(rig.sent(2), "3");
    }

    #[test]
    fn a_child_that_leaves_gets_nothing_more_and_nobody_gets_what_nobody_wants() {
        let mut rig = Rig::new(&[2]);
        rig.ask(false);
        rig.desk.leaves(1);
        let (second, third) = (rig.ask(false), rig.ask(false));
        assert_eq!(rig.sent(1), "1");
        rig.replies.retain(|(id, _)| *id != second);
        rig.desk.welcome(2, 1, Vec::new(), rig.now);
        rig.assign();
        assert_eq!(rig.sent(2), third.to_string());
        rig.ask(true);
        rig.desk.dismiss(|| Ended::NotBegun("stopping".to_owned()));
        assert!(matches!(rig.came_to(4), Some(Ended::NotBegun(_))));
    }
}
