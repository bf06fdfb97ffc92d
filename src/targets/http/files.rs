//! What files hold that settings name.

use std::path::Path;

/// What a file holds, without the newline at its end.
pub(super) fn text_of(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
