//! From rows to ratios: per pattern, and over all patterns of a run.

use super::study::{About, Metric, Row, Run, value};
use crate::harness::manifest::Manifest;
use crate::harness::row::{self, Status};
use crate::statistics::{Estimate, Paired, Side, side};

/// Memory beyond the worker's own below which a ratio of it says nothing.
pub const SMALL_BYTES: f64 = (1 << 20) as f64;

/// An allocator held against the baseline.
#[derive(Debug)]
pub struct Comparison {
    /// Pairs.
    pub n: usize,
    /// Geometric mean of the ratios. The error says why there is none.
    pub ratio: Result<Estimate, String>,
    /// What may be said.
    pub side: Option<Side>,
    /// Geometric mean of the values themselves.
    pub value: Option<f64>,
    logs: Vec<f64>,
}

/// A geometric mean over patterns.
#[derive(Debug)]
pub struct Mean {
    /// The mean.
    pub ratio: Estimate,
    /// The patterns in it.
    pub parts: Vec<String>,
}

/// Rows of a run, ready to be compared.
pub struct Analysis {
    /// What the run is.
    pub manifest: Manifest<About>,
    /// Every row.
    pub rows: Vec<Row>,
    /// What a reader must not miss: a line that was cut off, files of an older schema.
    pub notices: Vec<String>,
}

impl Analysis {
    /// Analyses a run.
    pub fn new(run: Run) -> Analysis {
        let notices = run.warning.iter().map(|warning| format!("{warning}.")).chain(run.older()).collect();
        Analysis { manifest: run.manifest, rows: run.rows, notices }
    }

    /// The worker's own memory: the smallest resident set that any sample had before its pattern. An allocator that
    /// takes much at its start has more, and that is part of what it needs.
    pub fn own_bytes(&self) -> f64 {
        let before = self.rows.iter().filter_map(|row| row.report.as_ref()).map(|report| report.rss_before_bytes);
        before.min().unwrap_or(0) as f64
    }

    /// Values of an allocator in a pattern, by block.
    fn values(&self, pattern: &str, allocator: &str, twin: bool, metric: Metric) -> Vec<Option<f64>> {
        let mut values = vec![None; self.manifest.about.blocks as usize];
        let own = if metric == Metric::Memory { self.own_bytes() } else { 0.0 };
        for row in &self.rows {
            let planned = &row.planned;
            if planned.cell_id == pattern && planned.task.allocator == allocator && planned.twin == twin {
                let value = self::value(row, metric).map(|value| value - own);
                if let Some(slot) = values.get_mut(planned.block as usize).filter(|_| value.is_some()) {
                    *slot = value;
                }
            }
        }
        values
    }

    /// An allocator against the baseline in one pattern; `twin` is the baseline against itself.
    pub fn compare(&self, pattern: &str, allocator: &str, twin: bool, metric: Metric) -> Comparison {
        let base = self.values(pattern, &self.manifest.about.baseline, false, metric);
        let values = self.values(pattern, allocator, twin, metric);
        let present: Vec<f64> = values.iter().flatten().copied().collect();
        let mut comparison =
            Comparison { n: 0, ratio: Err(String::new()), side: None, value: mean(&present), logs: Vec::new() };
        if metric == Metric::Memory
            && mean(&base.iter().flatten().copied().collect::<Vec<_>>()).is_none_or(|mean| mean < SMALL_BYTES)
        {
            comparison.ratio = Err("below 1 MiB".into());
            return comparison;
        }
        let pairs: Vec<_> = base.into_iter().zip(values).filter_map(|(base, value)| base.zip(value)).collect();
        comparison.n = pairs.len();
        let Some(paired) = Paired::new(&pairs) else {
            comparison.ratio = Err("a value is zero".into());
            return comparison;
        };
        comparison.logs = pairs.iter().map(|(base, value)| (value / base).ln()).collect();
        match (paired.t(), paired.median(self.manifest.seed)) {
            (Some(ratio), Some(median)) => {
                let own = self.manifest.about.baseline == allocator;
                let same = if own {
                    None
                } else {
                    self.compare(pattern, &self.manifest.about.baseline, true, metric).ratio.ok()
                };
                comparison.side = Some(side(ratio, median, same));
                comparison.ratio = Ok(ratio);
            }
            _ => comparison.ratio = Err(self.why_none(pattern, allocator)),
        }
        comparison
    }

