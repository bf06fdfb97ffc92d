use super::*;
use crate::config::Settings;
use crate::worker::state::slots::Slots;

const ATTEMPTS: u32 = 5;

/// Of a worker whose renewals have been answered for a lease, or have not.
fn reclaimer(is_healthy: bool) -> Reclaimer {
    let identity = Arc::new(Identity::new(&Settings::default()));
    let health = Arc::new(ServerHealth::new(identity.lease));
    if is_healthy {
        let now = Instant::now();
        let before = now.checked_sub(identity.lease).expect("it has been up");
        health.renewed(before, true);
        health.renewed(now, true);
    }
    let slots = Arc::new(Slots::new(1));
    let takeover = Takeover::new(
        identity.clone(),
        health.clone(),
        Arc::default(),
        slots,
        ATTEMPTS,
        [],
    );
    let sources = Arc::new(Sources::new(Vec::new()));
    Reclaimer::new(identity, Arc::default(), sources, health, takeover)
}

/// Looks, and finds nothing. Returns whether it did, and at every holder.
fn look(reclaimer: &mut Reclaimer, most: usize) -> Option<bool> {
    match reclaimer.begin(most) {
        Begin::Look(look) => {
            let all = look.all;
            reclaimer.end(look);
            Some(all)
        }
        Begin::Not(_) => None,
    }
}

#[test]
fn it_looks_when_a_lease_runs_out_or_a_suspect_may_come_in() {
    let mut reclaimer = reclaimer(true);
    assert_eq!(look(&mut reclaimer, 1), Some(true));
    assert_eq!(look(&mut reclaimer, 1), None);
    reclaimer.look_soon(Instant::now());
    assert_eq!(look(&mut reclaimer, 0), Some(true));
    assert_eq!(look(&mut reclaimer, 1), None);
}

#[test]
fn a_look_without_room_leaves_what_is_due_to_one_with_room() {
    let mut reclaimer = reclaimer(true);
    assert_eq!(look(&mut reclaimer, 1), Some(true));
    // Some holder's lease has run out, and the look at all of them is later.
    reclaimer.times.next = Instant::now();
    assert!(matches!(reclaimer.begin(0), Begin::Not(taken) if taken.more));
    let Begin::Look(mut with_room) = reclaimer.begin(1) else {
        panic!("it is due");
    };
    assert!(!with_room.all);
    with_room.left_out = true;
    assert!(reclaimer.end(with_room).more);
    assert_eq!(look(&mut reclaimer, 1), Some(false));
}

#[test]
fn ages_are_not_trusted_before_renewals_have_been_answered_for_a_lease() {
    let mut reclaimer = reclaimer(false);
    assert_eq!(look(&mut reclaimer, 1), None);
    let lease = reclaimer.identity.lease;
    assert!(reclaimer.next_look() > Instant::now() + lease / 20);
}
