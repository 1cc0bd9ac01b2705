//! Rows to ratios: every metric of every cell, each subject against the baseline, block by block.

use crate::definition::{Better, Definition, Metric, Parameters, Prediction, Quantity, Rule};
use crate::experiment::{About, Experiments, Row, Sample};
use crate::harness::archive::Contents;
use crate::harness::manifest::Manifest;
use crate::harness::row::{self, Status};
use crate::statistics::{self, Estimate, Paired, Side, holm, side};
use crate::subject::{BASELINE, Subject, TWINNED};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the report says, as numbers.
pub struct Analysis {
    /// The run.
    pub manifest: Manifest<About>,
    /// Samples planned.
    pub planned: usize,
    /// Every row, in the order they were written.
    pub rows: Vec<Row>,
    /// A line that was cut off.
    pub warning: Option<String>,
    /// What is to be said of files of an older schema.
    pub older: Option<String>,
    /// One entry per definition with cells.
    pub experiments: Vec<Experiment>,
}

/// The results of one definition.
pub struct Experiment {
    /// The definition as it was when the run began.
    pub definition: Definition,
    /// Its cells, as planned.
    pub cells: Vec<Cell>,
}

/// The results of one cell.
pub struct Cell {
    /// Its id.
    pub id: String,
    /// The same in words, without the experiment.
    label: String,
    /// Its rule.
    pub rule: Option<Rule>,
    /// Its parameters.
    pub parameters: Parameters,
    /// One entry per metric of the definition.
    pub metrics: Vec<MetricResult>,
}

/// The results of one metric in one cell.
pub struct MetricResult {
    /// The metric.
    pub metric: Metric,
    /// Values of each subject, block by block, the twin apart.
    pub values: Vec<(Subject, Vec<f64>)>,
    /// Why a subject has no values, where a worker said so.
    pub unavailable: BTreeMap<&'static str, String>,
    /// Each subject against the baseline.
    pub comparisons: Vec<Comparison>,
    /// The twinned subject against itself.
    pub twin: Option<Estimate>,
    /// What each subject has beyond the control arm, block by block: mean difference and its interval.
    pub excess: Vec<(Subject, Estimate)>,
}

/// One subject against the baseline.
pub struct Comparison {
    /// The subject.
    pub subject: Subject,
    /// Pairs.
    pub n: usize,
    /// The ratio and its bounds, if there is one.
    pub ratio: Result<Ratio, String>,
    /// Whether it stands when all headline comparisons are counted. None: not a headline.
    pub holm: Option<bool>,
}

/// A ratio to the baseline.
#[derive(Clone, Copy)]
pub struct Ratio {
    /// Geometric mean and paired t interval.
    pub mean: Estimate,
    /// Median and bootstrap interval.
    pub median: Estimate,
    /// Smallest difference this many pairs could have shown.
    pub resolution: f64,
    /// p value of "the ratio is 1", for Holm's procedure only.
    p: f64,
    /// What may be said.
    pub side: Side,
}

/// Whether a prediction came true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The interval lies within the predicted bounds.
    Held,
    /// The interval lies outside them.
    Failed,
    /// The interval crosses a bound.
    Undecided,
    /// No such cell was measured.
    Untested,
}

impl Analysis {
    /// Analyses a run.
    pub fn new(run: Contents<Experiments>) -> Analysis {
        let older = run.older();
        let Contents { manifest, plan, rows, warning, .. } = run;
        let mut experiments: Vec<_> = manifest
            .about
            .definitions
            .iter()
            .map(|definition| {
                let mut seen = BTreeSet::new();
                let planned = plan.iter().filter(|planned| planned.task.experiment == definition.id);
                let mut cells: Vec<_> = planned
                    .filter(|planned| seen.insert(&planned.cell_id))
                    .map(|planned| Cell::new(definition, planned, &rows))
                    .collect();
                cells.sort_by(|a, b| (a.rule, &a.parameters).cmp(&(b.rule, &b.parameters)));
                Experiment { definition: definition.clone(), cells }
            })
            .collect();
        apply_holm(&mut experiments);
        Analysis { planned: plan.len(), manifest, rows, warning, older, experiments }
    }

    /// Rows that ended like this.
    pub fn count(&self, status: Status) -> usize {
        row::count(&self.rows, status)
    }

