//! Finding the one letter that a command is about.

use super::CommandError;
use super::select::stream_of_ids;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::names::shown;

/// The letter of this id, or else the one of the entry or the event that has it; and its stream.
pub(super) async fn find(
    dead: &DeadLetters,
    stream: Option<&str>,
    id: &str,
) -> Result<(String, DeadLetter), CommandError> {
    let stream = stream_of_ids(dead, stream)?;
    let mut found = dead.find(&stream, id).await?;
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok((stream, only)),
        (_, None) => Err(CommandError::failed(format!(
            "no dead letter of {stream} in the group {} has the id {}, and none is of an entry or an event that has \
             it: it was replayed or purged, or never buried",
            dead.group(),
            shown(id)
        ))),
        (several, Some(last)) => {
            found.push(last);
            let ids: Vec<String> = found.iter().map(|letter| letter.id.to_string()).collect();
            Err(CommandError::failed(format!(
                "{several} dead letters are of {}: show one of {}",
                shown(id),
                ids.join(", ")
            )))
        }
    }
}
