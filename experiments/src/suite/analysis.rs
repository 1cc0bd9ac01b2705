//! From rows to ratios: per pattern, and over all patterns of a run.

use super::plan::Cell;
use super::study::{self, About, Metric, Row, Run, value};
use crate::harness::manifest::Manifest;
use crate::harness::row::{self, Status};
use perseq_statistics::{Estimate, Paired, Side, side};

/// Memory beyond the worker's own below which a ratio of it says nothing.
pub const SMALL_BYTES: f64 = (1 << 20) as f64;
/// Pairs below which a ratio has no interval.
pub const ENOUGH: usize = 10;

/// What samples that did not end in time say of a ratio: their times are longer than what they were given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// The allocator's are: the ratio is at least this.
    AtLeast,
    /// The baseline's are: it is at most this.
    AtMost,
}

impl Bound {
    /// The sign before the ratio.
    pub const fn sign(self) -> &'static str {
        match self {
            Bound::AtLeast => "≥ ",
            Bound::AtMost => "≤ ",
        }
    }
}

/// An allocator held against the baseline.
#[derive(Debug)]
pub struct Comparison {
    /// Pairs.
    pub n: usize,
    /// Geometric mean of the ratios. The error says why there is none.
    pub ratio: Result<Estimate, String>,
    /// Whether the ratio is a bound only.
    pub bound: Option<Bound>,
    /// Samples of the allocator that did not end in time.
    pub late: usize,
    /// What may be said.
    pub side: Option<Side>,
    /// Geometric mean of the values themselves.
    pub value: Option<f64>,
    logs: Vec<f64>,
}

/// A geometric mean over cells.
#[derive(Debug)]
pub struct Mean {
    /// The mean.
    pub ratio: Estimate,
    /// Whether it is a bound only.
    pub bound: Option<Bound>,
    /// The cells in it.
    pub parts: Vec<String>,
}

/// Rows of a run, ready to be compared.
pub struct Analysis {
    /// What the run is.
    pub manifest: Manifest<About>,
    /// Patterns on their threads, in the order of the report.
    pub cells: Vec<Cell>,
    /// Every row.
    pub rows: Vec<Row>,
    /// What a reader must not miss: a line that was cut off, files of an older schema.
    pub notices: Vec<String>,
}

/// A value, and whether it is a lower bound because the sample was ended.
type Value = (f64, bool);

impl Analysis {
    /// Analyses a run.
    pub fn new(run: Run) -> Analysis {
        let notices = run.warning.iter().map(|warning| format!("{warning}.")).chain(run.older()).collect();
        Analysis { cells: run.manifest.about.cells(), manifest: run.manifest, rows: run.rows, notices }
    }

    /// The worker's own memory: the smallest resident set that any sample had before its pattern. An allocator that
    /// takes much at its start has more, and that is part of what it needs.
    pub fn own_bytes(&self) -> f64 {
        let before = self.rows.iter().filter_map(|row| row.report.as_ref()).map(|report| report.rss_before_bytes);
        before.min().unwrap_or(0) as f64
    }

    /// Values of an allocator in a cell, by block.
    fn values(&self, cell: &str, allocator: &str, twin: bool, metric: Metric) -> Vec<Option<Value>> {
        let mut values = vec![None; self.manifest.about.blocks as usize];
        let own = if metric == Metric::Memory { self.own_bytes() } else { 0.0 };
        for row in &self.rows {
            let planned = &row.planned;
            if planned.cell_id == cell && planned.task.allocator == allocator && planned.twin == twin {
                let late = row.status == Status::Timeout && metric == Metric::Time;
                let least = || late.then(|| (study::deadline(planned).as_nanos() as f64, true));
                let value = self::value(row, metric).map(|value| (value - own, false)).or_else(least);
                if let Some(slot) = values.get_mut(planned.block as usize).filter(|_| value.is_some()) {
                    *slot = value;
                }
            }
        }
        values
    }

