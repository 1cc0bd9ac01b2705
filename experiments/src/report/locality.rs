//! The counts of the counter pass, held against each other as times are: per event and cell, block by block, with the
//! twin's interval and Holm's procedure over all of them. What may be claimed of caches comes from here.

use super::analysis::{Analysis, Ratio, compare};
use super::number;
use crate::counters::{self, Listed};
use crate::experiment::{self, Row, pairs, series};
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{MISSES_CHECK, Outcome};
use perseq_statistics::{Estimate, Paired, Side, holm};
use std::collections::BTreeMap;

/// Groups whose events say where data came from.
const GROUPS: [&str; 3] = ["caches", "transfers", "writes"];

/// One event in one cell: percpu against the baseline of that cell.
#[derive(Debug)]
pub struct Counted {
    /// The cell.
    pub cell: String,
    /// What percpu is held against in it.
    pub baseline: Subject,
    /// The event.
    pub event: String,
    /// What its count allows to be said.
    pub supports: String,
    /// Pairs.
    pub n: usize,
    /// Geometric mean of the ratios and its interval.
    pub ratio: Estimate,
    /// What may be said of it alone.
    pub side: Side,
    /// Whether it stands among all of them, by Holm's procedure.
    pub stands: bool,
}

impl Counted {
    /// In words.
    pub fn line(&self) -> String {
        let [ratio, low, high] = [self.ratio.ratio, self.ratio.low, self.ratio.high].map(number::ratio);
        let baseline = self.baseline;
        let to = if baseline == BASELINE { String::new() } else { format!(" to {baseline}") };
        format!("{}, `{}` ({}): {ratio} [{low}, {high}]{to}, n {}", self.cell, self.event, self.supports, self.n)
    }
}

/// What stands in the way of any sentence about caches.
pub fn obstacle(analysis: &Analysis) -> Option<String> {
    let about = &analysis.manifest.about;
    if !about.hardware_counters {
        return Some("no hardware counter can be opened on this host".into());
    }
    let counted = |group: &str| GROUPS.contains(&group);
    if !analysis.rows.iter().any(|row| row.planned.task.counter_group.as_deref().is_some_and(counted)) {
        return Some("no counter of caches or transfers was read in this run".into());
    }
    match about.validity.iter().find(|found| found.check == MISSES_CHECK) {
        Some(found) if found.status == Outcome::Ok => None,
        Some(found) => Some(format!("known misses are not counted as they are: {}", found.detail)),
        None => Some("it was not checked whether known misses are counted".into()),
    }
}

/// What came of all events in all cells.
#[derive(Debug)]
pub struct Compared {
    /// Those that were compared.
    pub counted: Vec<Counted>,
    /// Those that were counted in as many blocks and have no ratio: cell, event and reason.
    pub not_compared: Vec<String>,
}

/// Every event of the groups that was counted in `enough` blocks or more.
pub fn compared(analysis: &Analysis, enough: usize) -> Compared {
    let about = &analysis.manifest.about;
    held(&analysis.rows, &about.counter_catalogue, enough)
}

