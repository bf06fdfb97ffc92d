//! Who has the room there is: what dead workers held, what is due, what is new.
//!
//! What a dead worker held comes first, for it has waited for a lease already and there is an end to it. Of eight entries
//! seven are of that; the eighth, and all of them if there is nothing of it, due and new ones have in equal parts. Who
//! has nothing leaves its part to the others.

use crate::worker::run::queue::IN_A_ROW;

/// Whose turn it is if there is not room for all.
#[derive(Default)]
pub(crate) struct Shares {
    /// So many reclaimed entries were taken since others could have been.
    in_a_row: usize,
    due_had_its_turn: bool,
}

impl Shares {
    /// How much of so much room is for what dead workers held.
    pub fn reclaimed(&self, room: usize) -> usize {
        if room > IN_A_ROW {
            room - room / (IN_A_ROW + 1)
        } else {
            room.min(IN_A_ROW - self.in_a_row.min(IN_A_ROW))
        }
    }

    /// So many were reclaimed, and so much room was left to others.
    pub fn took(&mut self, reclaimed: usize, left: usize) {
        self.in_a_row = if left > 0 {
            0
        } else {
            self.in_a_row + reclaimed
        };
    }

    /// How much of the room that is left is for what is due.
    pub fn due(&mut self, left: usize) -> usize {
        if left != 1 {
            return left.div_ceil(2);
        }
        self.due_had_its_turn = !self.due_had_its_turn;
        usize::from(self.due_had_its_turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what there is room for, so many times, of kinds that never end: how many of each.
    fn taken(room: usize, times: usize) -> [usize; 3] {
        let (mut shares, mut taken) = (Shares::default(), [0; 3]);
        for _ in 0..times {
            let reclaimed = shares.reclaimed(room);
            let left = room - reclaimed;
            shares.took(reclaimed, left);
            let due = if left > 0 { shares.due(left) } else { 0 };
            for (of, more) in taken.iter_mut().zip([reclaimed, due, left - due]) {
                *of += more;
            }
        }
        taken
    }

    #[test]
    fn of_eight_entries_seven_are_reclaimed_and_the_others_have_the_rest_in_equal_parts() {
        for room in [1, 2, 3, 4, 8, 16, 100] {
            let [reclaimed, due, new] = taken(room, 1600);
            let all = room * 1600;
            let is_about = |part: usize, of: usize| part.abs_diff(of) <= of / 5;
            assert!(is_about(reclaimed, all * 7 / 8), "{reclaimed} of {all}");
            assert!(
                is_about(due, new) && due + new + reclaimed == all,
                "{due} due and {new} new of {all}, with room for {room}"
            );
        }
    }

    #[test]
    fn if_nothing_is_reclaimed_the_others_have_all_of_it() {
        let mut shares = Shares::default();
        shares.took(0, 1);
        assert_eq!([1; 4].map(|left| shares.due(left)), [1, 0, 1, 0]);
        assert_eq!(shares.due(9), 5);
    }
}
