//! How far a measurement is, on standard error: a bar on a terminal, a line a round elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use streamhand::cli::say;

const BAR: &str = "{bar:30} {pos}/{len} runs, {eta} left {msg}";

/// How far a measurement is.
pub(super) struct Progress {
    /// Drawn on a terminal only.
    bar: ProgressBar,
    terminal: bool,
    told: String,
}

impl Progress {
    pub fn new() -> Self {
        Progress {
            bar: ProgressBar::hidden(),
            terminal: std::io::stderr().is_terminal(),
            told: String::new(),
        }
    }

    /// Something begins that has so many runs and takes about so long.
    pub fn begin(&mut self, part: &str, runs: u64, takes: Duration) {
        let takes = match takes.as_secs() {
            0..60 => "less than a minute".to_owned(),
            seconds => format!("about {} min", (seconds + 30) / 60),
        };
        self.bar.finish_and_clear();
        self.told.clear();
        say(format_args!("{part}: {takes}"));
        if self.terminal {
            let style = ProgressStyle::with_template(BAR).expect("the template is right");
            self.bar = ProgressBar::with_draw_target(Some(runs), ProgressDrawTarget::stderr())
                .with_style(style);
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    /// What is measured next.
    pub fn step(&mut self, round: u64, rounds: u64, what: &str) {
        let round = format!("round {round} of {rounds}");
        self.bar.set_message(format!("({round}: {what})"));
        if !self.terminal && self.told != round {
            say(&round);
        }
        self.told = round;
    }

    /// It has been measured.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
