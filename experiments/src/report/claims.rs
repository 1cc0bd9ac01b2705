//! What may be claimed from this run, and what not and why.

use super::analysis::{Analysis, Experiment, Ratio};
use super::number;
use crate::definition::Rule;
use crate::statistics::Side;
use crate::subject::Subject;
use perseq::Mode;

/// Pairs below which no claim is made.
const ENOUGH: usize = 10;

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
        missing("per-CPU caches have a lower latency tail", "no experiment of this run measures latency"),
        scaling(analysis),
        aborts(analysis),
        missing("per-CPU caches are generally better", "no run can support this"),
    ]
}

fn missing(claim: &str, because: impl Into<String>) -> Claim {
    Claim { claim: claim.into(), supported: false, because: because.into() }
}

/// What stands in the way of any claim.
fn obstacle(analysis: &Analysis) -> Option<String> {
    let n = analysis.least_blocks();
    if !analysis.manifest.valid() {
        Some("a check of E00 failed".into())
    } else if analysis.manifest.tool.debug_assertions {
        Some("this is a debug build".into())
    } else if analysis.noisy() {
        Some("the host was too noisy".into())
    } else if n < ENOUGH {
        Some(format!("a cell has {n} pairs and {ENOUGH} are needed; see the profile `standard`"))
    } else {
        None
    }
}

fn find<'a>(analysis: &'a Analysis, id: &str) -> Option<&'a Experiment> {
    analysis.experiments.iter().find(|experiment| experiment.definition.id == id)
}

/// Headline ratios of percpu: label of the cell, rule, ratio.
fn percpu(experiment: &Experiment) -> Vec<(String, Option<Rule>, Ratio)> {
    let ratio = |cell: &super::analysis::Cell| {
        let result = cell.result(&experiment.definition.headline)?;
        let comparison = result.comparison(Subject::Perseq(Mode::PerCpu))?;
        Some((cell.short_id(), cell.rule, *comparison.ratio.as_ref().ok()?))
    };
    experiment.cells.iter().filter_map(ratio).collect()
}

fn throughput(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "per-CPU caches are faster at r = x";
    let Some(experiment) = find(analysis, "E03") else {
        return missing(CLAIM, "E03 was not run");
    };
    if let Some(obstacle) = obstacle(analysis) {
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
    let because = match find(analysis, "E04") {
        None => "E04 was not run",
        Some(_) => {
            "E04 compares with caches that idle threads never give back; a rival that drains them was not measured"
        }
    };
    missing(CLAIM, because)
}

fn locality(analysis: &Analysis) -> Claim {
    let because = match analysis.manifest.hardware_counters {
        false => "no hardware counter can be opened on this host",
        true => "no counters were read in this run",
    };
    missing("per-CPU caches have better locality", because)
}

fn scaling(analysis: &Analysis) -> Claim {
    let cpus = analysis.manifest.cpus;
    missing(
        "per-CPU caches scale to N cores",
        format!("no experiment of this run varies the CPUs; this host has {cpus}"),
    )
}

fn aborts(analysis: &Analysis) -> Claim {
    const CLAIM: &str = "restarts are negligible";
    let total = |field: fn(&crate::worker::Totals) -> u64| -> u64 {
        let percpu = analysis.rows.iter().filter(|row| row.planned.mode_requested == Subject::Perseq(Mode::PerCpu));
        percpu.filter_map(|row| row.report.as_ref()?.allocator.as_ref()).map(field).sum()
    };
    let ops: u64 = analysis
        .rows
        .iter()
        .filter(|row| row.planned.mode_requested == Subject::Perseq(Mode::PerCpu))
        .filter_map(|row| row.report.as_ref())
        .map(|report| report.measurement.ops_alloc + report.measurement.ops_free)
        .sum();
    let restarts = total(|totals| totals.restarts);
    let seen = match (restarts, ops) {
        (_, 0) => "percpu made no operation in this run".to_owned(),
        (0, ops) => format!(
            "none seen in {} operations, so fewer than {} per operation (95 %)",
            number::short(ops as f64),
            number::short(3.7 / ops as f64)
        ),
        (restarts, ops) => format!("{restarts} seen in {} operations of percpu", number::short(ops as f64)),
    };
    missing(CLAIM, format!("their cost was not measured; {seen}"))
}
