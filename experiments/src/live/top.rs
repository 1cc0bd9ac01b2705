//! The screen of `perseq top`: what is held and where, what happens in a second, and the classes and caches that have
//! most.

use super::numbers::{Number, Numbers, value};
use super::view::View;
use crate::report::number;
use std::fmt::Write;

/// Numbers of a class or cache that are misses: operations that came to a slow path.
const MISSES: [&str; 4] = ["underflows", "overflows", "uncached_allocs", "uncached_frees"];
/// Objects that went between tiers.
const MOVED: [&str; 2] = ["refilled_objects", "flushed_objects"];

/// The screen for `now`. Rates are since `before`, if there is a view before. Tables have `rows` rows at most.
pub fn screen(now: &View, before: Option<&View>, rows: usize) -> String {
    let total = &now.snapshot.total;
    let is = |name: &str| bytes(value(total, name));
    let mut text = format!(
        "process {} ({}), mode {} ({}), perseq {} in {}\n",
        now.process, now.program, now.about.active, now.about.reason, now.about.perseq, now.file
    );
    _ = write!(
        text,
        "held {} of {} mapped, at most {}; gone back {}\n\
         live small {}, large {}; caches {} of {}, transfer {}, spans {} free and {} rest, free pages {}, own {}\n\
         huge pages: {} full, {} in part, {} free; of these {} resident in part\n",
        is("held_bytes"),
        is("committed_bytes"),
        is("peak_held_bytes"),
        is("returned_bytes"),
        is("live_small_bytes"),
        is("live_large_bytes"),
        is("cached_bytes"),
        is("capacity_bytes"),
        is("transfer_bytes"),
        is("central_bytes"),
        is("span_rest_bytes"),
        is("free_page_bytes"),
        is("metadata_bytes"),
        value(total, "huge_pages_fully_used"),
        value(total, "huge_pages_partly_used"),
        value(total, "huge_pages_free"),
        value(total, "huge_pages_released_in_part"),
    );
    let rates = before.map(|before| Rates { before, seconds: seconds(before, now) });
    let all = |names: &[&str]| match &rates {
        Some(rates) => rates.text(Some(&rates.before.snapshot.total), total, names),
        None => "-".into(),
    };
    _ = writeln!(
        text,
        "each second: {} misses, {} objects moved, {} central visits, {} index changes, {} restarts",
        all(&MISSES),
        all(&MOVED),
        all(&["central_visits"]),
        all(&["index_changes"]),
        all(&["restarts"]),
    );
    classes(&mut text, now, rates.as_ref(), rows);
    caches(&mut text, now, rates.as_ref(), rows);
    text
}

/// What changed since a view.
struct Rates<'a> {
    before: &'a View,
    seconds: f64,
}

impl Rates<'_> {
    /// Of these numbers together. What is new began with 0.
    fn text(&self, before: Option<&[Number]>, now: &[Number], names: &[&str]) -> String {
        let sum = |numbers: &[Number]| names.iter().map(|name| value(numbers, name)).sum::<u64>();
        let change = sum(now).saturating_sub(before.map_or(0, sum));
        count(change as f64 / self.seconds)
    }
}

fn seconds(before: &View, now: &View) -> f64 {
    (now.unix_ms.saturating_sub(before.unix_ms)).max(1) as f64 / 1000.0
}

fn classes(text: &mut String, now: &View, rates: Option<&Rates>, rows: usize) {
    _ = writeln!(
        text,
        "\n{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5} {:>9} {:>9}",
        "class", "live", "bytes", "cached", "transfer", "free", "spans", "used", "misses/s", "moved/s"
    );
    let mut classes: Vec<&Numbers> = now.snapshot.classes.iter().collect();
    let spans = |class: &Numbers| value(class, "spans") * value(class, "span_size");
    classes.sort_by_key(|class| std::cmp::Reverse(spans(class)));
    for class in classes.iter().take(rows) {
        let (size, live) = (value(class, "size"), value(class, "live_objects"));
        let same = |other: &&Numbers| value(other, "size") == size;
        let rate = |names: &[&str]| match rates {
            Some(rates) => {
                let before = rates.before.snapshot.classes.iter().find(same);
                rates.text(before.map(Vec::as_slice), class, names)
            }
            None => "-".into(),
        };
        let used = match spans(class) {
            0 => "-".into(),
            all => format!("{:.0}%", (live * size) as f64 * 100.0 / all as f64),
        };
        _ = writeln!(
            text,
            "{size:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {used:>5} {:>9} {:>9}",
            count(live as f64),
            bytes(live * size),
            count(value(class, "cached_objects") as f64),
            count(value(class, "transfer_objects") as f64),
            count((value(class, "central_objects") + value(class, "quarantined_objects")) as f64),
            count(value(class, "spans") as f64),
            rate(&MISSES),
            rate(&MOVED),
        );
    }
    rest(text, classes.len(), rows, "classes");
}

fn caches(text: &mut String, now: &View, rates: Option<&Rates>, rows: usize) {
    if now.snapshot.caches.is_empty() {
        return;
    }
    _ = writeln!(
        text,
        "\n{:16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "cache", "objects", "bytes", "room", "misses/s", "moved/s", "arrive/s"
    );
    let mut caches: Vec<&(String, Numbers)> = now.snapshot.caches.iter().collect();
    caches.sort_by_key(|(_, numbers)| std::cmp::Reverse(value(numbers, "cached_bytes")));
    for (owner, numbers) in caches.iter().take(rows) {
        let before = rates.and_then(|rates| rates.before.snapshot.caches.iter().find(|(other, _)| other == owner));
        let rate = |names: &[&str]| match rates {
            Some(rates) => rates.text(before.map(|(_, numbers)| numbers.as_slice()), numbers, names),
            None => "-".into(),
        };
        _ = writeln!(
            text,
            "{owner:16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            count(value(numbers, "cached_objects") as f64),
            bytes(value(numbers, "cached_bytes")),
            bytes(value(numbers, "capacity_bytes")),
            rate(&MISSES),
            rate(&MOVED),
            rate(&["index_changes"]),
        );
    }
    rest(text, caches.len(), rows, "caches");
}

/// What a table left out.
fn rest(text: &mut String, all: usize, rows: usize, what: &str) {
    if all > rows {
        _ = writeln!(text, "and {} more {what}", all - rows);
    }
}

fn bytes(bytes: u64) -> String {
    number::bytes(bytes as f64)
}

/// A number, in four or five characters and perhaps a power of a thousand.
fn count(mut number: f64) -> String {
    const POWERS: [&str; 5] = ["", " k", " M", " G", " T"];
    let mut power = 0;
    // What would be rounded up to a step is one.
    while number >= 999.5 && power + 1 < POWERS.len() {
        number /= 1000.0;
        power += 1;
    }
    let digits = if power > 0 && number < 99.95 { 1 } else { 0 };
    format!("{number:.digits$}{}", POWERS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        for (number, text) in [(0.0, "0"), (7.4, "7"), (999.6, "1.0 k"), (1234.0, "1.2 k"), (2.5e6, "2.5 M")] {
            assert_eq!(count(number), text, "{number}");
        }
    }
}
