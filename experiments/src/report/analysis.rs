//! Rows to ratios: every metric of every cell, each subject against the baseline, block by block.

mod result;

pub(super) use result::compare;
pub use result::{Comparison, Family, MetricResult, Planted, Ratio};

use crate::definition::{Definition, Parameters, Prediction, Quantity, Rule};
use crate::experiment::{self, About, Experiments, Row, Sample};
use crate::harness::archive::Contents;
use crate::harness::manifest::Manifest;
use crate::harness::row::{self, Status};
use crate::measurement::SHARE;
use crate::subject::{BASELINE, Subject, TWINNED};
use perseq_statistics::{self, Estimate, holm, holm_critical, median};
use std::collections::BTreeSet;

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
    /// Comparisons in each family that is tested.
    families: Vec<usize>,
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
    /// The share of its time that each subject spent in the allocator, where it was measured: the median.
    pub shares: Vec<(Subject, f64)>,
    /// Copies of the measured loop that its blocks ran.
    pub copies: usize,
}

/// Metrics that a claim rests on although they are no headline, in the order a claim names them.
pub const BESIDE: [(&str, &[&str]); 2] = [("E04", RESIDENT), ("E08", TAIL)];
/// Memory that sleeping threads leave: the resident set after free pages went back, or before that in runs that did not
/// read it again; then what the allocator itself counts.
pub const RESIDENT: &[&str] = &["rss_after_release_bytes", "rss_bytes", "stranded_bytes"];
/// The slow ends of E08.
pub const TAIL: &[&str] = &["operation_p99_ns", "operation_p999_ns", "request_p99_ns", "request_p999_ns"];

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
        Analysis { older, warning, ..Analysis::of(manifest, &plan, rows) }
    }

    /// Analyses the rows of a plan.
    pub(super) fn of(manifest: Manifest<About>, plan: &[Sample], rows: Vec<Row>) -> Analysis {
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
        let families = test_together(&mut experiments, manifest.one_family());
        let steps = manifest.hosts().filter_map(|host| host.pointer("/clock/resolution_ns/value")?.as_f64());
        let step = steps.reduce(f64::max);
        experiments.iter_mut().for_each(|experiment| experiment.blur(step));
        Analysis { planned: plan.len(), manifest, rows, warning: None, older: None, families, experiments }
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

    /// Pairs of the cell with the fewest, of the modes that the questions are about; of any, if none of these ran.
    pub fn least_blocks(&self) -> usize {
        let results = self.experiments.iter().flat_map(|experiment| {
            experiment.cells.iter().filter_map(|cell| cell.result(&experiment.definition.headline))
        });
        // A subject that cannot have the metric has no pairs, which says nothing about the blocks.
        let all: Vec<_> = results
            .flat_map(|result| result.comparisons.iter().map(move |comparison| (result, comparison)))
            .filter(|(result, comparison)| !result.unavailable.contains_key(comparison.subject.name()))
            .map(|(_, comparison)| (comparison.subject == TWINNED, comparison.n))
            .collect();
        let asked = all.iter().filter(|(asked, _)| *asked || !all.iter().any(|(asked, _)| *asked));
        asked.map(|(_, n)| *n).min().unwrap_or(0)
    }

    /// What the cells of the run hold modes against.
    pub fn baselines(&self) -> Vec<Subject> {
        baselines(self.experiments.iter().flat_map(|experiment| &experiment.cells))
    }

    /// The same in words.
    pub fn baseline_words(&self) -> String {
        in_words(&self.baselines())
    }

    /// Comparisons that are tested, in how many families, and how many the largest of these has.
    pub fn tested(&self) -> [usize; 3] {
        let most = self.families.iter().copied().max().unwrap_or(0);
        [self.families.iter().sum(), self.families.len(), most]
    }
}

impl Experiment {
    /// Marks single readings of the clock that are shorter than its step. `step`: in ns; the reading itself where it is not
    /// known.
    fn blur(&mut self, step: Option<f64>) {
        for cell in &mut self.cells {
            let Some(clock) = cell.result("clock_ns") else { continue };
            let mut readings: Vec<f64> =
                clock.values.iter().flat_map(|(_, values)| values).map(|(_, value)| *value).collect();
            if readings.is_empty() {
                continue;
            }
            let reading = median(&mut readings);
            let single = |result: &&mut MetricResult| result.metric.name.starts_with("operation_");
            cell.metrics.iter_mut().filter(single).for_each(|result| result.blur(reading, step.unwrap_or(reading)));
        }
    }

    /// Its metrics that are tested together: the headline, and those that a claim looks at beside it.
    pub fn tested(&self) -> Vec<&str> {
        tested(&self.definition)
    }

    /// The first of them, which figures show.
    pub fn lead(&self) -> &str {
        self.tested().first().copied().unwrap_or(&self.definition.headline)
    }

