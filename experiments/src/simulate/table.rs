//! What a simulation found: counts per pair in each cell, and ratios between modes over the seeds.

use super::study::{AS_TOLD, About, FAIRNESS, Guest, OF_OBJECTS, Report, Row, Run, cells, of_cell, value};
use super::tiers;
use crate::experiment::{Series, pairs};
use crate::failure::Failure;
use crate::harness::manifest::Manifest;
use crate::harness::row::Status;
use crate::harness::task::Task;
use crate::report::document::{Block, Document, Figure, Table};
use crate::report::figure::lines::{Lines, Part, Point, lines};
use crate::report::number;
use crate::report::parts::{self, Compared};
use perseq_statistics::{Paired, median};
use std::collections::{BTreeMap, BTreeSet};

/// The counts of the table, by their names in rows, with its words.
const COUNTS: &[(&str, &str)] = &[
    ("accesses", "loads and stores"),
    ("l1_misses", "L1 misses"),
    ("l2_misses", "L2 misses"),
    ("llc_misses", "last-level misses"),
    ("modified_transfers_in_group", "modified lines, same last level"),
    ("modified_transfers_in_node", "modified lines, other last level"),
    ("clean_transfers_in_group", "unmodified lines, same last level"),
    ("clean_transfers_in_node", "unmodified lines, other last level"),
    ("upgrades", "upgrades"),
    ("invalidations", "invalidations"),
    ("dtlb_misses", "dTLB misses"),
    ("system_calls", "system calls"),
    (FAIRNESS, "fairness (Jain's index, 1: equal)"),
    ("rss_after_release_bytes", "resident after release (bytes)"),
    ("cached_bytes", "in caches (bytes)"),
    ("stranded_bytes", "in caches out of reach (bytes)"),
    ("caches_touched", "caches that were used"),
    ("reuse_distance_p25_lines", "reuse distance, quartile (lines)"),
    ("reuse_distance_p50_lines", "reuse distance, median (lines)"),
    ("reuse_distance_p75_lines", "reuse distance, last quartile"),
    ("reuse_beyond_l1_share", "reuse from beyond the L1 (share)"),
    ("reuse_beyond_l2_share", "reuse from beyond the L2 (share)"),
    ("reuse_never_share", "objects new to their CPU (share)"),
    ("touchers_per_object", "CPUs between two owners"),
];

/// The counts of the table that every cell has, and a line for each that has no value.
fn always(count: &str) -> bool {
    count == FAIRNESS || !as_it_is(count)
}

/// The counts that rows have under these very names, and not for each pair.
fn as_it_is(count: &str) -> bool {
    AS_TOLD.contains(&count) || OF_OBJECTS.contains(&count)
}

/// Digits behind the point: none of bytes, caches and lines.
fn decimals(count: &str) -> usize {
    if always(count) || count.ends_with("_share") || count.ends_with("_per_object") { 4 } else { 0 }
}

/// One count in one cell on one subject.
struct Entry<'a> {
    words: &'static str,
    subject: &'a str,
    /// Its median, and its ratio to the baseline in words. None: no sample counts.
    found: Option<(String, String)>,
}

/// Every count on every subject, of one cell.
fn entries<'a>(rows: &[Row], about: &'a About, cell: &str) -> Vec<Entry<'a>> {
    let (subjects, baseline) = (about.subjects(), about.baseline_of(&of_cell(rows, cell)));
    let mut entries = Vec::new();
    for (count, words) in COUNTS {
        let base = series(rows, cell, baseline, count);
        let told = |subject: &&str| !series(rows, cell, subject, count).is_empty();
        if !always(count) && !subjects.iter().any(told) {
            continue;
        }
        for subject in &subjects {
            let own = series(rows, cell, subject, count);
            let ratio = if *subject == baseline { String::new() } else { ratio(&pairs(&base, &own)) };
            let mut values: Vec<_> = own.into_values().map(|(_, value)| value).collect();
            let decimals = decimals(count);
            let found = (!values.is_empty()).then(|| (format!("{:.decimals$}", median(&mut values)), ratio));
            entries.push(Entry { words, subject, found });
        }
    }
    entries
}

/// A count per pair of one subject in one cell, by start.
fn series(rows: &[Row], cell: &str, subject: &str, count: &str) -> Series {
    let metric = if as_it_is(count) { count.to_owned() } else { format!("{count}_per_pair") };
    let own = rows.iter().filter(|row| row.planned.cell_id == cell && row.planned.task.subject() == subject);
    own.filter_map(|row| Some((row.planned.block, (row.planned.task.layout(), value(row, &metric)?)))).collect()
}

