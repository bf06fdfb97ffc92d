//! What a stream may be called.

/// Refuses what can't be the name of a stream here.
pub(crate) fn check_stream(stream: &str) -> crate::Result<()> {
    stream_name(stream).map_err(|why| {
        crate::Error::new(
            crate::ErrorKind::Invalid,
            format!("the stream name {stream:?} {why}"),
        )
    })
}

/// Refuses what cannot be the name of a stream here, with the end of a sentence about it.
pub(crate) fn stream_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(format!("has the control character {control:?}"));
    }
    let braces: String = name.chars().filter(|c| matches!(c, '{' | '}')).collect();
    match braces.as_str() {
        "" => Ok(()),
        "{}" if !name.contains("{}") => Ok(()),
        "{}" => Err("has an empty tag; write something between the braces, or none".to_owned()),
        _ => Err(
            "has braces that are not one tag; write none, or one pair as in \"{shop}.orders\""
                .to_owned(),
        ),
    }
}