    /// An allocator against the baseline in one cell; `twin` is the baseline against itself.
    pub fn compare(&self, cell: &str, allocator: &str, twin: bool, metric: Metric) -> Comparison {
        let base = self.values(cell, &self.manifest.about.baseline, false, metric);
        let values = self.values(cell, allocator, twin, metric);
        let numbers = |values: &[Option<Value>]| values.iter().flatten().map(|(value, _)| *value).collect::<Vec<_>>();
        let late = |values: &[Option<Value>]| values.iter().flatten().filter(|(_, late)| *late).count();
        let mut comparison = Comparison {
            n: 0,
            ratio: Err(String::new()),
            bound: None,
            late: late(&values),
            side: None,
            value: mean(&numbers(&values)),
            logs: Vec::new(),
        };
        if metric == Metric::Memory && mean(&numbers(&base)).is_none_or(|mean| mean < SMALL_BYTES) {
            comparison.ratio = Err("below 1 MiB".into());
            return comparison;
        }
        comparison.bound = match (late(&base), comparison.late) {
            (0, 0) => None,
            (0, _) => Some(Bound::AtLeast),
            (_, 0) => Some(Bound::AtMost),
            _ => {
                comparison.ratio = Err("both timed out".into());
                return comparison;
            }
        };
        let pair = |(base, value): (Option<Value>, Option<Value>)| Some((base?.0, value?.0));
        let pairs: Vec<_> = base.into_iter().zip(values).filter_map(pair).collect();
        comparison.n = pairs.len();
        let Some(paired) = Paired::new(&pairs) else {
            comparison.ratio = Err("a value is zero".into());
            return comparison;
        };
        comparison.logs = pairs.iter().map(|(base, value)| (value / base).ln()).collect();
        match (paired.t(), paired.median()) {
            (Some(ratio), Some(median)) => {
                let own = self.manifest.about.baseline == allocator;
                let same = || self.compare(cell, &self.manifest.about.baseline, true, metric).ratio.ok();
                let same = if own { None } else { same() };
                let decided = comparison.n >= ENOUGH && comparison.bound.is_none();
                comparison.side = decided.then(|| side(ratio, median, same));
                comparison.ratio = Ok(ratio);
            }
            _ => comparison.ratio = Err(self.why_none(cell, allocator)),
        }
        comparison
    }

    /// Geometric mean over those of the cells that have a ratio. Per block the mean of the logarithms over the cells,
    /// then the paired t interval over the blocks. A mean of upper and of lower bounds would be neither: it has none of
    /// them.
    pub fn mean(&self, cells: &[&Cell], allocator: &str, metric: Metric) -> Option<Mean> {
        let whole = |cell: &&Cell| {
            let comparison = self.compare(&cell.id, allocator, false, metric);
            (comparison.ratio.is_ok() && comparison.n == self.manifest.about.blocks as usize)
                .then(|| (cell.id.clone(), comparison))
        };
        let mut found: Vec<_> = cells.iter().filter_map(whole).collect();
        let has = |bound: Bound| found.iter().any(|(_, comparison)| comparison.bound == Some(bound));
        let mixed = has(Bound::AtLeast) && has(Bound::AtMost);
        found.retain(|(_, comparison)| !mixed || comparison.bound.is_none());
        let bound = found.iter().find_map(|(_, comparison)| comparison.bound);
        if found.is_empty() {
            return None;
        }
        let of_block =
            |block: usize| found.iter().map(|(_, comparison)| comparison.logs[block]).sum::<f64>() / found.len() as f64;
        let pairs: Vec<_> =
            (0..self.manifest.about.blocks as usize).map(|block| (1.0, of_block(block).exp())).collect();
        let ratio = Paired::new(&pairs)?.t()?;
        Some(Mean { ratio, bound, parts: found.into_iter().map(|(id, _)| id).collect() })
    }

    /// How many samples ended so.
    pub fn count(&self, status: Status) -> usize {
        row::count(&self.rows, status)
    }

    fn why_none(&self, pattern: &str, allocator: &str) -> String {
        let bad = |row: &&Row| {
            row.planned.cell_id == pattern
                && row.planned.task.allocator == allocator
                && matches!(row.status, Status::Failed | Status::Timeout)
        };
        match self.rows.iter().find(bad) {
            Some(row) => row.reason.clone().unwrap_or_else(|| "failed".into()),
            None => "fewer than two blocks".into(),
        }
    }
}