/// What stands above everything, a sentence to a line.
fn head(rows: &[Row], about: &About) -> [String; 3] {
    let through =
        if about.preloaded.is_empty() { "its fast path inlined" } else { "preloaded, through malloc and free" };
    let baselines: BTreeSet<_> = cells(rows).into_iter().map(|cell| about.baseline_of(&of_cell(rows, cell))).collect();
    let others = baselines.into_iter().filter(|other| *other != about.baseline());
    let others: String = others.map(|other| format!(", or where a cell lacks it to {other},")).collect();
    [
        "SIMULATED: counts of a model of caches, per pair of an allocation and a free. No time, no hardware.".into(),
        format!("{}; {}.", about.machine.words(), about.emulator),
        format!(
            "Each {through}. Medians over {} starts; ratios to {}{others} with their 95 % intervals, over the paired starts.",
            about.seeds,
            about.baseline()
        ),
    ]
}

/// What is told of parts, by misses of the last private level.
fn compared<T>(run: &Run, told: impl Fn(&Manifest<About>, &Compared<Guest, Report>) -> T) -> T {
    let value = |row: &Row| value(row, "l2_misses_per_pair");
    let baseline = |rows: &[&Row]| run.manifest.about.baseline_of(rows).to_owned();
    told(&run.manifest, &Compared { rows: &run.rows, value: &value, baseline: &baseline })
}

fn failures(rows: &[Row]) -> impl Iterator<Item = String> + '_ {
    rows.iter().filter(|row| row.status != Status::Ok).map(|row| {
        let reason = row.reason.as_deref().unwrap_or("no reason");
        format!("{} {}: {reason}", row.planned.sample_id, row.status.word())
    })
}

/// The report in text.
pub fn text(run: &Run) -> String {
    let (rows, about) = (&run.rows, &run.manifest.about);
    let mut text = head(rows, about).map(|line| line + "\n").concat();
    text += &compared(run, parts::text);
    for cell in cells(rows) {
        text += &format!("\n{cell}\n");
        let mut last = "";
        for Entry { words, subject, found } in entries(rows, about, cell) {
            let first = if words == last { "" } else { words };
            last = words;
            let found = found.map_or("no sample counts".into(), |(middle, ratio)| {
                let ratio = if ratio.is_empty() { ratio } else { format!("  {ratio}") };
                format!("{:>12}{ratio}", middle)
            });
            text += &format!("  {first:<34}{subject:<16}{found}\n");
        }
    }
    text += &tiers::text(rows, about);
    failures(rows).for_each(|line| text += &format!("\n{line}\n"));
    text
}

/// The report as a document: figures first, then what they are drawn from.
pub fn document(run: &Run) -> Result<Document, Failure> {
    let (rows, about) = (&run.rows, &run.manifest.about);
    let [notice, machine, how] = head(rows, about);
    let mut blocks = vec![Block::Notice(notice)];
    blocks.extend(parts::notice(&run.manifest).map(Block::Notice));
    blocks.extend([Block::Paragraph(machine), Block::Paragraph(how), Block::Contents]);
    let figures = figures(rows, about)?;
    if !figures.is_empty() {
        blocks.push(Block::Heading(2, "Against threads for each CPU".into()));
    }
    blocks.extend(figures.into_iter().map(Block::Figure));
    blocks.extend(tiers::blocks(rows, about));
    blocks.push(Block::Heading(2, "Every count".into()));
    for cell in cells(rows) {
        let row = |entry: Entry| {
            let (middle, ratio) = entry.found.unwrap_or((String::new(), "no sample counts".into()));
            vec![entry.words.to_owned(), entry.subject.to_owned(), middle, ratio]
        };
        blocks.push(Block::Table(Table {
            caption: format!("`{cell}`"),
            header: vec!["per pair", "on", "median", "ratio, 95 % interval"],
            text_columns: 2,
            rows: entries(rows, about, cell).into_iter().map(row).collect(),
        }));
    }
    blocks.extend(compared(run, parts::blocks));
    let failures: Vec<_> = failures(rows).collect();
    if !failures.is_empty() {
        blocks.extend([Block::Heading(2, "Samples that do not count".into()), Block::List(failures)]);
    }
    Ok(Document { title: format!("Simulated: {}", about.machine.words()), blocks })
}

/// The counts that figures show; the last where there are several groups.
const SHOWN: [&str; 4] = ["l2_misses", "modified_transfers_in_group", "dtlb_misses", "modified_transfers_in_node"];
/// What they are drawn against.
const ACROSS: &str = "threads_per_cpu";