    /// What its cells hold modes against: [`BASELINE`] first, if a cell has it.
    pub fn baselines(&self) -> Vec<Subject> {
        baselines(self.cells.iter())
    }

    /// The same in words.
    pub fn baseline_words(&self) -> String {
        in_words(&self.baselines())
    }

    /// Whether all modes of a cell had the same policy of budgets. Before there was a rule C, rule B let per-CPU caches lend
    /// and gave each thread's a rigid share.
    pub fn one_policy(&self, cell: &Cell) -> bool {
        cell.rule != Some(Rule::B) || self.definition.rules.iter().any(|rule| *rule > Rule::B)
    }

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
                    Quantity::Ratio => Some(result.ratio(prediction.mode)?.mean),
                    Quantity::Value => perseq_statistics::mean(result.in_layouts(prediction.mode)),
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
        let share = |subject: Subject| {
            let own = rows.iter().filter(|row| row.planned.task.mode_requested == subject);
            let mut shares: Vec<_> = own.filter_map(|row| experiment::value(row, SHARE)).collect();
            (!shares.is_empty()).then(|| (subject, median(&mut shares)))
        };
        let mut label = label(definition, &planned.cell_id);
        let baseline = experiment::baseline(&rows);
        if baseline != BASELINE {
            label += &format!(", to {baseline}");
        }
        Cell {
            shares: Subject::all().filter_map(share).collect(),
            copies: rows.iter().map(|row| row.planned.task.layout).collect::<BTreeSet<_>>().len(),
            id: planned.cell_id.clone(),
            label,
            rule: planned.task.fairness,
            parameters: planned.task.params.clone(),
            metrics: results.collect(),
        }
    }

    /// The result of one metric.
    pub fn result(&self, metric: &str) -> Option<&MetricResult> {
        self.metrics.iter().find(|result| result.metric.name == metric)
    }

    /// The share of its time that a subject spent in the allocator.
    pub fn share(&self, subject: Subject) -> Option<f64> {
        self.shares.iter().find(|(name, _)| *name == subject).map(|(_, share)| *share)
    }

    /// The id without the experiment, in words.
    pub fn short_id(&self) -> String {
        self.label.clone()
    }
}

/// Baselines of some cells, in the order of all subjects, each once.
fn baselines<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<Subject> {
    let present: BTreeSet<&str> = cells.flat_map(|cell| &cell.metrics).map(|result| result.baseline.name()).collect();
    let mut found: Vec<_> = Subject::all().filter(|subject| present.contains(subject.name())).collect();
    found.sort_by_key(|subject| *subject != BASELINE);
    found
}

fn in_words(baselines: &[Subject]) -> String {
    match baselines {
        [] => BASELINE.to_string(),
        [only] => only.to_string(),
        [first, others @ ..] => {
            let others: Vec<_> = others.iter().map(Subject::to_string).collect();
            format!("{first}, or to {} where the cell says so", others.join(" or "))
        }
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

/// Tests each family, and says how many comparisons each has. Holm's procedure counts all that a sentence about one question
/// may rest on, and not the answers to others: the question that an experiment states is about one mode, and how the other
/// modes do is another. In runs of older versions all was one family, written down as such before they began.
fn test_together(experiments: &mut [Experiment], one_family: bool) -> Vec<usize> {
    let all = 0..experiments.len();
    let questions = all.flat_map(|index| Family::ALL.map(|family| (index, family)));
    let families: Vec<Vec<_>> =
        if one_family { vec![questions.collect()] } else { questions.map(|question| vec![question]).collect() };
    let mut sizes = Vec::new();
    for questions in families {
        let mut each = |work: &mut dyn FnMut(&mut MetricResult, Family)| {
            for (index, family) in &questions {
                let Experiment { definition, cells } = &mut experiments[*index];
                let names = tested(definition);
                let results = cells.iter_mut().flat_map(|cell| &mut cell.metrics);
                results
                    .filter(|result| names.contains(&result.metric.name.as_str()))
                    .for_each(|result| work(result, *family));
            }
        };
        let mut p = Vec::new();
        each(&mut |result, family| p.extend(result.p(family)));
        let (mut kept, critical) = (holm(&p).into_iter(), holm_critical(&p));
        each(&mut |result, family| result.judge(family, &mut kept, critical));
        sizes.push(p.len());
    }
    sizes.retain(|size| *size > 0);
    sizes
}

/// The metrics of a definition that are tested together: its headline, and those that a claim looks at beside it.
fn tested(definition: &Definition) -> Vec<&str> {
    let beside = BESIDE.iter().filter(|(id, _)| *id == definition.id).flat_map(|(_, metrics)| *metrics);
    let known = |metric: &&str| definition.metric(metric).is_some();
    let mut names: Vec<&str> = beside.copied().filter(known).collect();
    if !names.contains(&definition.headline.as_str()) {
        names.push(&definition.headline);
    }
    names
}
