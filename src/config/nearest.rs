//! The nearest valid name to one that is not.

/// The candidate that `word` was most likely meant to be; none if all are too far from it. Case
/// and the choice between `-` and `_` count for nothing.
pub(crate) fn of<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = normalised(word);
    candidates
        .into_iter()
        .map(|candidate| {
            let candidate_word = normalised(candidate);
            let distance = strsim::damerau_levenshtein(&word, &candidate_word);
            // A third of the letters may differ, and always one.
            let most = (candidate_word.chars().count().max(word.chars().count()) / 3).max(1);
            (distance, most, candidate)
        })
        .filter(|(distance, most, _)| distance <= most)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
}

fn normalised(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::of;

    const KEYS: [&str; 4] = ["lease", "drain", "unhandled", "unhandled_after"];

    #[test]
    fn slips_find_the_key_that_was_meant() {
        for (word, meant) in [
            ("laese", "lease"),
            ("leas", "lease"),
            ("Drain", "drain"),
            ("unhandled-after", "unhandled_after"),
            ("unhandeld", "unhandled"),
        ] {
            assert_eq!(of(word, KEYS), Some(meant), "{word}");
        }
    }

    #[test]
    fn another_word_altogether_finds_nothing() {
        assert_eq!(of("colour", KEYS), None);
        assert_eq!(of("", KEYS), None);
    }
}