/// Jain's index of half of the threads at work and the others not at all: where all are to do the same work, counts of less
/// say nothing about so many threads.
const LEAST_FAIRNESS: f64 = 0.5;
/// The workload whose threads all do the same.
const SAME_WORK: &str = "oversubscription";

/// Whether so few threads got on in a cell that its counts are no answer.
fn is_unequal(rows: &[Row], cell: &str, subject: &str) -> bool {
    let same = rows.iter().any(|row| row.planned.cell_id == cell && row.planned.task.question.workload == SAME_WORK);
    let mut found: Vec<_> = series(rows, cell, subject, FAIRNESS).into_values().map(|(_, value)| value).collect();
    same && !found.is_empty() && median(&mut found) < LEAST_FAIRNESS
}

/// For each experiment and rule that was run at several numbers of threads, a panel for each count.
fn figures(rows: &[Row], about: &About) -> Result<Vec<Figure>, Failure> {
    let names = about.subjects();
    // Cells that differ in the number of threads alone, under the name that they share.
    let mut groups: BTreeMap<String, BTreeMap<u64, &str>> = BTreeMap::new();
    for row in rows {
        let (cell, question) = (row.planned.cell_id.as_str(), &row.planned.task.question);
        if let Some(threads) = question.params.get(ACROSS) {
            let part = format!("{ACROSS}={threads}");
            let shared: Vec<_> = cell.split('/').filter(|name| *name != part).collect();
            groups.entry(shared.join("/")).or_default().insert(*threads, cell);
        }
    }
    let mut figures = Vec::new();
    for (group, cells) in groups.into_iter().filter(|(_, cells)| cells.len() > 1) {
        let part = |count: &&str| {
            let words = COUNTS.iter().find(|(name, _)| name == count).map_or(*count, |(_, words)| words);
            let line = |name: &&str| -> Vec<Point> {
                let equal = |(_, cell): &(&u64, &&str)| !is_unequal(rows, cell, name);
                let at = |(threads, cell): (&u64, &&str)| {
                    let values: Vec<_> =
                        series(rows, cell, name, count).into_values().map(|(_, value)| value).collect();
                    (!values.is_empty()).then_some(Point { x: *threads as f64, values, mean: None, late: 0 })
                };
                cells.iter().filter(equal).filter_map(at).collect()
            };
            let title = format!("{words} per pair, simulated");
            Part { key: (*count).to_owned(), title, lines: names.iter().map(line).collect() }
        };
        let unequal = names.iter().flat_map(|name| {
            let of = cells.iter().filter(|(_, cell)| is_unequal(rows, cell, name));
            of.map(move |(threads, _)| format!("{name} at {threads}"))
        });
        let unequal: Vec<_> = unequal.collect();
        let unequal = if unequal.is_empty() {
            String::new()
        } else {
            format!(" Not drawn, since few of the threads got on in the time: {}.", unequal.join(", "))
        };
        figures.extend(lines(&Lines {
            name: group.to_lowercase().replace(['/', '='], "-"),
            caption: format!(
                "`{group}`, simulated: {}. Large marks: medians; dots: every start, n = {}.{unequal}",
                about.machine.words(),
                about.seeds,
            ),
            header: ["count", "subject", ACROSS, "per_pair"],
            across: "threads for each CPU",
            unit: "events",
            log: false,
            shared: false,
            names: names.clone(),
            parts: SHOWN[..if about.machine.llc_groups > 1 { 4 } else { 3 }].iter().map(part).collect(),
        })?);
    }
    Ok(figures)
}

/// With its interval. Starts in which nothing was counted are not left out: that would choose them by their outcome.
fn ratio(pairs: &[(u64, f64, f64)]) -> String {
    let Some(paired) = Paired::in_layouts(pairs) else {
        let zeros = pairs.iter().filter(|(_, base, own)| *base <= 0.0 || *own <= 0.0).count();
        return format!("no ratio: 0 in {zeros} of {} pairs", pairs.len());
    };
    paired.t().map_or_else(String::new, |ratio| {
        let [middle, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number::ratio);
        format!("{middle} [{low} to {high}]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_ran_the_same_copy_are_one_witness_and_a_count_of_0_has_no_ratio() {
        // One copy has half of the misses and the other as many: two witnesses, who do not agree.
        let pairs: Vec<_> = (0..10).map(|seed| (seed % 2, 1.0, [0.5, 1.0][seed as usize % 2])).collect();
        assert!(ratio(&pairs).starts_with("0.707 [0.00865 to 57."), "{}", ratio(&pairs));
        let mut none = pairs;
        none[3].2 = 0.0;
        assert_eq!(ratio(&none), "no ratio: 0 in 1 of 10 pairs");
    }
}
