//! Where misses come from: the counts of programs by where the data lay, in the allocator's metadata or elsewhere.

use super::study::{About, Report, Row, TIER_COUNTS, cells, of_cell, of_tier};
use crate::harness::task::Task;
use crate::marks::TIERS;
use crate::report::document::{Block, Table};
use perseq_statistics::median;

/// Words for each of [`TIER_COUNTS`].
const HEADER: [&str; 6] = ["loads and stores", "L1 misses", "L2 misses", "modified lines", "upgrades", "dTLB misses"];

/// Words for each of [`TIERS`].
const WORDS: [&str; 6] =
    ["caches", "transfer caches", "spans, central lists", "page map", "page heap", "mode, class tables"];

const TITLE: &str = "Where the misses come from";
const ABOUT: &str = "Medians per pair, by where the data lay. The program's are its objects, stacks and statics, and the \
                     words that a thread keeps for the allocator. The kernel's are all of its own accesses.";

/// A tier or a class, as it is called in rows, and its words.
struct Part {
    name: &'static str,
    words: &'static str,
}

/// What a subject's counts fall into: tiers where it says what they are, and whatever programs did where it does not.
fn parts(told: bool) -> Vec<Part> {
    let program = Part { name: "program", words: "program" };
    let together = Part { name: "user", words: "program and allocator, not told apart" };
    let kernel = Part { name: "kernel", words: "kernel" };
    if told {
        let tiers = TIERS.iter().zip(WORDS).map(|(name, words)| Part { name, words });
        tiers.chain([program, kernel]).collect()
    } else {
        vec![together, kernel]
    }
}

/// A line of a table: the subject, what it is of, and the medians.
type Line = (String, &'static str, [Option<f64>; 6]);

/// The lines of one cell. None if no subject's tiers were told.
fn lines(rows: &[Row], about: &About, cell: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut any = false;
    for subject in about.subjects() {
        let own = of_cell(rows, cell).into_iter().filter(|row| row.planned.task.subject() == subject);
        let own: Vec<_> = own.filter_map(|row| row.counts()).collect();
        if own.is_empty() {
            continue;
        }
        let told = own.iter().all(|report| report.counted.tiers.is_some());
        any |= told;
        for part in parts(told) {
            let of = |count: &str| {
                let mut values: Vec<_> = own.iter().filter_map(|report| per_pair(report, part.name, count)).collect();
                (values.len() == own.len()).then(|| median(&mut values))
            };
            lines.push((subject.to_owned(), part.words, TIER_COUNTS.map(of)));
        }
    }
    if any { lines } else { Vec::new() }
}

/// A count per pair of a tier or a class.
fn per_pair(report: &Report, part: &str, count: &str) -> Option<f64> {
    let tier = report.counted.tiers.as_ref().and_then(|tiers| tiers.get(part));
    let counts = tier.or_else(|| report.counted.classes.get(part).map(|class| &class.total))?;
    Some(of_tier(counts, count) as f64 / report.pairs.max(1) as f64)
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.4}"))
}

/// In text, where tiers were told.
pub fn text(rows: &[Row], about: &About) -> String {
    let mut text = String::new();
    for name in cells(rows) {
        let lines = lines(rows, about, name);
        if lines.is_empty() {
            continue;
        }
        if text.is_empty() {
            text += &format!("\n{TITLE}\n{ABOUT}\n");
        }
        let header: String = HEADER.iter().map(|words| format!("{words:>17}")).collect();
        text += &format!("\n{name}\n  {:<16}{:<38}{header}\n", "", "");
        let mut last = String::new();
        for (subject, words, values) in lines {
            let first = if subject == last { "" } else { &subject };
            let values: String = values.map(|value| format!("{:>17}", cell(value))).concat();
            text += &format!("  {first:<16}{words:<38}{values}\n");
            last = subject;
        }
    }
    text
}

/// As tables of a document.
pub fn blocks(rows: &[Row], about: &About) -> Vec<Block> {
    let mut blocks = Vec::new();
    for name in cells(rows) {
        let row = |(subject, words, values): Line| {
            [subject, words.to_owned()].into_iter().chain(values.map(cell)).collect::<Vec<_>>()
        };
        let rows: Vec<_> = lines(rows, about, name).into_iter().map(row).collect();
        if rows.is_empty() {
            continue;
        }
        if blocks.is_empty() {
            blocks = vec![Block::Heading(2, TITLE.into()), Block::Paragraph(ABOUT.into())];
        }
        let header = ["on", "data of"].into_iter().chain(HEADER).collect();
        blocks.push(Block::Table(Table { caption: format!("`{name}`, per pair"), header, text_columns: 2, rows }));
    }
    blocks
}