    /// Samples on which a gate fired.
    pub fn disturbed(&self) -> usize {
        let fired = self.rows.iter().filter(|row| row.disturbance.refusal().is_some());
        fired.map(|row| &row.planned.sample_id).collect::<BTreeSet<_>>().len()
    }

    /// Whether more samples were disturbed than a report can look past.
    pub fn noisy(&self) -> bool {
        self.disturbed() as f64 > self.planned as f64 * crate::gate::NOISY_SHARE
    }

    /// Blocks of the cell with the fewest.
    pub fn least_blocks(&self) -> usize {
        let headline = |experiment: &Experiment| -> Vec<usize> {
            let results = experiment.cells.iter().filter_map(|cell| cell.result(&experiment.definition.headline));
            // A subject that cannot have the metric has no pairs, which says nothing about the blocks.
            let can = |result: &&MetricResult, subject: Subject| !result.unavailable.contains_key(subject.name());
            results
                .flat_map(|result| result.comparisons.iter().filter(move |c| can(&result, c.subject)).map(|c| c.n))
                .collect()
        };
        self.experiments.iter().flat_map(headline).min().unwrap_or(0)
    }

    /// Headline comparisons, which Holm's procedure counts.
    pub fn headlines(&self) -> usize {
        let comparisons =
            |cell: &Cell| cell.metrics.iter().flat_map(|m| &m.comparisons).filter(|c| c.holm.is_some()).count();
        self.experiments.iter().flat_map(|experiment| &experiment.cells).map(comparisons).sum()
    }
}

impl Experiment {
    /// How a prediction came out, cell by cell. A prediction about several cells has several outcomes.
    pub fn outcomes(&self, prediction: &Prediction) -> Vec<(&Cell, Outcome, Option<Estimate>)> {
        let about = |cell: &&Cell| {
            prediction.rule.is_none_or(|rule| cell.rule == Some(rule))
                && prediction.at.iter().all(|(name, value)| cell.parameters.get(name) == Some(value))
        };
        let (low, high) = (prediction.at_least, prediction.at_most.unwrap_or(f64::INFINITY));
        self.cells
            .iter()
            .filter(about)
            .map(|cell| {
                let found = cell.result(&prediction.metric).and_then(|result| match prediction.of {
                    Quantity::Ratio => Some(result.comparison(prediction.mode)?.ratio.as_ref().ok()?.mean),
                    Quantity::Value => statistics::mean(result.of(prediction.mode)),
                });
                let outcome = match found {
                    None => Outcome::Untested,
                    Some(found) if found.within(low, high) => Outcome::Held,
                    Some(found) if found.outside(low, high) => Outcome::Failed,
                    Some(_) => Outcome::Undecided,
                };
                (cell, outcome, found)
            })
            .collect()
    }
}

impl Cell {
    fn new(definition: &Definition, planned: &Sample, rows: &[Row]) -> Cell {
        let rows: Vec<_> = rows.iter().filter(|row| row.planned.cell_id == planned.cell_id).collect();
        let results = definition.metrics.iter().map(|metric| MetricResult::new(&planned.cell_id, metric, &rows));
        Cell {
            id: planned.cell_id.clone(),
            label: label(definition, &planned.cell_id),
            rule: planned.task.fairness,
            parameters: planned.task.params.clone(),
            metrics: results.collect(),
        }
    }

    /// The result of one metric.
    pub fn result(&self, metric: &str) -> Option<&MetricResult> {
        self.metrics.iter().find(|result| result.metric.name == metric)
    }

    /// The id without the experiment, in words.
    pub fn short_id(&self) -> String {
        self.label.clone()
    }
}

/// `rule A, r = 4` for `E03/rule=A/threads_per_cpu=4`.
fn label(definition: &Definition, id: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some(("rule", rule)) => format!("rule {rule}"),
        Some((name, value)) => value.parse().map_or_else(|_| part.to_owned(), |value| definition.label(name, value)),
        None => part.to_owned(),
    };
    let parts: Vec<_> = id.split('/').skip(1).map(part).collect();
    if parts.is_empty() { "all".into() } else { parts.join(", ") }
}

