//! What may be claimed from this run, and what not and why. A claim names the cells against it beside those for it.

use super::analysis::{Analysis, Cell, Experiment, MetricResult, RESIDENT, TAIL};
use super::standing::{self, Standing};
use super::{locality, number, restarts};
use crate::definition::Rule;
use crate::statistics::{Estimate, Side, median, unpaired};
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{Outcome, TWIN_CHECK};

/// Pairs of a cell below which it supports no claim.
pub const ENOUGH: usize = 10;

/// A sentence somebody might want to say.
pub struct Claim {
    /// The sentence.
    pub claim: String,
    /// Whether this run supports it.
    pub supported: bool,
    /// The cells that show it: it may be said of these only.
    pub cells_for: Vec<String>,
    /// The cells that show the opposite.
    pub cells_against: Vec<String>,
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
        better(analysis),
    ]
}

fn missing(claim: impl Into<String>, because: impl Into<String>) -> Claim {
    let (cells_for, cells_against) = (Vec::new(), Vec::new());
    Claim { claim: claim.into(), supported: false, cells_for, cells_against, because: because.into() }
}

/// A claim that holds for the cells that show it, if there are any.
fn weighed(claim: String, standings: &[Standing], wins: impl Fn(&Standing) -> Option<bool>, because: &str) -> Claim {
    let side = |wanted: bool| -> Vec<String> {
        let own = standings.iter().filter(|standing| standing.n >= ENOUGH && wins(standing) == Some(wanted));
        own.map(Standing::words).collect()
    };
    let (cells_for, cells_against) = (side(true), side(false));
    let all = standings.len();
    let because =
        format!("{} of {all} comparisons show it, {} the opposite{because}", cells_for.len(), cells_against.len());
    Claim { claim, supported: !cells_for.is_empty(), cells_for, cells_against, because }
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

/// The experiment, or why nothing can be claimed from it.
fn find<'a>(analysis: &'a Analysis, id: &str) -> Result<&'a Experiment, String> {
    let found = analysis.experiments.iter().find(|experiment| experiment.definition.id == id);
    let found = found.ok_or_else(|| format!("{id} was not run"))?;
    obstacle(analysis, found).map_or(Ok(found), Err)
}

/// The index is compared under equal bytes per cache, and under equal bytes over all of them with one policy.
fn throughput(analysis: &Analysis) -> Claim {
    let claim = format!("{TWINNED} is faster than {BASELINE} at r = x");
    let experiment = match find(analysis, "E03") {
        Ok(experiment) => experiment,
        Err(why) => return missing(claim, why),
    };
    let standings = standing::of(experiment, &[&experiment.definition.headline]);
    let under =
        |budget: bool| standings.iter().any(|found| found.n >= ENOUGH && (found.cell.rule != Some(Rule::A)) == budget);
    let mut weighed = weighed(claim, &standings, |standing| standing.good(), "");
    if !(under(false) && under(true)) {
        weighed.supported = false;
        weighed.because += "; cells of equal bytes per cache and of equal bytes over all caches, under one policy of budgets, \
                            are both needed";
    }
    weighed
}

/// Against the baseline and against every other mode that keeps a cache for each thread but returns idle ones.
fn stranded(analysis: &Analysis) -> Claim {
    let claim = format!("{TWINNED} strands less memory than {BASELINE}");
    let experiment = match find(analysis, "E04") {
        Ok(experiment) => experiment,
        Err(why) => return missing(claim, why),
    };
    let metrics: Vec<_> =
        RESIDENT.iter().copied().filter(|metric| experiment.definition.metric(metric).is_some()).collect();
    let Some(resident) = metrics.first() else { return missing(claim, "E04 has no metric of memory") };
    let drained = |result: &MetricResult| -> Vec<(Subject, Estimate)> {
        let own = |subject: &Subject| subject.name().starts_with(BASELINE.name()) && *subject != result.baseline;
        Subject::all().filter(own).filter_map(|subject| Some((subject, result.ratio(subject)?.mean))).collect()
    };
    let standings = standing::of(experiment, &[*resident]);
    if standings.iter().all(|standing| drained(standing.result).is_empty()) {
        return missing(
            claim,
            format!("no mode that empties idle caches of threads was measured in {}", experiment.definition.id),
        );
    }
    let wins = |standing: &Standing| {
        let beyond = |(_, other): &(Subject, Estimate)| standing.ratio.mean.high < other.low;
        match standing.good() {
            Some(true) => drained(standing.result).iter().all(beyond).then_some(true),
            other => other,
        }
    };
    let counted: Vec<_> = metrics[1..]
        .iter()
        .flat_map(|metric| standing::of(experiment, &[*metric]))
        .map(|standing| format!("{} `{}`", standing.words(), standing.result.metric.name))
        .collect();
    let beside = if counted.is_empty() { String::new() } else { format!("; beside it {}", counted.join(", ")) };
    weighed(claim, &standings, wins, &format!(" in `{resident}`, the idle caches of threads drained or not{beside}"))
}