/// Geometric mean of positive values.
fn mean(values: &[f64]) -> Option<f64> {
    let good = !values.is_empty() && values.iter().all(|value| *value > 0.0);
    good.then(|| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::arm::Arm;
    use crate::suite::manifest;
    use crate::suite::plan::{Amount, cells, make};
    use crate::suite::study::tests::row;

    /// A run in which `rival` takes twice the time of `system` in one pattern and half of it in the other.
    fn analysis(growth: u64, blocks: u64) -> Analysis {
        let names = ["churn", "large"].map(str::to_owned).to_vec();
        let arms = ["system", "rival"].map(Arm::bare);
        let amount = Amount { blocks, threads: vec![2], cpus: 2, percent: 1, seed: 1 };
        let cells = cells(&names, &amount.threads, 2).unwrap();
        let plan = make(&cells, &arms, "system", &amount);
        let time = |allocator: &str, pattern: &str| match (allocator, pattern) {
            ("rival", "churn") => 200_000,
            ("rival", _) => 50_000,
            _ => 100_000,
        };
        let rows = plan.iter().map(|planned| {
            let wall = time(&planned.task.allocator, &planned.cell_id) + planned.block;
            row(planned, wall, growth)
        });
        let rows = rows.collect();
        let manifest = manifest("quick", &amount, arms.to_vec(), "system", names, plan.len());
        Analysis { manifest: manifest.unwrap(), cells, rows, notices: Vec::new() }
    }

    fn overall(analysis: &Analysis, metric: Metric) -> Option<Mean> {
        analysis.mean(&analysis.cells.iter().collect::<Vec<_>>(), "rival", metric)
    }

    #[test]
    fn a_rival_is_held_against_the_baseline_and_its_mean_lists_its_parts() {
        let analysis = analysis(8 << 20, 10);
        let slower = analysis.compare("churn", "rival", false, Metric::Time);
        assert_eq!((slower.n, slower.side), (10, Some(Side::Above)));
        assert!((slower.ratio.unwrap().ratio - 2.0).abs() < 0.01);
        assert_eq!(analysis.compare("large", "rival", false, Metric::Time).side, Some(Side::Below));
        assert_eq!(analysis.compare("churn", "system", true, Metric::Time).side, Some(Side::Equivalent));
        let mean = overall(&analysis, Metric::Time).unwrap();
        assert!((mean.ratio.ratio - 1.0).abs() < 0.01);
        assert_eq!((mean.parts.as_slice(), mean.bound), (["churn".to_owned(), "large".to_owned()].as_slice(), None));
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Memory).side, Some(Side::Equivalent));
    }

    #[test]
    fn nothing_is_decided_by_fewer_than_ten_pairs() {
        let found = analysis(8 << 20, 9).compare("churn", "rival", false, Metric::Time);
        assert_eq!((found.n, found.side), (9, None));
        assert!(found.ratio.is_ok());
    }

    /// A sample that was ended took longer than it was given: the ratio is a bound, and is not dropped.
    #[test]
    fn samples_that_did_not_end_in_time_are_lower_bounds() {
        let mut analysis = analysis(8 << 20, 10);
        let late = |analysis: &mut Analysis, allocator: &str| {
            let own = |row: &&mut Row| {
                let planned = &row.planned;
                planned.task.allocator == allocator && planned.cell_id == "churn" && !planned.twin
            };
            let row = analysis.rows.iter_mut().find(own).unwrap();
            (row.status, row.report, row.reason) = (Status::Timeout, None, Some("late".into()));
        };
        late(&mut analysis, "rival");
        let found = analysis.compare("churn", "rival", false, Metric::Time);
        assert_eq!((found.n, found.bound, found.late, found.side), (10, Some(Bound::AtLeast), 1, None));
        assert!(found.ratio.unwrap().ratio > 4.0, "the deadline is far beyond the time of the others");
        assert_eq!(overall(&analysis, Metric::Time).unwrap().bound, Some(Bound::AtLeast));
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Memory).n, 9, "its memory is not known");
        late(&mut analysis, "system");
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Time).ratio.unwrap_err(), "both timed out");
    }

    #[test]
    fn a_pattern_that_needs_no_memory_has_no_ratio_of_it_and_a_failed_one_says_why() {
        let mut analysis = analysis(4096, 3);
        let memory = analysis.compare("churn", "rival", false, Metric::Memory);
        assert_eq!(memory.ratio.unwrap_err(), "below 1 MiB");
        assert!(overall(&analysis, Metric::Memory).is_none());
        for row in analysis.rows.iter_mut().filter(|row| row.planned.task.allocator == "rival") {
            (row.status, row.reason) = (Status::Failed, Some("it broke".into()));
        }
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Time).ratio.unwrap_err(), "it broke");
        assert!(overall(&analysis, Metric::Time).is_none());
    }
}
