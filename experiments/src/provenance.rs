//! When each prediction was first written down, and what was changed in it since, from the history of `definitions/`.
//!
//! The build script walks the history and keeps every text that a prediction ever had; a run records what is known of its
//! own predictions, so that its report needs no history. A prediction is the same as an earlier one if it is about the same
//! quantity: metric, mode, rule and cells. Changed words or bounds are an amendment.

mod split;

use crate::checksum;
use serde::{Deserialize, Serialize};

/// File, commit, day and text of every prediction, oldest first.
const HISTORY: &[(&str, &str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/predictions.rs"));

/// One text of a prediction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The commit it first appeared in.
    pub commit: String,
    /// The day of that commit.
    pub date: String,
    /// SHA-256 of its text.
    pub sha256: String,
}

/// Every text that each prediction of a definition had, the first one first. Empty: the history was not there when perseq
/// was built, or the prediction is not in it yet.
pub fn of(file: &str, text: &str) -> Vec<Vec<Version>> {
    let versions = |prediction: &String| {
        let same = HISTORY.iter().filter(|(name, _, _, earlier)| *name == file && about(earlier) == about(prediction));
        let version = |(_, commit, date, text): &(&str, &str, &str, &str)| Version {
            commit: (*commit).into(),
            date: (*date).into(),
            sha256: checksum::of(text.as_bytes()),
        };
        same.map(version).collect()
    };
    split::predictions(text).iter().map(versions).collect()
}

/// What a prediction is about: the lines that do not say what is expected.
fn about(prediction: &str) -> Vec<&str> {
    const LINES: [&str; 5] = ["metric", "mode", "rule", "at", "of"];
    let names = |line: &&str| line.split_once('=').is_some_and(|(name, _)| LINES.contains(&name.trim()));
    prediction.lines().filter(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "id = \"X\"\n\n[[predictions]]\ntext = \"a\"\nmetric = \"m\"\nat = { r = 1 }\nat_least = 1.0\n\n\
                        [[predictions]]\nmetric = \"n\"\nat_least = 2.0\n\n[[curves]]\nmetric = \"m\"\n";

    #[test]
    fn a_prediction_is_known_by_what_it_is_about() {
        let found = split::predictions(TEXT);
        assert_eq!(found.len(), 2);
        assert_eq!(about(&found[0]), ["metric = \"m\"", "at = { r = 1 }"]);
        assert_eq!(about(&found[0]), about(&found[0].replace("at_least = 1.0", "at_least = 0.9")));
        assert_ne!(about(&found[0]), about(&found[1]));
        assert_eq!(of("no-such-file.toml", TEXT), vec![Vec::new(), Vec::new()]);
    }
}
