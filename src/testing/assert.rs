//! What is asserted of a worker. Each assertion that fails says what was and what was expected, and prints what happened.

use std::marker::PhantomData;

use crate::codec::Decodable;
use crate::dead_letters::{Reason, WholeLetter};
use crate::event::{Entry, Envelope, Event};

/// How often something happened.
#[derive(Clone, Debug)]
#[must_use = "say how often it is to have happened"]
pub struct Count {
    what: String,
    count: usize,
    timeline: String,
}

impl Count {
    pub(super) fn new(what: String, count: usize, timeline: String) -> Self {
        Count {
            what,
            count,
            timeline,
        }
    }

    /// So often.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn times(self, times: usize) {
        if self.count != times {
            panic!(
                "{} {}, not {}\n{}",
                self.what,
                in_words(self.count),
                in_words(times),
                self.timeline
            );
        }
    }

    /// Once.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn once(self) {
        self.times(1);
    }

    /// Not at all.
    ///
    /// # Panics
    /// If it was.
    #[track_caller]
    pub fn never(self) {
        self.times(0);
    }

    /// How often it was.
    #[must_use]
    pub fn get(&self) -> usize {
        self.count
    }
}

fn in_words(times: usize) -> String {
    match times {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    }
}

/// Dead letters.
#[derive(Clone, Debug)]
#[must_use = "say what is to be there"]
pub struct Letters {
    letters: Vec<WholeLetter>,
    timeline: String,
}

impl Letters {
    pub(super) fn new(letters: Vec<WholeLetter>, timeline: String) -> Self {
        Letters { letters, timeline }
    }

    /// There are none.
    ///
    /// # Panics
    /// If there are.
    #[track_caller]
    pub fn none(self) {
        self.times(0);
    }

    /// There are so many.
    ///
    /// # Panics
    /// If there are not.
    #[track_caller]
    pub fn times(self, count: usize) {
        if self.letters.len() != count {
            panic!("{}", self.wrong(&format!("not {count}")));
        }
    }

    /// There is one: this is it.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn only(self) -> Letter {
        if self.letters.len() != 1 {
            panic!("{}", self.wrong("not one"));
        }
        let Letters {
            mut letters,
            timeline,
        } = self;
        let letter = letters.remove(0);
        Letter { letter, timeline }
    }

    /// All of them, in the order they were buried.
    #[must_use]
    pub fn all(&self) -> &[WholeLetter] {
        &self.letters
    }

    fn wrong(&self, expected: &str) -> String {
        let letters = self.letters.iter().map(|letter| {
            let head = &letter.head;
            let of = head.event_type.as_deref().unwrap_or("(no type)");
            format!("\n  {of}, {}: {}", head.reason.as_str(), head.error)
        });
        let there = match self.letters.len() {
            0 => "there are no dead letters".to_owned(),
            1 => "there is one dead letter".to_owned(),
            count => format!("there are {count} dead letters"),
        };
        let letters: String = letters.collect();
        format!("{there}, {expected}{letters}\n{}", self.timeline)
    }
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    letter: WholeLetter,
    timeline: String,
}

#[expect(clippy::return_self_not_must_use, reason = "each is an assertion")]
impl Letter {
    /// It was buried for this.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn reason(self, reason: Reason) -> Self {
        let was = self.letter.head.reason.as_str();
        if was != reason.as_str() {
            self.wrong(&format!("was buried as {was}, not as {reason}"));
        }
        self
    }

    /// Its last error has this in it.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn error_contains(self, text: &str) -> Self {
        let error = &self.letter.head.error;
        if !error.contains(text) {
            self.wrong(&format!("says {error:?}, and nothing of {text:?}"));
        }
        self
    }

    /// It had so many attempts.
    ///
    /// # Panics
    /// If it had not.
    #[track_caller]
    pub fn attempts(self, attempts: u32) -> Self {
        let had = self.letter.head.attempts;
        if had != attempts {
            self.wrong(&format!("had {had} attempts, not {attempts}"));
        }
        self
    }

    /// It had been replayed so often.
    ///
    /// # Panics
    /// If it had not.
    #[track_caller]
    pub fn replays(self, replays: u32) -> Self {
        let had = self.letter.head.replays;
        if had != replays {
            self.wrong(&format!("had been replayed {had} times, not {replays}"));
        }
        self
    }

    /// Its event.
    ///
    /// # Panics
    /// If it is of another type, or can't be decoded.
    #[track_caller]
    pub fn event<E: Event + Decodable>(self) -> E {
        let entry = Entry {
            id: self.letter.head.id,
            fields: self.letter.fields.clone(),
        };
        let event = match Envelope::decode(entry) {
            Ok(event) => event,
            Err((_, error)) => self.wrong(&format!("is no event: {error}")),
        };
        if event.event_type() != E::TYPE {
            self.wrong(&format!("is {}, not {}", event.event_type(), E::TYPE));
        }
        match event.decode_data() {
            Ok(event) => event,
            Err(error) => self.wrong(&format!("can't be decoded: {error}")),
        }
    }

    /// All that it says.
    pub fn whole(&self) -> &WholeLetter {
        &self.letter
    }

    #[track_caller]
    fn wrong(&self, what: &str) -> ! {
        panic!("the dead letter {what}\n{}", self.timeline)
    }
}

/// What was emitted of one type.
#[derive(Debug)]
#[must_use = "say what is to have been emitted"]
pub struct Emissions<E> {
    events: Vec<(String, Envelope)>,
    timeline: String,
    of: PhantomData<fn() -> E>,
}

impl<E: Event> Emissions<E> {
    pub(super) fn new(events: Vec<(String, Envelope)>, timeline: String) -> Self {
        let of = PhantomData;
        Emissions {
            events,
            timeline,
            of,
        }
    }

    /// Those alone that went to this stream.
    pub fn to(mut self, stream: &str) -> Self {
        self.events.retain(|(to, _)| to == stream);
        self
    }

    /// So many.
    ///
    /// # Panics
    /// If there were not so many.
    #[track_caller]
    pub fn times(self, times: usize) {
        let what = format!("{} was emitted", E::TYPE);
        Count::new(what, self.events.len(), self.timeline).times(times);
    }

    /// None.
    ///
    /// # Panics
    /// If there was one.
    #[track_caller]
    pub fn never(self) {
        self.times(0);
    }

    /// The one there was.
    ///
    /// # Panics
    /// If there was none, or more than one; if it can't be decoded.
    #[track_caller]
    pub fn only(self) -> E
    where
        E: Decodable,
    {
        if self.events.len() != 1 {
            self.times(1);
            unreachable!("there is not one");
        }
        let mut all = self.all();
        all.remove(0)
    }

    /// All of them.
    ///
    /// # Panics
    /// If one can't be decoded.
    #[track_caller]
    pub fn all(self) -> Vec<E>
    where
        E: Decodable,
    {
        let mut events = Vec::new();
        for (stream, event) in self.events {
            match event.decode_data() {
                Ok(event) => events.push(event),
                Err(error) => panic!(
                    "an emitted {} in {stream} can't be decoded: {error}\n{}",
                    E::TYPE,
                    self.timeline
                ),
            }
        }
        events
    }

    /// The same as they stand in their streams, with their fields.
    #[must_use]
    pub fn envelopes(&self) -> Vec<Envelope> {
        let events = self.events.iter();
        events.map(|(_, event)| event.clone()).collect()
    }
}
