//! What is shown while it runs, on standard error: what happens and when, and how far it is.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often it is said how far it is, where there is no terminal to draw on.
const PLAIN: Duration = Duration::from_secs(2);

pub struct Stage {
    began: Instant,
    bar: ProgressBar,
    /// When something was said last.
    said: Instant,
}

impl Stage {
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("   {bar:14} {pos} of {len} settled {wide_msg}")
            .expect("the template is right");
        Stage {
            began: Instant::now(),
            bar: ProgressBar::no_length().with_style(style),
            said: Instant::now(),
        }
    }

    /// Says what has happened.
    pub fn say(&mut self, what: impl Display) {
        let seconds = self.began.elapsed().as_secs_f64();
        let line = format!("{seconds:6.1} s  {what}");
        if self.bar.is_hidden() {
            streamhand::cli::say(line);
        } else {
            // Nobody need listen.
            let _ = self.bar.suspend(|| writeln!(io::stderr(), "{line}"));
        }
        self.said = Instant::now();
    }

    /// Says how far it is.
    pub fn progress(&mut self, done: u64, of: u64, besides: impl Display) {
        if !self.bar.is_hidden() {
            if self.bar.is_finished() {
                self.bar.reset();
            }
            self.bar.set_length(of);
            self.bar.set_position(done);
            self.bar.set_message(format!("({besides})"));
        } else if self.said.elapsed() >= PLAIN {
            self.say(format_args!("{done} of {of} settled ({besides})"));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}
