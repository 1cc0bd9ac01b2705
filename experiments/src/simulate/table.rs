//! What a simulation found: counts per pair in each cell, and ratios between modes over the seeds.

use super::study::{About, Row, value};
use crate::harness::row::Status;
use crate::report::number;
use crate::statistics::{Paired, median};
use crate::subject::BASELINE;
use std::collections::{BTreeMap, BTreeSet};

/// The counts of the table, by their names in rows, with its words.
const COUNTS: &[(&str, &str)] = &[
    ("accesses", "loads and stores"),
    ("l1_misses", "L1 misses"),
    ("l2_misses", "L2 misses"),
    ("llc_misses", "last-level misses"),
    ("modified_transfers_in_group", "modified lines, same last level"),
    ("modified_transfers_in_node", "modified lines, other last level"),
    ("upgrades", "upgrades"),
    ("invalidations", "invalidations"),
    ("dtlb_misses", "dTLB misses"),
    ("system_calls", "system calls"),
];

/// The report in text.
pub fn text(rows: &[Row], about: &About) -> String {
    let mut text = format!(
        "SIMULATED: counts of a model of caches, per pair of an allocation and a free. No time, no hardware.\n\
         {}; {}.\nMedians over {} starts; ratios to {BASELINE} with their 95 % intervals, over the paired starts.\n",
        about.machine.words(),
        about.emulator,
        about.seeds
    );
    let cells: BTreeSet<&str> = rows.iter().map(|row| row.planned.cell_id.as_str()).collect();
    for cell in cells {
        text += &format!("\n{cell}\n");
        for (count, words) in COUNTS {
            let metric = format!("{count}_per_pair");
            let of = |subject: &str| -> BTreeMap<u64, f64> {
                let own =
                    |row: &&Row| row.planned.cell_id == cell && row.planned.task.0.mode_requested.name() == subject;
                rows.iter().filter(own).filter_map(|row| Some((row.planned.block, value(row, &metric)?))).collect()
            };
            let base = of(BASELINE.name());
            for (index, mode) in about.modes.iter().enumerate() {
                let own = of(mode.name());
                let words = if index == 0 { words } else { "" };
                if own.is_empty() {
                    text += &format!("  {words:<34}{:<16} no sample counts\n", mode.name());
                    continue;
                }
                let pairs: Vec<_> = own.iter().filter_map(|(block, own)| Some((*base.get(block)?, *own))).collect();
                // A ratio of nothing is none.
                let pairs: Vec<_> = pairs.into_iter().filter(|(base, own)| *base > 0.0 && *own > 0.0).collect();
                let ratio = Paired::new(&pairs).and_then(|paired| paired.t()).filter(|_| *mode != BASELINE);
                let ratio = ratio.map_or_else(String::new, |ratio| {
                    let [middle, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number::ratio);
                    format!("  {middle} [{low} to {high}]")
                });
                let middle = median(&mut own.into_values().collect::<Vec<_>>());
                text += &format!("  {words:<34}{:<16}{:>12}{ratio}\n", mode.name(), format!("{middle:.4}"));
            }
        }
    }
    for row in rows.iter().filter(|row| row.status != Status::Ok) {
        let reason = row.reason.as_deref().unwrap_or("no reason");
        text += &format!("\n{} {}: {reason}\n", row.planned.sample_id, row.status.word());
    }
    text
}
