//! The counts of the counter pass, held against each other as times are: per event and cell, block by block, with the
//! twin's interval and Holm's procedure over all of them. What may be claimed of caches comes from here.

use super::analysis::Analysis;
use super::number;
use crate::counters::{self, Listed};
use crate::experiment::Row;
use crate::statistics::{Estimate, Paired, Side, holm, side};
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{MISSES_CHECK, Outcome};
use std::collections::BTreeMap;

/// Groups whose events say where data came from.
const GROUPS: [&str; 3] = ["caches", "transfers", "writes"];

/// One event in one cell: percpu against the baseline.
#[derive(Debug)]
pub struct Counted {
    /// The cell.
    pub cell: String,
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
        format!("{}, `{}` ({}): {ratio} [{low}, {high}], n {}", self.cell, self.event, self.supports, self.n)
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

/// Every event of the groups that was counted in `enough` blocks or more.
pub fn compared(analysis: &Analysis, enough: usize) -> Vec<Counted> {
    let about = &analysis.manifest.about;
    held(&analysis.rows, &about.counter_catalogue, enough)
}

fn held(rows: &[Row], catalogue: &[Listed], enough: usize) -> Vec<Counted> {
    let mut cells: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.planned.task.counter_group.is_some()) {
        if !cells.contains(&row.planned.cell_id.as_str()) {
            cells.push(&row.planned.cell_id);
        }
    }
    cells.sort_unstable();
    let mut found = Vec::new();
    for cell in cells {
        for event in catalogue.iter().filter(|listed| GROUPS.contains(&listed.group.as_str())) {
            let values = |subject, twin| values(rows, cell, &counters::metric(&event.name), subject, twin);
            let percpu = values(TWINNED, false);
            let pairs_of = pairs(&values(BASELINE, false), &percpu);
            let Some(paired) = Paired::new(&pairs_of).filter(|_| pairs_of.len() >= enough) else { continue };
            let twin = Paired::new(&pairs(&percpu, &values(TWINNED, true))).and_then(|paired| paired.t());
            if let (Some(ratio), Some(median), Some(p)) = (paired.t(), paired.median(), paired.p()) {
                let side = side(ratio, median, twin);
                let (cell, event, supports) = (cell.to_owned(), event.name.clone(), event.supports.clone());
                found.push((p, Counted { cell, event, supports, n: pairs_of.len(), ratio, side, stands: false }));
            }
        }
    }
    let kept = holm(&found.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    found.into_iter().zip(kept).map(|((_, counted), stands)| Counted { stands, ..counted }).collect()
}

/// The counts of a subject in a cell, by block.
fn values(rows: &[Row], cell: &str, metric: &str, subject: Subject, twin: bool) -> BTreeMap<u64, f64> {
    let own = rows.iter().filter(|row| {
        let (planned, task) = (&row.planned, &row.planned.task);
        planned.cell_id == cell
            && planned.twin == twin
            && task.mode_requested == subject
            && task.counter_group.is_some()
    });
    own.filter_map(|row| Some((row.planned.block, *row.counts()?.measurement.metrics.get(metric)?))).collect()
}

/// Both counts of each block. Of what never happens there is no ratio.
fn pairs(base: &BTreeMap<u64, f64>, own: &BTreeMap<u64, f64>) -> Vec<(f64, f64)> {
    let pair = |(block, value): (&u64, &f64)| Some((*base.get(block)?, *value));
    own.iter().filter_map(pair).filter(|(base, own)| *base > 0.0 && *own > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use crate::harness::row::Status;
    use crate::measurement::Measurement;
    use crate::worker::Report;

    /// The counts of one event in ten blocks: percpu has `share` of the baseline's, and its twin about what it has.
    fn rows(cell: &str, event: &str, share: f64, blocks: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for block in 0..blocks {
            // A per mille up and down, as counts vary.
            let noise = |salt: u64| 1.0 + ((block * 7 + salt * 3) % 5) as f64 / 5000.0;
            for (subject, twin, count) in
                [(BASELINE, false, noise(0)), (TWINNED, false, share * noise(1)), (TWINNED, true, share * noise(2))]
            {
                let mut planned = experiment::single("run", "work", subject, Default::default());
                (planned.cell_id, planned.block, planned.twin) = (cell.into(), block, twin);
                planned.task.counter_group = Some("caches".into());
                let mut row = Row::new("run", &planned, 1);
                let mut measurement = Measurement::default();
                measurement.set(&counters::metric(event), count);
                row.status = Status::Ok;
                row.report = Some(Report {
                    mode_active: None,
                    mode_reason: None,
                    mode_proof: None,
                    verified: true,
                    fault: None,
                    cpu_user_ns: None,
                    cpu_sys_ns: None,
                    rss_peak_bytes: None,
                    allocator: None,
                    measurement,
                });
                rows.push(row);
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
        let ten = [rows("E05/a", "L1_MISS", 0.8, 10), rows("E07/b", "L1_MISS", 1.0, 10)].concat();
        let found = held(&ten, &catalogue, 10);
        let seen: Vec<_> = found.iter().map(|counted| (counted.cell.as_str(), counted.n, counted.side)).collect();
        assert_eq!(seen, [("E05/a", 10, Side::Below), ("E07/b", 10, Side::Equivalent)]);
        assert!(found[0].stands && found[0].line().contains("`L1_MISS` (misses): 0.8"), "{}", found[0].line());
        assert!(held(&rows("E05/a", "L1_MISS", 0.8, 9), &catalogue, 10).is_empty());
        assert!(held(&rows("E05/a", "branch-misses", 0.8, 10), &catalogue, 10).is_empty(), "says nothing of caches");
    }
}
