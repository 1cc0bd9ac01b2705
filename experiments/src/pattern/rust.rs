//! A Rust program as people write them, on the standard library's collections.

use super::object::{Random, Tally};
use super::setting::{Outcome, Setting};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// rust: makes a text, indexes its words, sorts, counts, and writes a report of it.
pub fn index(setting: &Setting) -> Outcome {
    const WORDS: usize = 20_000;
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    for _ in 0..setting.rounds(40) {
        let text: Vec<String> = (0..WORDS).map(|_| word(&mut random)).collect();

        // The hasher has no random key, so that every run does the same.
        let mut places: HashMap<String, Vec<u32>, BuildHasherDefault<DefaultHasher>> = HashMap::default();
        for (place, word) in text.iter().enumerate() {
            places.entry(word.clone()).or_default().push(place as u32);
        }
        let mut by_first: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for word in places.keys() {
            by_first.entry(word.chars().take(2).collect()).or_default().push(word);
        }
        let mut report = String::new();
        let mut found = 0;
        for (first, words) in &mut by_first {
            words.sort_unstable();
            writeln!(report, "{first}: {}", words.join(", ")).unwrap_or(());
            found += words.iter().map(|word| places[*word].len()).sum::<usize>();
        }
        let read_back: usize = report.lines().map(|line| line.split(", ").count()).sum();

        // Every word is in the index once for each of its places, and every distinct word is in the report.
        let sum_of_places: u64 = places.values().flatten().map(|place| u64::from(*place)).sum();
        let all = WORDS as u64;
        tally.wrote(all + all * (all - 1) / 2 + places.len() as u64);
        tally.read(found as u64 + sum_of_places + read_back as u64);
        // Strings of the text, of the index and of the prefixes, and the lists of places.
        tally.operations += all + 2 * places.len() as u64 + by_first.len() as u64;
    }
    tally.into()
}

/// A word of 3 to 24 letters, short ones often repeated.
fn word(random: &mut Random) -> String {
    let syllables = 1 + random.below(4) * random.below(3);
    (0..=syllables).map(|_| ["ba", "ne", "tor", "li", "sum", "ka", "ren", "do"][random.below(8)]).collect()
}
