//! What may be claimed from this run, and what not and why.

use super::analysis::{Analysis, Cell, Experiment, Ratio};
use super::{locality, number};
use crate::definition::Rule;
use crate::experiment::Row;
use crate::harness::row::Status;
use crate::statistics::{Side, median, poisson};
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{Outcome, TWIN_CHECK};
use perseq::Mode;

/// Pairs of a cell below which it supports no claim.
pub const ENOUGH: usize = 10;

/// A sentence somebody might want to say.
pub struct Claim {
    /// The sentence.
    pub claim: String,
    /// Whether this run supports it.
    pub supported: bool,
    /// What supports it, or what is missing.
    pub because: String,
}

/// Every claim, in a fixed order.
pub fn all(analysis: &Analysis) -> Vec<Claim> {
    vec![
        throughput(analysis),
        stranded(analysis),
        locality(analysis),
        tail(analysis),
        scaling(analysis),
        aborts(analysis),
        missing("per-CPU caches are generally better", "no run can support this; E13 shows where they should lose"),
    ]
}

fn missing(claim: &str, because: impl Into<String>) -> Claim {
    Claim { claim: claim.into(), supported: false, because: because.into() }
}

/// What stands in the way of any claim from `experiment`.
fn obstacle(analysis: &Analysis, experiment: &Experiment) -> Option<String> {
    let pairs = |cell: &Cell| cell.result(&experiment.definition.headline)?.comparison(TWINNED).map(|found| found.n);
    let n = experiment.cells.iter().filter_map(pairs).max().unwrap_or(0);
    let validity = &analysis.manifest.about.validity;
    if !analysis.manifest.about.valid() {
        Some("a check of E00 failed".into())
    } else if analysis.manifest.about.validity.is_empty() {
        Some("the checks of E00 were not made".into())
    } else if validity.iter().any(|found| found.check == TWIN_CHECK && found.status != Outcome::Ok) {
        Some("the host was too noisy to hold a mode against itself".into())
    } else if analysis.manifest.tool.debug_assertions {
        Some("this is a debug build".into())
    } else if analysis.noisy() {
        Some("the host was too noisy".into())
    } else if n < ENOUGH {
        Some(format!("no cell has more than {n} pairs and {ENOUGH} are needed; see the profile `standard`"))
    } else {
        None
    }
}

fn find<'a>(analysis: &'a Analysis, id: &str) -> Option<&'a Experiment> {
    analysis.experiments.iter().find(|experiment| experiment.definition.id == id)
}

/// Headline ratios of percpu where there are enough pairs: label of the cell, rule, ratio.
fn percpu(experiment: &Experiment) -> Vec<(String, Option<Rule>, Ratio)> {
    let ratio = |cell: &Cell| {
        let result = cell.result(&experiment.definition.headline)?;
        let comparison = result.comparison(TWINNED).filter(|comparison| comparison.n >= ENOUGH)?;
        Some((cell.short_id(), cell.rule, *comparison.ratio.as_ref().ok()?))
    };
    experiment.cells.iter().filter_map(ratio).collect()
}

fn throughput(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "per-CPU caches are faster at r = x";
    let Some(experiment) = find(analysis, "E03") else {
        return missing(CLAIM, "E03 was not run");
    };
    if let Some(obstacle) = obstacle(analysis, experiment) {
        return missing(CLAIM, obstacle);
    }
    let ratios = percpu(experiment);
    let both = [Rule::A, Rule::B].iter().all(|rule| ratios.iter().any(|(_, found, _)| found == &Some(*rule)));
    if !both {
        return missing(CLAIM, "both rules are needed");
    }
    let faster: Vec<_> = ratios
        .iter()
        .filter(|(_, _, ratio)| ratio.side == Side::Above)
        .map(|(cell, _, ratio)| format!("{cell}: {}", number::ratio(ratio.mean.ratio)))
        .collect();
    match faster.as_slice() {
        [] => missing(CLAIM, "no cell of E03 shows it"),
        cells => Claim { claim: CLAIM.into(), supported: true, because: format!("only for {}", cells.join("; ")) },
    }
}

