//! What a simulation found: counts per pair in each cell, and ratios between modes over the seeds.

use super::study::{About, Row, value};
use crate::experiment::{Series, pairs};
use crate::harness::row::Status;
use crate::report::number;
use crate::statistics::{Paired, median};
use crate::subject::BASELINE;
use std::collections::BTreeSet;

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
            let of = |subject: &str| -> Series {
                let own =
                    |row: &&Row| row.planned.cell_id == cell && row.planned.task.0.mode_requested.name() == subject;
                let value = |row: &Row| Some((row.planned.block, (row.planned.task.0.layout, value(row, &metric)?)));
                rows.iter().filter(own).filter_map(value).collect()
            };
            let base = of(BASELINE.name());
            for (index, mode) in about.modes.iter().enumerate() {
                let own = of(mode.name());
                let words = if index == 0 { words } else { "" };
                if own.is_empty() {
                    text += &format!("  {words:<34}{:<16} no sample counts\n", mode.name());
                    continue;
                }
                let ratio = if *mode == BASELINE { String::new() } else { ratio(&pairs(&base, &own)) };
                let middle = median(&mut own.into_values().map(|(_, value)| value).collect::<Vec<_>>());
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

/// With its interval. Starts in which nothing was counted are not left out: that would choose them by their outcome.
fn ratio(pairs: &[(u64, f64, f64)]) -> String {
    let Some(paired) = Paired::in_layouts(pairs) else {
        let zeros = pairs.iter().filter(|(_, base, own)| *base <= 0.0 || *own <= 0.0).count();
        return format!("  no ratio: 0 in {zeros} of {} pairs", pairs.len());
    };
    paired.t().map_or_else(String::new, |ratio| {
        let [middle, low, high] = [ratio.ratio, ratio.low, ratio.high].map(number::ratio);
        format!("  {middle} [{low} to {high}]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_ran_the_same_copy_are_one_witness_and_a_count_of_0_has_no_ratio() {
        // One copy has half of the misses and the other as many: two witnesses, who do not agree.
        let pairs: Vec<_> = (0..10).map(|seed| (seed % 2, 1.0, [0.5, 1.0][seed as usize % 2])).collect();
        assert!(ratio(&pairs).starts_with("  0.707 [0.00865 to 57."), "{}", ratio(&pairs));
        let mut none = pairs;
        none[3].2 = 0.0;
        assert_eq!(ratio(&none), "  no ratio: 0 in 1 of 10 pairs");
    }
}
