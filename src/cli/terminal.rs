//! How commands speak: data to standard output, progress to standard error.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::CommandError;
use super::stderr::{self, Stderr};

/// Writes a line of data to standard output.
///
/// # Errors
/// Where it can't be written. The command that ends with this error ends well and says nothing, if that is because
/// nobody reads any more (`| head`).
pub fn print(line: impl std::fmt::Display) -> Result<(), CommandError> {
    io::Write::write_fmt(&mut io::stdout().lock(), format_args!("{line}\n")).map_err(closed)
}

/// Writes a value as one line of JSON to standard output, its keys in the order of the alphabet.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CommandError> {
    let json = serde_json::to_value(value);
    print(json.map_err(|error| CommandError::failed(error.to_string()))?)
}

/// Says something on standard error, to whoever listens. Waits for nobody.
pub fn say(line: impl std::fmt::Display) {
    // It never fails.
    let _ = io::Write::write_all(&mut Stderr, format!("{line}\n").as_bytes());
}

/// Asks on standard error, behind all that was said before. Waits until it is written.
pub(super) fn ask(question: impl std::fmt::Display) -> io::Result<()> {
    stderr::flush();
    let mut terminal = io::stderr().lock();
    io::Write::write_fmt(&mut terminal, format_args!("{question}"))?;
    io::Write::flush(&mut terminal)
}

/// Writes lines of data to standard output while a bar is drawn, which gets out of their way.
///
/// # Errors
/// As [`print`].
pub(super) fn print_beside(
    bar: &ProgressBar,
    line: impl std::fmt::Display,
) -> Result<(), CommandError> {
    bar.suspend(|| {
        stderr::flush();
        print(line)
    })
}

/// What a write to standard output means that failed: whoever read it has had enough, or the disk is full.
pub(super) fn closed(error: io::Error) -> CommandError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CommandError::unheard();
    }
    CommandError::failed(format!("can't write to standard output: {error}"))
}

/// A progress bar over `total` of `what`, or a mere count where the total is not known. It is drawn only on a
/// terminal.
pub(super) fn progress(total: Option<u64>, what: &str) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:30} {pos}/{len} WHAT, {pace}, {eta} left {msg}",
        None => "{spinner} {pos} WHAT, {pace} {msg}",
    };
    bar(total, &template.replace("WHAT", what))
}

/// A progress bar over the bytes of a file.
pub(super) fn byte_progress(bytes: u64) -> ProgressBar {
    bar(
        Some(bytes),
        "{bar:30} {binary_bytes}/{binary_total_bytes}, {eta} left {msg}",
    )
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is right");
    let bar = ProgressBar::with_draw_target(total, screen());
    bar.with_style(
        style.with_key("pace", |state: &ProgressState, to: &mut dyn Write| {
            // A bar that can't be drawn is not drawn.
            let _ = write!(to, "{:.0}/s", state.per_sec());
        }),
    )
}

/// Where bars are drawn: on a terminal, which nobody waits for, and nowhere else.
pub(super) fn screen() -> ProgressDrawTarget {
    if io::stderr().is_terminal() {
        ProgressDrawTarget::term_like_with_hz(Box::new(Screen(Term::stderr())), 20)
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// The terminal behind standard error. What is drawn goes the way of all that is said.
#[derive(Debug)]
struct Screen(Term);

impl Screen {
    fn move_cursor(lines: usize, direction: char) -> io::Result<()> {
        match lines {
            0 => Ok(()),
            _ => io::Write::write_all(&mut Stderr, format!("\x1b[{lines}{direction}").as_bytes()),
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        Self::move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        Self::move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        Self::move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        Self::move_cursor(n, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        io::Write::write_all(&mut Stderr, format!("{line}\n").as_bytes())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        io::Write::write_all(&mut Stderr, text.as_bytes())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