fn stranded(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "per-CPU caches strand less memory";
    let Some(experiment) = find(analysis, "E04") else {
        return missing(CLAIM, "E04 was not run");
    };
    if let Some(obstacle) = obstacle(analysis, experiment) {
        return missing(CLAIM, obstacle);
    }
    let drained = Subject::Perseq(Mode::PerThreadDrain);
    let mut cells = Vec::new();
    let mut seen = false;
    for cell in &experiment.cells {
        let Some(result) = cell.result(&experiment.definition.headline) else { continue };
        let enough = |subject| result.comparison(subject).filter(|comparison| comparison.n >= ENOUGH);
        let ratio = |subject| enough(subject).and_then(|comparison| comparison.ratio.as_ref().ok());
        if let (Some(percpu), Some(drained)) = (ratio(TWINNED), ratio(drained)) {
            seen = true;
            if percpu.side == Side::Below && percpu.mean.high < drained.mean.low {
                cells.push(format!("{}: {}", cell.short_id(), number::ratio(percpu.mean.ratio)));
            }
        }
    }
    match (seen, cells.as_slice()) {
        (false, _) => missing(CLAIM, format!("{drained} was not measured in E04")),
        (true, []) => missing(CLAIM, format!("no cell of E04 shows it against {BASELINE} and against {drained}")),
        (true, cells) => Claim {
            claim: CLAIM.into(),
            supported: true,
            because: format!("than {BASELINE} and than {drained}, only for {}", cells.join("; ")),
        },
    }
}

/// Needs an open loop and an arm without an allocator, which E08 has, and a percentile beyond its interval.
fn tail(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "per-CPU caches have a lower latency tail";
    let Some(experiment) = find(analysis, "E08") else {
        return missing(CLAIM, "E08 was not run");
    };
    if let Some(obstacle) = obstacle(analysis, experiment) {
        return missing(CLAIM, obstacle);
    }
    let metrics = ["operation_p99_ns", "operation_p999_ns", "request_p99_ns", "request_p999_ns"];
    let mut shown = Vec::new();
    for cell in &experiment.cells {
        for result in metrics.iter().filter_map(|metric| cell.result(metric)) {
            if result.of(Subject::Control).is_empty() {
                return missing(CLAIM, "the control arm was not measured");
            }
            if let Some(comparison) = result.comparison(TWINNED).filter(|comparison| comparison.n >= ENOUGH)
                && let Ok(ratio) = &comparison.ratio
                && ratio.side == Side::Below
            {
                shown.push(format!("{}, {}: {}", cell.short_id(), result.metric.name, number::ratio(ratio.mean.ratio)));
            }
        }
    }
    match shown.as_slice() {
        [] => missing(CLAIM, "no percentile of E08 shows it"),
        shown => Claim { claim: CLAIM.into(), supported: true, because: format!("only for {}", shown.join("; ")) },
    }
}

/// Needs the vendor's own events, since generic ones mean another cache on each, counted as times are measured: in pairs,
/// with the twin and Holm's procedure; and a loop of known misses that was counted right.
fn locality(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "per-CPU caches have better locality";
    if let Some(obstacle) = locality::obstacle(analysis) {
        return missing(CLAIM, obstacle);
    }
    let counted = locality::compared(analysis, ENOUGH);
    if counted.is_empty() {
        return missing(CLAIM, format!("no event was counted in {ENOUGH} pairs of a cell"));
    }
    let lines = |side: Side| {
        let own = counted.iter().filter(|counted| counted.side == side && counted.stands);
        own.map(locality::Counted::line).collect::<Vec<_>>()
    };
    let (fewer, more) = (lines(Side::Below), lines(Side::Above));
    let against = match more.as_slice() {
        [] => String::new(),
        more => format!("; against it: {}", more.join("; ")),
    };
    match fewer.as_slice() {
        [] => missing(CLAIM, format!("of {} counts none is lower{against}", counted.len())),
        fewer => Claim {
            claim: CLAIM.into(),
            supported: true,
            because: format!("only for these counts, against {BASELINE}: {}{against}", fewer.join("; ")),
        },
    }
}