    /// Geometric mean over all patterns that have a ratio. Per block the mean of the logarithms over the patterns,
    /// then the paired t interval over the blocks.
    pub fn mean(&self, allocator: &str, metric: Metric) -> Option<Mean> {
        let whole = |pattern: &String| {
            let comparison = self.compare(pattern, allocator, false, metric);
            (comparison.ratio.is_ok() && comparison.n == self.manifest.about.blocks as usize)
                .then(|| (pattern.clone(), comparison.logs))
        };
        let (parts, logs): (Vec<_>, Vec<_>) = self.manifest.about.patterns.iter().filter_map(whole).unzip();
        if parts.is_empty() {
            return None;
        }
        let of_block = |block: usize| logs.iter().map(|logs| logs[block]).sum::<f64>() / logs.len() as f64;
        let pairs: Vec<_> =
            (0..self.manifest.about.blocks as usize).map(|block| (1.0, of_block(block).exp())).collect();
        Some(Mean { ratio: Paired::new(&pairs)?.t()?, parts })
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
    use crate::pattern;
    use crate::suite::arm::Arm;
    use crate::suite::manifest;
    use crate::suite::plan::{Amount, make};
    use crate::suite::study::tests::row;

    /// A run in which `rival` takes twice the time of `system` in one pattern and half of it in the other.
    fn analysis(growth: u64) -> Analysis {
        let patterns: Vec<_> = ["churn", "large"].iter().filter_map(|name| pattern::find(name)).collect();
        let arms = ["system", "rival"].map(Arm::bare);
        let amount = Amount { blocks: 3, threads: 2, percent: 1, seed: 1 };
        let plan = make(&patterns, &arms, "system", &amount);
        let time = |allocator: &str, pattern: &str| match (allocator, pattern) {
            ("rival", "churn") => 2000,
            ("rival", _) => 500,
            _ => 1000,
        };
        let rows = plan.iter().map(|planned| {
            let wall = time(&planned.task.allocator, &planned.cell_id) + planned.block;
            row(planned, wall, growth)
        });
        let rows = rows.collect();
        let names = patterns.iter().map(|pattern| pattern.name.to_owned()).collect();
        let manifest = manifest("quick", &amount, arms.to_vec(), "system", names, plan.len());
        Analysis { manifest: manifest.unwrap(), rows, notices: Vec::new() }
    }

    #[test]
    fn a_rival_is_held_against_the_baseline_and_its_mean_lists_its_parts() {
        let analysis = analysis(8 << 20);
        let slower = analysis.compare("churn", "rival", false, Metric::Time);
        assert_eq!((slower.n, slower.side), (3, Some(Side::Above)));
        assert!((slower.ratio.unwrap().ratio - 2.0).abs() < 0.01);
        assert_eq!(analysis.compare("large", "rival", false, Metric::Time).side, Some(Side::Below));
        assert_eq!(analysis.compare("churn", "system", true, Metric::Time).side, Some(Side::Equivalent));
        let mean = analysis.mean("rival", Metric::Time).unwrap();
        assert!((mean.ratio.ratio - 1.0).abs() < 0.01);
        assert_eq!(mean.parts, ["churn", "large"]);
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Memory).side, Some(Side::Equivalent));
    }

    #[test]
    fn a_pattern_that_needs_no_memory_has_no_ratio_of_it_and_a_failed_one_says_why() {
        let mut analysis = analysis(4096);
        let memory = analysis.compare("churn", "rival", false, Metric::Memory);
        assert_eq!(memory.ratio.unwrap_err(), "below 1 MiB");
        assert!(analysis.mean("rival", Metric::Memory).is_none());
        for row in analysis.rows.iter_mut().filter(|row| row.planned.task.allocator == "rival") {
            (row.status, row.reason) = (Status::Failed, Some("it broke".into()));
        }
        assert_eq!(analysis.compare("churn", "rival", false, Metric::Time).ratio.unwrap_err(), "it broke");
        assert!(analysis.mean("rival", Metric::Time).is_none());
    }
}
