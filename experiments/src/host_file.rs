//! Files of `/proc` and `/sys`: what they say, or why that is not known.

use crate::known::Known;

/// The trimmed contents of a file of `/proc` or `/sys`.
pub fn read(path: &str) -> Known<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Known::is(text.trim_end().to_owned()),
        Err(error) => Known::missing(format!("{path}: {error}")),
    }
}

/// The choice in brackets, as in `always [madvise] never`.
pub fn chosen(path: &str) -> Known<String> {
    read(path).map(|text| {
        let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        chosen.map_or(text.clone(), |(chosen, _)| chosen.to_owned())
    })
}