fn held(rows: &[Row], catalogue: &[Listed], enough: usize) -> Compared {
    let mut cells: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.planned.task.counter_group.is_some()) {
        cells.entry(&row.planned.cell_id).or_default().push(row);
    }
    let (mut found, mut not_compared) = (Vec::new(), Vec::new());
    for (cell, rows) in cells {
        let baseline = experiment::baseline(&rows);
        for event in catalogue.iter().filter(|listed| GROUPS.contains(&listed.group.as_str())) {
            let metric = counters::metric(&event.name);
            let values =
                |subject, twin| series(rows.iter().copied(), subject, twin, |row| experiment::measured(row, &metric));
            let percpu = values(TWINNED, false);
            let pairs_of = pairs(&values(baseline, false), &percpu);
            if pairs_of.len() < enough {
                continue;
            }
            let twin = Paired::in_layouts(&pairs(&percpu, &values(TWINNED, true))).and_then(|paired| paired.t());
            match compare(&pairs_of, twin) {
                Ok(Ratio { p, mean: ratio, side, .. }) => {
                    let (cell, event, supports) = (cell.to_owned(), event.name.clone(), event.supports.clone());
                    let n = pairs_of.len();
                    found.push((p, Counted { cell, baseline, event, supports, n, ratio, side, stands: false }));
                }
                Err(reason) => not_compared.push(format!("{cell}, `{}`: {reason}", event.name)),
            }
        }
    }
    let kept = holm(&found.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    let counted = found.into_iter().zip(kept).map(|((_, counted), stands)| Counted { stands, ..counted }).collect();
    Compared { counted, not_compared }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of one event in some blocks, over two copies of the loop: percpu has `share` of the baseline's in each, and
    /// its twin about what it has.
    fn rows(cell: &str, event: &str, baseline: Subject, share: [f64; 2], blocks: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for block in 0..blocks {
            // A per mille up and down, as counts vary.
            let noise = |salt: u64| 1.0 + ((block * 7 + salt * 3) % 5) as f64 / 5000.0;
            let share = share[block as usize % 2];
            for (subject, twin, count) in
                [(baseline, false, noise(0)), (TWINNED, false, share * noise(1)), (TWINNED, true, share * noise(2))]
            {
                let mut planned = experiment::single("run", "work", subject, Default::default());
                (planned.cell_id, planned.block, planned.twin) = (cell.into(), block, twin);
                (planned.task.layout, planned.task.counter_group) = (block % 2, Some("caches".into()));
                rows.push(experiment::row(&planned, &counters::metric(event), count));
            }
        }
        rows
    }

    fn listed(name: &str, group: &str) -> Listed {
        Listed { name: name.into(), group: group.into(), supports: "misses".into() }
    }

    #[test]
    fn fewer_misses_in_ten_pairs_are_found_and_fewer_pairs_find_nothing() {
        let catalogue = [listed("L1_MISS", "caches"), listed("branch-misses", "branches")];
        let rows = |cell, event, share, blocks| rows(cell, event, BASELINE, [share; 2], blocks);
        let ten = [rows("E05/a", "L1_MISS", 0.8, 10), rows("E07/b", "L1_MISS", 1.0, 10)].concat();
        let found = held(&ten, &catalogue, 10).counted;
        let seen: Vec<_> = found.iter().map(|counted| (counted.cell.as_str(), counted.n, counted.side)).collect();
        assert_eq!(seen, [("E05/a", 10, Side::Below), ("E07/b", 10, Side::Equivalent)]);
        assert!(found[0].stands && found[0].line().contains("`L1_MISS` (misses): 0.8"), "{}", found[0].line());
        assert!(held(&rows("E05/a", "L1_MISS", 0.8, 9), &catalogue, 10).counted.is_empty());
        let branches = held(&rows("E05/a", "branch-misses", 0.8, 10), &catalogue, 10);
        assert!(branches.counted.is_empty(), "says nothing of caches");
    }

    /// One copy of the loop has half of the misses and the other as many: two witnesses, who do not agree.
    #[test]
    fn what_one_layout_explains_is_no_difference() {
        let found = held(&rows("E05/a", "L1_MISS", BASELINE, [0.5, 1.0], 10), &[listed("L1_MISS", "caches")], 10);
        assert!(matches!(found.counted[0].side, Side::Unclear(_)) && !found.counted[0].stands, "{found:?}");
    }

    /// A block in which nothing missed is not left out: that would choose the blocks by their outcome.
    #[test]
    fn an_event_that_was_not_seen_in_a_block_is_not_compared_and_says_so() {
        let mut rows = rows("E05/a", "L1_MISS", BASELINE, [0.8; 2], 12);
        for row in rows.iter_mut().filter(|row| row.planned.block == 3 && row.planned.task.mode_requested == TWINNED) {
            row.report.as_mut().unwrap().measurement.set(&counters::metric("L1_MISS"), 0.0);
        }
        let found = held(&rows, &[listed("L1_MISS", "caches")], 10);
        assert!(found.counted.is_empty(), "{found:?}");
        assert_eq!(found.not_compared, ["E05/a, `L1_MISS`: no ratio: 0 in 1 of 12 pairs"]);
    }

    #[test]
    fn a_cell_without_the_plain_mode_is_held_against_the_other_of_its_kind() {
        let drain = Subject::from_name("perthread-drain").unwrap();
        let found = held(&rows("E03/rule=B", "L1_MISS", drain, [0.8; 2], 10), &[listed("L1_MISS", "caches")], 10);
        assert_eq!(found.counted.len(), 1);
        assert!(found.counted[0].line().contains("to perthread-drain"), "{}", found.counted[0].line());
    }
}
