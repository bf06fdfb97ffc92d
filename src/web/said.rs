//! What an action has to say on the page that it leads back to. The address has a number only: who makes an address can
//! put no words of theirs on a page.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

const KEPT: Duration = Duration::from_secs(60);
const MOST: usize = 1000;

/// What was said of late, by its number.
#[derive(Default)]
pub(super) struct Said(Mutex<VecDeque<(Instant, String, String)>>);

impl Said {
    /// Keeps it, and returns its number.
    pub fn keep(&self, words: String) -> String {
        let number = uuid::Uuid::now_v7().simple().to_string();
        let mut all = lock(&self.0);
        while all.len() >= MOST || all.front().is_some_and(|(at, ..)| at.elapsed() > KEPT) {
            all.pop_front();
        }
        all.push_back((Instant::now(), number.clone(), words));
        number
    }

    /// What was said under this number.
    pub fn get(&self, number: &str) -> Option<String> {
        let all = lock(&self.0);
        let (_, _, words) = all.iter().find(|(_, known, _)| known == number)?;
        Some(words.clone())
    }
}
