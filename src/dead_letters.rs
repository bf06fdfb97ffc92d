//! Dead letters: looking through them, giving them back to their group, deleting them.
//!
//! A [`DeadLetters`] knows the streams of one group. A [`Filter`] or a list of ids makes a [`Selection`] of it, which
//! ends at the newest letter of when it was made, so that what dies again while it is replayed is not replayed
//! again. However many letters there are and however large, only a few are in memory at once.
//!
//! ```no_run
//! # use streamhand::{Settings, dead_letters::{DeadLetters, Filter, Reason}};
//! # async fn example(settings: &Settings) -> streamhand::Result<()> {
//! let dead = DeadLetters::new(settings)?;
//! let timeouts = dead.select(Filter::new().reason(Reason::Failed).error("timed out")?).await?;
//! let mut letters = timeouts.letters();
//! while let Some(letter) = letters.next().await? {
//!     println!("{} {:?}: {}", letter.id, letter.event_type, letter.error);
//! }
//! let run = timeouts.replay("alice@ops", None, |_| ()).await?;
//! println!("replayed {}", run.replayed);
//! # Ok(()) }
//! ```

mod as_json;
mod export;
mod filter;
mod groups;
mod left_out;
mod letter;
mod letters;
mod notes;
mod noting;
mod of_group;
mod reason;
mod runs;
mod selection;
mod undo;

pub use export::Exported;
pub use filter::Filter;
pub use groups::{Group, Groups};
pub use left_out::LeftOut;
pub use letter::{DeadLetter, WholeLetter};
pub use letters::Letters;
pub use notes::{EarlierError, Edit, LetterNotes, Remark};
pub use of_group::DeadLetters;
pub use reason::{BuriedFor, Reason};
pub use runs::{BegunRun, Run, RunPlan, RunStanding};
pub use selection::{Counted, PurgedLetters, Replayed, Selection, Stats, Tally};
pub use undo::{PurgeRun, Undone};
