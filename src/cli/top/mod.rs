//! `top`: a group as it works, in the terminal: its streams, its event types with rates and durations, its workers with
//! what they run for longest, and what is wrong with each.
//!
//! [`app`] is what is known, [`lints`] what is wrong with it, [`draw`] how it is shown; here is what they are fed with:
//! pulses as they come (each second, because somebody looks), the group's status every two seconds, and keys.

mod app;
mod draw;
mod lints;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::CommandError;
use crate::admin::Admin;
use crate::called;
use crate::config::Settings;
use crate::pulse::live::Live;
use app::{App, Pressed};

/// How often the group's status is looked at.
const STATUS: Duration = Duration::from_secs(2);
/// How often it is drawn where nothing happens: ages go on.
const DRAW: Duration = Duration::from_millis(500);
/// The least time between two drawings, however much happens.
const LEAST: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct TopArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub group: Option<String>,
}

pub(super) async fn run(_args: TopArgs, settings: Settings) -> Result<(), CommandError> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(CommandError::usage(format!(
            "top needs a terminal; `{}` and `{}` print once",
            called::command("status"),
            called::command("worker list")
        )));
    }
    let admin = Admin::new(&settings)?;
    // What can't be reached is told before the screen is taken.
    let mut app = App::new(
        &admin.status().await?,
        admin.fleet_now().await?,
        admin.now().await?,
    );
    let live = Live::new(admin.pool().clone(), admin.group(), admin.streams());
    let mut watching = live.watch();
    let mut keys = keys();
    let mut terminal = ratatui::init();
    let (mut status_at, mut drawn) = (Instant::now() + STATUS, Instant::now() - LEAST);
    let ended = loop {
        if drawn.elapsed() >= LEAST {
            if let Err(error) = terminal.draw(|frame| draw::draw(frame, &app)) {
                break Err(CommandError::failed(format!(
                    "the terminal can't be written to: {error}"
                )));
            }
            drawn = Instant::now();
        }
        let draw_at = if app.has_changed() {
            drawn + LEAST
        } else {
            drawn + DRAW
        };
        tokio::select! {
            came = watching.next() => app.heard(&came),
            key = keys.recv() => match key.map(|key| app.pressed(key)) {
                Some(Pressed::Quit) | None => break Ok(()),
                Some(Pressed::Nothing) => {}
            },
            () = tokio::time::sleep_until(status_at.into()) => {
                let admin = admin.as_grown().await;
                match tokio::try_join!(admin.status(), admin.now()) {
                    Ok((status, now)) => app.looked(&status, now),
                    Err(error) => app.trouble(error.to_string()),
                }
                status_at = Instant::now() + STATUS;
            }
            () = tokio::time::sleep_until(draw_at.into()) => {}
        }
    };
    ratatui::restore();
    ended
}

/// Keys as they are pressed, read by a thread of its own: reading blocks.
fn keys() -> mpsc::UnboundedReceiver<KeyEvent> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(Duration::from_millis(250)) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return,
            }
            let key = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key,
                // Another size: it is drawn anew soon.
                Ok(_) => KeyEvent::new(KeyCode::Null, KeyModifiers::NONE),
                Err(_) => return,
            };
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    receiver
}
