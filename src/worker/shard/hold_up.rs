//! What holds up a part that settles: the server is away or refuses, or the group is gone. Said, and waited out.

use std::sync::Arc;
use std::time::Instant;

use super::links::Links;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Link, Trouble};
use crate::worker::state::signals::Signals;

/// Waits that grow while something stays wrong.
pub(crate) struct HoldUp {
    signals: Arc<Signals>,
    complaint: Complaint,
    pause: Pause,
    /// Nothing is sent before.
    until: Option<Instant>,
}

impl HoldUp {
    pub fn new(signals: Arc<Signals>) -> Self {
        HoldUp {
            signals,
            complaint: Complaint::default(),
            pause: Pause::new(),
            until: None,
        }
    }

    /// Nothing is sent for a while, because of this. A group that is gone is joined anew.
    pub fn begin(&mut self, trouble: &Trouble) {
        if matches!(trouble, Trouble::NoGroup(_)) {
            self.signals.rejoin();
        }
        self.complaint.warn(trouble.error().to_string());
        self.until = Some(Instant::now() + self.pause.next());
    }

    /// The same of what was met on the connection that entries are settled on, which is of no more use if that says so.
    pub async fn begin_on(&mut self, trouble: &Trouble, link: &Link, links: &Links) {
        if trouble.ends_the_link() {
            links.settle_link_broke(link).await;
        }
        self.begin(trouble);
    }

    /// Until when nothing is sent; None if something may be.
    pub fn until(&mut self) -> Option<Instant> {
        self.until = self.until.filter(|at| *at > Instant::now());
        self.until
    }

    /// An answer came: the next wait is a short one.
    pub fn is_over(&mut self) {
        self.pause.reset();
    }

    /// Something was refused that holds up nothing else.
    pub fn warn(&mut self, message: String) {
        self.complaint.warn(message);
    }
}
