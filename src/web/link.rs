//! Addresses of pages, within the prefix, with what they are asked for.

/// A path with these parameters; empty ones are left out.
pub(super) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// The page of an entry's life.
pub(super) fn entry(stream: &str, id: &str) -> String {
    link("/entry", &[("stream", stream), ("id", id)])
}

/// A search.
pub(super) fn find(query: &str) -> String {
    link("/find", &[("q", query)])
}
