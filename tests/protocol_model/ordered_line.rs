//! What a worker knows of a subject's events that are pending, and what it does when one comes or is settled: what
//! `src/worker/run/line.rs` does, for one subject and with room for all.

use crate::ordered::{COPIES, Item, PLACES, Settles, Worker};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Known {
    /// Nothing is known of it, or it is done with.
    #[default]
    Not,
    /// With another worker, or with this one and not here yet.
    Elsewhere,
    Waits,
    Runs,
    /// In Redis, until it is due.
    Parked,
    Dead,
    /// On its way there, only because another comes before it.
    Leaving,
    Behind,
    Roused,
}

impl Known {
    fn is_far(self) -> bool {
        use Known::{Behind, Dead, Elsewhere, Leaving, Parked};
        matches!(self, Elsewhere | Parked | Leaving | Behind | Dead)
    }
}

impl Worker {
    /// The first of what is known.
    pub fn first(&self) -> Option<usize> {
        self.line.iter().position(|known| *known != Known::Not)
    }

    /// Whether something runs behind the first, or may run elsewhere: a copy comes before what is new of its subject, and
    /// may come while that runs.
    fn runs_behind(&self, first: usize) -> bool {
        self.line[first + 1..].contains(&Known::Runs) || self.elsewhere(first).next().is_some()
    }

    /// What is with others and may run there before the first, if that is a copy.
    pub fn elsewhere(&self, first: usize) -> impl Iterator<Item = usize> {
        let new = if first < COPIES { COPIES..PLACES } else { 0..0 };
        new.filter(|place| self.waits_for_others && self.line[*place] == Known::Elsewhere)
    }

    pub fn arrives(&mut self, place: usize, lapsed: bool) {
        if self.line[place] == Known::Not {
            self.line[place] = Known::Elsewhere;
        }
        if let Item::Runs { .. } = self.items[place] {
            // It has been away meanwhile: the handler goes on.
            self.items[place] = Item::Runs { lapsed };
            self.line[place] = Known::Runs;
            return;
        }
        if self.first() == Some(place) && !self.runs_behind(place) {
            self.line[place] = Known::Runs;
            self.items[place] = Item::Here { goes: true, lapsed };
            return;
        }
        (self.line[place], self.items[place]) =
            match self.line[..place].iter().any(|of| of.is_far()) {
                true => (Known::Leaving, Item::Sent(Settles::ParksBehind)),
                false => (
                    Known::Waits,
                    Item::Here {
                        goes: false,
                        lapsed,
                    },
                ),
            };
        // It does not run elsewhere, and a copy may have waited for that.
        self.goes_on();
    }

    pub fn knows(&mut self, place: usize, known: Known) {
        if self.line[place] == Known::Not {
            self.line[place] = known;
        }
    }

    pub fn done(&mut self, place: usize) {
        // By other hands, if it waits here.
        if self.line[place] == Known::Waits && matches!(self.items[place], Item::Here { .. }) {
            self.items[place] = Item::Sent(Settles::ParksBehind);
        }
        if self.line[place] != Known::Not {
            self.line[place] = Known::Not;
            self.goes_on();
        }
    }

    /// It went back to Redis, or is another's.
    pub fn back(&mut self, place: usize) {
        if self.line[place] == Known::Not {
            return;
        }
        self.line[place] = match self.line[place] {
            Known::Leaving => Known::Behind,
            _ => Known::Parked,
        };
        match self.first() == Some(place) && self.line[place] == Known::Parked {
            true => self.parks_behind(),
            false => self.goes_on(),
        }
    }

    pub fn dies(&mut self, place: usize) {
        if self.line[place] != Known::Not {
            self.line[place] = Known::Dead;
            self.parks_behind();
        }
    }

    pub fn is_held(&mut self, place: usize) {
        self.knows(place, Known::Elsewhere);
        if matches!(
            self.line[place],
            Known::Elsewhere | Known::Parked | Known::Behind | Known::Roused
        ) {
            self.line[place] = Known::Dead;
        }
    }

    fn parks_behind(&mut self) {
        let first = self.first().unwrap_or(PLACES);
        self.parks_from(first + 1);
    }

    /// All that waits here goes back to Redis.
    pub fn leaves(&mut self) {
        self.parks_from(0);
    }

    fn parks_from(&mut self, from: usize) {
        for place in from..PLACES {
            let is_here = matches!(self.items[place], Item::Here { .. });
            if self.line[place] == Known::Waits && is_here {
                self.line[place] = Known::Leaving;
                self.items[place] = Item::Sent(Settles::ParksBehind);
            }
        }
    }

    /// What is first now starts or is woken, and what is right behind it comes along.
    pub fn goes_on(&mut self) {
        let Some(first) = self.first() else {
            return;
        };
        if self.runs_behind(first) {
            return;
        }
        match self.line[first] {
            Known::Waits => {
                self.line[first] = Known::Runs;
                if let Item::Here { goes, .. } = &mut self.items[first] {
                    *goes = true;
                }
            }
            Known::Behind => self.rouses(first),
            _ => {}
        }
        if self.line[first].is_far() {
            return;
        }
        let is_far = |place: &usize| matches!(self.line[*place], Known::Behind | Known::Leaving);
        let Some(from) = (first..PLACES).find(is_far) else {
            return;
        };
        for place in from..PLACES {
            match self.line[place] {
                Known::Not => {}
                Known::Behind => self.rouses(place),
                _ => break,
            }
        }
    }

    fn rouses(&mut self, place: usize) {
        (self.line[place], self.rouses[place]) = (Known::Roused, true);
    }
}
