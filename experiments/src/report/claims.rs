//! What may be claimed from this run, and what not and why. A claim names the cells against it beside those for it.

use super::analysis::{Analysis, Cell, Experiment, MetricResult, RESIDENT, TAIL};
use super::standing::{self, Standing};
use super::{locality, number, restarts};
use crate::definition::Rule;
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{Outcome, TWIN_CHECK};
use perseq_statistics::{Estimate, Side, median, unpaired};

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
    let (all, enough) = (standings.len(), standings.iter().filter(|standing| standing.n >= ENOUGH).count());
    // Those with fewer blocks stand in the report's tables, and decide nothing here.
    let all = if enough == all {
        format!("{all} comparisons")
    } else {
        format!("{enough} comparisons of {ENOUGH} blocks or more")
    };
    let because = format!("{} of {all} show it, {} the opposite{because}", cells_for.len(), cells_against.len());
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
    // The others of the baseline's kind: a ratio, or none although it was measured.
    let drained = |result: &MetricResult| -> Vec<Option<Estimate>> {
        let own = result.comparisons.iter().filter(|found| found.subject.name().starts_with(BASELINE.name()));
        own.map(|found| Some(found.ratio.as_ref().ok()?.mean)).collect()
    };
    // The baseline itself empties idle caches where it is not the plain one.
    let beside = |result: &MetricResult| !drained(result).is_empty() || result.baseline != BASELINE;
    let standings = standing::of(experiment, &[*resident]);
    if !standings.iter().any(|standing| beside(standing.result)) {
        return missing(
            claim,
            format!("no mode that empties idle caches of threads was measured in {}", experiment.definition.id),
        );
    }
    let wins = |standing: &Standing| {
        let beyond = |other: &Option<Estimate>| other.is_some_and(|other| standing.ratio.mean.high < other.low);
        match standing.good() {
            // Where no idle cache was emptied, or what came of it has no ratio, nothing is won.
            Some(true) => (beside(standing.result) && drained(standing.result).iter().all(beyond)).then_some(true),
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
    let locality::Compared { counted, not_compared } = locality::compared(analysis, ENOUGH);
    let beside = match not_compared.as_slice() {
        [] => String::new(),
        not_compared => format!("; not compared: {}", not_compared.join("; ")),
    };
    if counted.is_empty() {
        return missing(claim, format!("no event was counted in {ENOUGH} pairs of a cell, in each of them{beside}"));
    }
    let lines = |side: Side| {
        let own = counted.iter().filter(|counted| counted.side == side && counted.stands);
        own.map(locality::Counted::line).collect::<Vec<_>>()
    };
    let (cells_for, cells_against) = (lines(Side::Below), lines(Side::Above));
    let (all, lower, higher) = (counted.len(), cells_for.len(), cells_against.len());
    let because = format!("of {all} counts {lower} are lower, {higher} higher{beside}");
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
    // Threads that think between their operations scale by thinking. Definitions before there was a think time had none.
    let busy = |cell: &&Cell| cell.parameters.get("think_ns").is_none_or(|think| *think == 0);
    let rate = |threads: u64| {
        let own = |cell: &&Cell| cell.parameters.get("threads") == Some(&threads);
        let cell = experiment.cells.iter().filter(busy).find(own)?;
        let mut values = cell.result("pairs_per_s_per_thread")?.of(TWINNED);
        (!values.is_empty()).then(|| median(&mut values))
    };
    match (rate(1), rate(cpus)) {
        (Some(one), Some(all)) => Claim {
            supported: all / one >= 0.8,
            ..missing(claim, format!("a thread of {cpus} does {:.0} % of what one alone does", 100.0 * all / one))
        },
        _ => missing(claim, "E02 lacks the cell of one thread or of all, without think time"),
    }
}

/// Needs the cost of signals against the control arm's, each with its interval.
fn aborts(analysis: &Analysis) -> Claim {
    let claim = "restarts are negligible";
    let mut rates: Vec<_> =
        restarts::rates(analysis).into_iter().map(|found| median(&mut found.of_processes())).collect();
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
        let values = |cell: &Cell| Some(cell.result(&experiment.definition.headline)?.in_layouts(subject).to_vec());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{self, Parameters};
    use crate::experiment::{self, Options};
    use crate::validity::Validity;

    /// A cell: its parameters, and the value of every arm.
    type Setting<'a> = (&'a [(&'a str, u64)], &'a [(&'a str, f64)]);

    /// What a run on eight CPUs says, of these metrics of one experiment: ten blocks, noise of some per mille, and nothing
    /// that stands in the way of a claim.
    fn run(id: &str, metrics: &[&str], cells: &[Setting]) -> Analysis {
        run_of(10, id, metrics, cells)
    }

    /// The same of so many blocks.
    fn run_of(blocks: u64, id: &str, metrics: &[&str], cells: &[Setting]) -> Analysis {
        let definition = definition::all().into_iter().find(|definition| definition.id == id).unwrap();
        let mut manifest =
            experiment::manifest("run".into(), "standard", 1, Options::default(), vec![definition]).unwrap();
        (manifest.about.cpus, manifest.tool.debug_assertions) = (8, false);
        manifest.about.validity = vec![Validity { check: "all".into(), status: Outcome::Ok, detail: String::new() }];
        let mut rows = Vec::new();
        for (number, (parameters, arms)) in cells.iter().enumerate() {
            let parameters: Parameters = parameters.iter().map(|(name, value)| ((*name).into(), *value)).collect();
            for (block, (arm, (name, value))) in
                (0..blocks).flat_map(|block| arms.iter().enumerate().map(move |arm| (block, arm)))
            {
                let subject = Subject::from_name(name).unwrap();
                for twin in [false, true].into_iter().filter(|twin| !twin || subject == TWINNED) {
                    let mut planned = experiment::single(id, "fast-path", subject, parameters.clone());
                    (planned.cell_id, planned.block, planned.twin) = (format!("{id}/cell={number}"), block, twin);
                    let noise = 1.0 + ((block * 7 + arm as u64 * 3 + u64::from(twin)) % 5) as f64 / 1000.0;
                    let mut row = experiment::row(&planned, metrics[0], value * noise);
                    let measurement = &mut row.report.as_mut().unwrap().measurement;
                    metrics.iter().for_each(|metric| measurement.set(metric, value * noise));
                    rows.push(row);
                }
            }
        }
        let plan: Vec<_> = rows.iter().map(|row| row.planned.clone()).collect();
        Analysis::of(manifest, &plan, rows)
    }

    /// Comparisons of few blocks, which the report's tables have as they came out, are not among those that are counted.
    #[test]
    fn few_blocks_are_not_counted_as_if_they_showed_nothing() {
        let slower: Setting = (&[("depth", 1), ("size_bytes", 64)], &[("percpu", 2.0), ("perthread", 1.0)]);
        let because = |blocks| better(&run_of(blocks, "E01", &["ns_per_pair"], &[slower])).because;
        assert!(because(5).starts_with("0 of 0 comparisons of 10 blocks or more show it, 0 the opposite"));
        assert!(because(10).starts_with("0 of 1 comparisons show it, 1 the opposite"));
    }

    #[test]
    fn threads_that_think_show_no_scaling() {
        let scaling = |at_eight: f64| {
            scaling(&run(
                "E02",
                &["pairs_per_s", "pairs_per_s_per_thread"],
                &[
                    (&[("threads", 1), ("think_ns", 0)], &[("perthread", 100.0), ("percpu", 100.0)]),
                    (&[("threads", 8), ("think_ns", 0)], &[("perthread", 100.0), ("percpu", at_eight)]),
                    (&[("threads", 1), ("think_ns", 100)], &[("perthread", 10.0), ("percpu", 10.0)]),
                    (&[("threads", 8), ("think_ns", 100)], &[("perthread", 10.0), ("percpu", 10.0)]),
                ],
            ))
        };
        assert!(scaling(90.0).supported, "{}", scaling(90.0).because);
        assert!(!scaling(50.0).supported, "{}", scaling(50.0).because);
        let thinking: &[Setting] = &[
            (&[("threads", 1), ("think_ns", 100)], &[("perthread", 10.0), ("percpu", 10.0)]),
            (&[("threads", 8), ("think_ns", 100)], &[("perthread", 10.0), ("percpu", 10.0)]),
        ];
        let claim = super::scaling(&run("E02", &["pairs_per_s", "pairs_per_s_per_thread"], thinking));
        assert!(!claim.supported && claim.because.contains("without think time"), "{}", claim.because);
    }

    /// The rule of a run is the one that it began with.
    #[test]
    fn a_question_is_a_family_and_a_run_of_older_versions_is_one() {
        let arms: &[(&str, f64)] = &[("perthread", 10.0), ("percpu", 9.0), ("central", 20.0), ("system", 9.0)];
        let new = run("E01", &["ns_per_pair"], &[(&[("depth", 1)], arms), (&[("depth", 64)], arms)]);
        assert_eq!(new.tested(), [6, 2, 4]);
        let plan: Vec<_> = new.rows.iter().map(|row| row.planned.clone()).collect();
        let manifest = crate::harness::manifest::Manifest { schema: "1.3.0".into(), ..new.manifest };
        assert_eq!(Analysis::of(manifest, &plan, new.rows).tested(), [6, 1, 6]);
    }

    /// Only a mode whose idle caches were emptied shows what caches of threads need.
    #[test]
    fn memory_is_won_only_where_idle_caches_of_threads_were_emptied() {
        let with: &[(&str, f64)] = &[("perthread", 100.0), ("perthread-drain", 80.0), ("percpu", 50.0)];
        let zero: &[(&str, f64)] = &[("perthread", 100.0), ("perthread-drain", 0.0), ("percpu", 50.0)];
        let less: &[(&str, f64)] = &[("perthread", 100.0), ("perthread-drain", 40.0), ("percpu", 50.0)];
        let without: &[(&str, f64)] = &[("perthread", 100.0), ("percpu", 50.0)];
        let to_it: &[(&str, f64)] = &[("perthread-drain", 80.0), ("percpu", 50.0)];
        let stranded = |arms: &[&[(&str, f64)]]| {
            let threads: Vec<_> = (1..=arms.len() as u64).map(|threads| [("threads_per_cpu", threads)]).collect();
            let cells: Vec<Setting> = threads.iter().zip(arms).map(|(threads, arms)| (&threads[..], *arms)).collect();
            stranded(&run("E04", &["rss_after_release_bytes"], &cells))
        };
        for (arms, wins) in [(with, 1), (zero, 0), (less, 0), (without, 0), (to_it, 1)] {
            let claim = stranded(&[arms]);
            assert_eq!((claim.supported, claim.cells_for.len()), (wins > 0, wins), "{arms:?}: {}", claim.because);
        }
        // One cell does not vouch for another.
        assert_eq!(stranded(&[with, without]).cells_for.len(), 1);
    }
}
