//! When each prediction was first written down, and what was changed in it since, from the history of `definitions/`.
//!
//! The build script walks the history and keeps every text that a prediction ever had; a run records what is known of its
//! own predictions, so that its report needs no history. A prediction is the same as an earlier one if it is about the same
//! quantity: metric, mode, rule and cells. Changed words or bounds are an amendment, and so is a narrower choice of cells.
//! What is no longer there in any such sense was withdrawn.

mod split;

use crate::checksum;
use serde::{Deserialize, Serialize};
use toml::Table;

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
    /// What it expected, in words. Empty in runs before 2026-11-27.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bounds: String,
}

/// A prediction that was made once and is made no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Its last text.
    pub text: String,
    /// Where each of its texts first appeared.
    pub versions: Vec<Version>,
}

/// Every text that each prediction of a definition had, the first one first. Empty: the history was not there when perseq
/// was built, or the prediction is not in it yet.
pub fn of(file: &str, text: &str) -> Vec<Vec<Version>> {
    traced(file, text, HISTORY)
}

/// The predictions of a definition that are no longer in it, in the order in which they were written.
pub fn withdrawn(file: &str, text: &str) -> Vec<Withdrawn> {
    without_heir(file, text, HISTORY)
}

type Entry<'a> = (&'a str, &'a str, &'a str, &'a str);

fn version((_, commit, date, text): &Entry) -> Version {
    let (commit, date, sha256) = ((*commit).into(), (*date).into(), checksum::of(text.as_bytes()));
    Version { commit, date, sha256, bounds: bounds(text) }
}

fn bounds(prediction: &str) -> String {
    let table: Table = prediction.parse().unwrap_or_default();
    let bound = |(name, words): (&str, &str)| Some(format!("{words} {}", table.get(name)?));
    let bounds: Vec<_> = [("at_least", "at least"), ("at_most", "at most")].into_iter().filter_map(bound).collect();
    bounds.join(", ")
}

fn traced(file: &str, text: &str, history: &[Entry]) -> Vec<Vec<Version>> {
    let now: Vec<_> = split::predictions(text).iter().map(|prediction| about(prediction)).collect();
    let versions = |own: &Table| {
        let earlier = history.iter().filter(|(name, ..)| *name == file);
        earlier.filter(|(.., text)| precedes(&about(text), own, &now)).map(version).collect()
    };
    now.iter().map(versions).collect()
}

fn without_heir(file: &str, text: &str, history: &[Entry]) -> Vec<Withdrawn> {
    let now: Vec<_> = split::predictions(text).iter().map(|prediction| about(prediction)).collect();
    let mut found: Vec<(Table, Withdrawn)> = Vec::new();
    for entry @ (name, .., text) in history {
        let about = about(text);
        if *name != file || now.iter().any(|own| precedes(&about, own, &now)) {
            continue;
        }
        match found.iter_mut().find(|(other, _)| *other == about) {
            Some((_, withdrawn)) => {
                withdrawn.text = (*text).into();
                withdrawn.versions.push(version(entry));
            }
            None => found.push((about, Withdrawn { text: (*text).into(), versions: vec![version(entry)] })),
        }
    }
    found.into_iter().map(|(_, withdrawn)| withdrawn).collect()
}

/// Whether `own`, one of the predictions of `now`, is what became of the one about `earlier`: it is about the same, or, if
/// none of them is, about a part of its cells.
fn precedes(earlier: &Table, own: &Table, now: &[Table]) -> bool {
    earlier == own || (!now.contains(earlier) && narrower(own, earlier))
}

/// Whether `own` is about the same quantity in fewer cells.
fn narrower(own: &Table, earlier: &Table) -> bool {
    let cells = |table: &Table| table.get("at").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let (fewer, more) = (cells(own), cells(earlier));
    let rest = |table: &Table| {
        let mut table = table.clone();
        table.remove("at");
        table
    };
    rest(own) == rest(earlier) && more.iter().all(|(name, value)| fewer.get(name) == Some(value))
}

/// What a prediction is about: the lines that do not say what is expected.
fn about(prediction: &str) -> Table {
    const LINES: [&str; 5] = ["metric", "mode", "rule", "at", "of"];
    let mut table: Table = prediction.parse().unwrap_or_default();
    table.retain(|name, _| LINES.contains(&name));
    table
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
        assert_eq!(about(&found[0]), "metric = \"m\"\nat = { r = 1 }".parse().unwrap());
        assert_eq!(about(&found[0]), about(&found[0].replace("at_least = 1.0", "at_least = 0.9")));
        assert_ne!(about(&found[0]), about(&found[1]));
        assert_eq!(of("no-such-file.toml", TEXT), vec![Vec::new(), Vec::new()]);
        assert_eq!(bounds(&format!("{}\nat_most = 1.2", found[0])), bounds("at_most = 1.2\nat_least = 1.0"));
        assert_eq!(bounds(&found[0]), "at least 1.0");
    }

    #[test]
    fn a_narrower_choice_of_cells_is_an_amendment_and_what_is_gone_was_withdrawn() {
        let old = |metric: &str, at: &str| format!("text = \"{metric}\"\nmetric = \"{metric}\"\n{at}at_least = 1.0");
        let texts = [
            old("m", ""),                    // narrowed since
            old("m", "at = { r = 2 }\n"),    // other cells than there are now
            old("n", ""),                    // as it is now
            old("n", "at = { r = 1 }\n"),    // fewer cells than now
            old("gone", "at = { r = 1 }\n"), // and below with another bound
            old("gone", "at = { r = 1 }\n").replace("1.0", "2.0"),
        ];
        let history: Vec<Entry> = texts.iter().map(|text| ("x.toml", "c", "d", text.as_str())).collect();
        let commits =
            |versions: &Vec<Version>| versions.iter().map(|version| version.sha256.clone()).collect::<Vec<_>>();
        let sum = |number: usize| checksum::of(texts[number].as_bytes());
        let found: Vec<_> = traced("x.toml", TEXT, &history).iter().map(commits).collect();
        assert_eq!(found, [vec![sum(0)], vec![sum(2)]]);
        let gone: Vec<_> =
            without_heir("x.toml", TEXT, &history).into_iter().map(|gone| (gone.text, gone.versions.len())).collect();
        assert_eq!(gone, [(texts[1].clone(), 1), (texts[3].clone(), 1), (texts[5].clone(), 2)]);
        assert!(without_heir("other.toml", TEXT, &history).is_empty());
    }
}