fn scaling(analysis: &Analysis) -> Claim {
    const LEAST: u64 = 4;
    let cpus = analysis.manifest.about.cpus;
    let claim = format!("per-CPU caches scale to {cpus} CPUs");
    let Some(experiment) = find(analysis, "E02") else {
        return missing(&claim, "E02 was not run");
    };
    if let Some(obstacle) = obstacle(analysis, experiment) {
        return missing(&claim, obstacle);
    }
    if cpus < LEAST {
        return missing(&claim, format!("scaling is not assessable with {cpus} CPUs"));
    }
    let rate = |threads: u64| {
        let cell = experiment.cells.iter().find(|cell| cell.parameters.get("threads") == Some(&threads))?;
        let mut values = cell.result("pairs_per_s_per_thread")?.of(TWINNED).to_vec();
        (!values.is_empty()).then(|| median(&mut values))
    };
    match (rate(1), rate(cpus)) {
        (Some(one), Some(all)) => {
            let because = format!("a thread of {cpus} does {:.0} % of what one alone does", 100.0 * all / one);
            Claim { claim, supported: all / one >= 0.8, because }
        }
        _ => missing(&claim, "E02 lacks the cell of one thread or of all"),
    }
}

/// Needs a rate with its interval, and the cost of signals against the control arm's.
fn aborts(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "restarts are negligible";
    let reports = || {
        let counts = |row: &&Row| row.status == Status::Ok && row.planned.task.mode_requested == TWINNED;
        analysis.rows.iter().filter(counts).filter_map(|row| row.report.as_ref())
    };
    let ops: u64 = reports().map(|report| report.measurement.ops_alloc + report.measurement.ops_free).sum();
    let restarts: u64 = reports().filter_map(|report| Some(report.allocator.as_ref()?.restarts)).sum();
    if ops == 0 {
        return missing(CLAIM, format!("{TWINNED} made no operation in this run"));
    }
    let (low, high) = poisson(restarts);
    let rate = |count: f64| number::short(count * 1e9 / ops as f64);
    let seen = format!(
        "{restarts} seen in {} operations of {TWINNED}: {} to {} in a billion (95 %)",
        number::short(ops as f64),
        rate(low),
        rate(high)
    );
    let Some(experiment) = find(analysis, "E09") else {
        return missing(CLAIM, format!("their cost was not measured, E09 was not run; {seen}"));
    };
    if let Some(obstacle) = obstacle(analysis, experiment) {
        return missing(CLAIM, format!("{obstacle}; {seen}"));
    }
    // Of one subject: throughput under the most signals over throughput under none.
    let kept = |subject: Subject| {
        let middle = |cell: &Cell| {
            let mut values = cell.result(&experiment.definition.headline)?.of(subject).to_vec();
            (!values.is_empty()).then(|| median(&mut values))
        };
        let signals = |cell: &&Cell| cell.parameters.get("signals_per_s").copied();
        let (least, most) =
            (experiment.cells.iter().min_by_key(signals)?, experiment.cells.iter().max_by_key(signals)?);
        (signals(&least) == Some(0)).then_some(middle(most)? / middle(least)?)
    };
    match (kept(TWINNED), kept(Subject::Control)) {
        (Some(percpu), Some(control)) => Claim {
            claim: CLAIM.into(),
            supported: percpu / control >= 0.95,
            because: format!(
                "under the most signals {TWINNED} keeps {:.0} % of its throughput and the control arm {:.0} % of its own; {seen}",
                percpu * 100.0,
                control * 100.0
            ),
        },
        _ => missing(CLAIM, format!("E09 lacks the cell without signals or the control arm; {seen}")),
    }
}