impl MetricResult {
    fn new(cell: &str, metric: &Metric, rows: &[&Row]) -> MetricResult {
        let series = |subject: Subject, twin: bool| -> BTreeMap<u64, f64> {
            let chosen =
                rows.iter().filter(|row| row.planned.task.mode_requested == subject && row.planned.twin == twin);
            chosen.filter_map(|row| Some((row.planned.block, crate::experiment::value(row, &metric.name)?))).collect()
        };
        let pairs = |base: &BTreeMap<u64, f64>, other: &BTreeMap<u64, f64>| -> Vec<(f64, f64)> {
            base.iter().filter_map(|(block, value)| Some((*value, *other.get(block)?))).collect()
        };
        let twin = Paired::new(&pairs(&series(TWINNED, false), &series(TWINNED, true))).and_then(|paired| paired.t());
        let base = series(BASELINE, false);
        let seed = seed(&format!("{cell} {}", metric.name));
        let present = |subject: &Subject| rows.iter().any(|row| row.planned.task.mode_requested == *subject);
        let comparisons = Subject::all()
            .filter(|subject| *subject != BASELINE && present(subject))
            .map(|subject| {
                let pairs = pairs(&base, &series(subject, false));
                Comparison { subject, n: pairs.len(), ratio: compare(&pairs, twin, seed), holm: None }
            })
            .collect();
        let control = series(Subject::Control, false);
        let beyond = |subject: Subject| {
            let pairs = pairs(&control, &series(subject, false));
            let differences: Vec<_> = pairs.iter().map(|(control, value)| value - control).collect();
            Some((subject, statistics::mean(&differences)?))
        };
        let excess = Subject::all().filter(|subject| *subject != Subject::Control).filter_map(beyond).collect();
        let mut unavailable = BTreeMap::new();
        for row in rows {
            let reason = row.report.as_ref().and_then(|report| report.measurement.unavailable.get(&metric.name));
            if let Some(reason) = reason {
                unavailable.insert(row.planned.task.mode_requested.name(), reason.clone());
            }
        }
        let values = Subject::all()
            .map(|subject| (subject, series(subject, false).into_values().collect::<Vec<_>>()))
            .filter(|(subject, _)| present(subject))
            .collect();
        MetricResult { metric: metric.clone(), values, unavailable, comparisons, twin, excess }
    }

    /// The comparison of one subject.
    pub fn comparison(&self, subject: Subject) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.subject == subject)
    }

    /// The values of one subject.
    pub fn of(&self, subject: Subject) -> &[f64] {
        self.values.iter().find(|(name, _)| *name == subject).map_or(&[], |(_, values)| values)
    }

    /// What a side means for this metric.
    pub fn word(&self, side: Side) -> &'static str {
        match (side, self.metric.better) {
            (Side::Below, Better::LessTime) | (Side::Above, Better::MoreRate) => "faster",
            (Side::Above, Better::LessTime) | (Side::Below, Better::MoreRate) => "slower",
            (Side::Below, Better::Less | Better::Neither) => "less",
            (Side::Above, Better::Less | Better::Neither) => "more",
            (Side::Equivalent, _) => "equivalent",
            (Side::Unclear(_), _) => "unclear",
        }
    }
}

fn compare(pairs: &[(f64, f64)], twin: Option<Estimate>, seed: u64) -> Result<Ratio, String> {
    if pairs.is_empty() {
        return Err("no pairs".into());
    }
    let zeros = pairs.iter().filter(|(base, value)| *base <= 0.0 || *value <= 0.0).count();
    let paired = Paired::new(pairs).ok_or(format!("no ratio: 0 in {zeros} of {} pairs", pairs.len()))?;
    let few = || "one pair has no interval".to_owned();
    let (mean, median) = (paired.t().ok_or_else(few)?, paired.median(seed).ok_or_else(few)?);
    Ok(Ratio {
        mean,
        median,
        resolution: paired.resolution().ok_or_else(few)?,
        p: paired.p().ok_or_else(few)?,
        side: side(mean, median, twin),
    })
}

/// A seed that depends on nothing but the name.
fn seed(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

fn apply_holm(experiments: &mut [Experiment]) {
    let mut headlines: Vec<(&mut Option<bool>, f64)> = Vec::new();
    for experiment in experiments {
        let headline = &experiment.definition.headline;
        for result in experiment.cells.iter_mut().flat_map(|cell| &mut cell.metrics) {
            if result.metric.name != *headline {
                continue;
            }
            for comparison in &mut result.comparisons {
                if let Ok(ratio) = &comparison.ratio {
                    headlines.push((&mut comparison.holm, ratio.p));
                }
            }
        }
    }
    let kept = holm(&headlines.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    for ((holm, _), kept) in headlines.into_iter().zip(kept) {
        *holm = Some(kept);
    }
}