/// Needs an open loop and an arm without an allocator, which E08 has, and a percentile beyond its interval.
fn tail(analysis: &Analysis) -> Claim {
    let claim = format!("{TWINNED} has a lower latency tail than {BASELINE}");
    let experiment = match find(analysis, "E08") {
        Ok(experiment) => experiment,
        Err(why) => return missing(claim, why),
    };
    let standings = standing::of(experiment, TAIL);
    if standings.iter().any(|standing| standing.result.of(Subject::Control).is_empty()) {
        return missing(claim, "the control arm was not measured");
    }
    weighed(claim, &standings, |standing| standing.good(), "")
}

/// Needs the vendor's own events, since generic ones mean another cache on each, counted as times are measured: in pairs,
/// with the twin and Holm's procedure; and a loop of known misses that was counted right.
fn locality(analysis: &Analysis) -> Claim {
    let claim = format!("{TWINNED} has better locality than {BASELINE}");
    if let Some(obstacle) = locality::obstacle(analysis) {
        return missing(claim, obstacle);
    }
    let counted = locality::compared(analysis, ENOUGH);
    if counted.is_empty() {
        return missing(claim, format!("no event was counted in {ENOUGH} pairs of a cell"));
    }
    let lines = |side: Side| {
        let own = counted.iter().filter(|counted| counted.side == side && counted.stands);
        own.map(locality::Counted::line).collect::<Vec<_>>()
    };
    let (cells_for, cells_against) = (lines(Side::Below), lines(Side::Above));
    let because = format!("of {} counts {} are lower, {} higher", counted.len(), cells_for.len(), cells_against.len());
    Claim { claim, supported: !cells_for.is_empty(), cells_for, cells_against, because }
}

fn scaling(analysis: &Analysis) -> Claim {
    const LEAST: u64 = 4;
    let cpus = analysis.manifest.about.cpus;
    let claim = format!("{TWINNED} scales to {cpus} CPUs");
    let experiment = match find(analysis, "E02") {
        Ok(experiment) => experiment,
        Err(why) => return missing(claim, why),
    };
    if cpus < LEAST {
        return missing(claim, format!("scaling is not assessable with {cpus} CPUs"));
    }
    let rate = |threads: u64| {
        let cell = experiment.cells.iter().find(|cell| cell.parameters.get("threads") == Some(&threads))?;
        let mut values = cell.result("pairs_per_s_per_thread")?.of(TWINNED).to_vec();
        (!values.is_empty()).then(|| median(&mut values))
    };
    match (rate(1), rate(cpus)) {
        (Some(one), Some(all)) => Claim {
            supported: all / one >= 0.8,
            ..missing(claim, format!("a thread of {cpus} does {:.0} % of what one alone does", 100.0 * all / one))
        },
        _ => missing(claim, "E02 lacks the cell of one thread or of all"),
    }
}

/// Needs the cost of signals against the control arm's, each with its interval.
fn aborts(analysis: &Analysis) -> Claim {
    let claim = "restarts are negligible";
    let mut rates: Vec<_> =
        restarts::rates(analysis).into_iter().map(|found| median(&mut found.rates.clone())).collect();
    if rates.is_empty() {
        return missing(claim, format!("{TWINNED} made no operation in this run"));
    }
    rates.sort_by(f64::total_cmp);
    let [least, most] = [rates[0], rates[rates.len() - 1]].map(number::short);
    let seen =
        format!("a process saw {least} to {most} in a billion operations, depending on the cell; see their table");
    let experiment = match find(analysis, "E09") {
        Ok(experiment) => experiment,
        Err(why) => return missing(claim, format!("{why}; {seen}")),
    };
    // Of one subject: throughput under the most signals over throughput under none.
    let kept = |subject: Subject| {
        let values = |cell: &Cell| -> Option<Vec<(u64, f64)>> {
            let values = cell.result(&experiment.definition.headline)?.of(subject);
            Some(values.iter().map(|value| (0, *value)).collect())
        };
        let signals = |cell: &&Cell| cell.parameters.get("signals_per_s").copied();
        let (least, most) =
            (experiment.cells.iter().min_by_key(signals)?, experiment.cells.iter().max_by_key(signals)?);
        let quiet = (signals(&least) == Some(0)).then(|| values(least))??;
        unpaired(&quiet, &values(most)?)
    };
    let words = |kept: Estimate| {
        let [ratio, low, high] = [kept.ratio, kept.low, kept.high].map(|share| format!("{:.0}", share * 100.0));
        format!("{ratio} % [{low} to {high}]")
    };
    match (kept(TWINNED), kept(Subject::Control)) {
        // Even where it is at its worst and the control at its best.
        (Some(percpu), Some(control)) => Claim {
            supported: percpu.low / control.high >= 0.95,
            ..missing(
                claim,
                format!(
                    "under the most signals {TWINNED} keeps {} of its throughput and the control arm {} of its own; {seen}",
                    words(percpu),
                    words(control)
                ),
            )
        },
        _ => missing(claim, format!("E09 lacks the cell without signals or the control arm; {seen}")),
    }
}

/// What no run can support, with what it is up against.
fn better(analysis: &Analysis) -> Claim {
    let standings = standing::all(analysis);
    let because = "; no run can support this, and E13 shows where it should lose";
    let claim = weighed(
        format!("{TWINNED} is generally better than {BASELINE}"),
        &standings,
        |standing| standing.good(),
        because,
    );
    // Both tables stand below.
    Claim { supported: false, cells_for: Vec::new(), cells_against: Vec::new(), ..claim }
}
