//! The tables of an experiment: headline ratios, other metrics, differences to the control arm, predictions.

use super::analysis::{Experiment, MetricResult, Outcome};
use super::document::Table;
use super::number;
use crate::definition::{Better, Quantity};
use crate::subject::{Subject, TWINNED};
use perseq_statistics::{Doubt, Estimate, Side};

const VALUE: &str = "value: median (least, most)";

/// Ratios of every mode in every cell, for a metric that is tested.
pub fn headline(experiment: &Experiment, name: &str) -> Table {
    let metric = experiment.definition.metric(name);
    let shares = experiment.cells.iter().any(|cell| !cell.shares.is_empty());
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        let Some(result) = cell.result(name) else {
            continue;
        };
        for (index, (subject, _)) in result.values.iter().enumerate() {
            let label = if index == 0 { cell.short_id() } else { String::new() };
            let mut row = headline_row(label, result, *subject);
            if shares {
                row.insert(5, cell.share(*subject).map_or_else(|| "–".into(), number::percent));
            }
            rows.push(row);
        }
    }
    let good = metric.map_or("", |metric| match metric.better {
        Better::LessTime | Better::Less => "Less is better.",
        Better::MoreRate => "More is better.",
        Better::Neither => "Neither direction is better.",
    });
    let meaning = metric.map_or("", |metric| metric.meaning.as_str());
    Table {
        caption: format!(
            "`{}`: {meaning} {good} Ratio to {}: geometric mean with 95 % interval, paired by block. Median: of the same \
             ratios, with its bootstrap interval. A/A: {TWINNED} against itself. Resolution: the smallest difference that the \
             whole rule finds four times in five, in noise like that of A/A or of these pairs, whichever hides more.{}",
            name,
            experiment.baseline_words(),
            if shares { " Share: of the mode's time that was spent in the allocator." } else { "" }
        ),
        header: if shares {
            vec!["cell", "mode", "n", VALUE, "ratio", "share", "median", "A/A", "resolution", "verdict"]
        } else {
            vec!["cell", "mode", "n", VALUE, "ratio", "median", "A/A", "resolution", "verdict"]
        },
        text_columns: 2,
        rows,
    }
}

fn headline_row(label: String, result: &MetricResult, subject: Subject) -> Vec<String> {
    let values = result.of(subject);
    let late = result.late.get(subject.name()).map_or_else(String::new, |late| format!(", {late} late"));
    let n = format!("{}{late}", values.len());
    let mut row = vec![label, subject.name().into(), n, spread(&values, &result.metric.unit)];
    let mut end = |ratio: String, median: String, twin: String, resolution: String, verdict: String| {
        row.extend([ratio, median, twin, resolution, verdict]);
    };
    let dash = || "–".to_owned();
    match result.comparison(subject).map(|comparison| &comparison.ratio) {
        Some(Ok(ratio)) => {
            end(
                estimate(ratio.mean),
                estimate(ratio.median),
                result.twin.map_or_else(dash, interval),
                resolution(ratio.resolution),
                format!("{}{}", result.word(ratio.side), doubt(ratio.side)),
            );
        }
        Some(Err(reason)) => end(dash(), dash(), dash(), dash(), why(result, subject, reason)),
        None if subject == result.baseline => end("1".into(), dash(), dash(), dash(), "baseline".into()),
        None => end(dash(), dash(), dash(), dash(), "not compared".into()),
    }
    row
}

/// Why there is no ratio: the worker's own reason where it gave one.
fn why(result: &MetricResult, subject: Subject, reason: &str) -> String {
    result
        .unavailable
        .get(subject.name())
        .map_or_else(|| reason.to_owned(), |reason| format!("not available: {reason}"))
}

/// Cells in which the values of a mode lie in two heaps: no single number describes them.
pub fn heaps(experiment: &Experiment) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for cell in &experiment.cells {
        let Some(result) = cell.result(&experiment.definition.headline) else { continue };
        for (subject, values) in &result.values {
            if let Some(heaps) = result.heaps(*subject) {
                let show = |value: f64| number::with_unit(value, &result.metric.unit);
                found.push(format!(
                    "{}, {subject}: two heaps, {} of {} samples near {} and the others near {}. The ratio is of a mixture.",
                    cell.short_id(),
                    heaps.lower,
                    values.len(),
                    show(heaps.low),
                    show(heaps.high)
                ));
            }
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Medians of every other metric.
pub fn others(experiment: &Experiment) -> Table {
    let definition = &experiment.definition;
    let rest = || definition.metrics.iter().filter(|metric| !experiment.tested().contains(&metric.name.as_str()));
    let mut subjects: Vec<Subject> = Vec::new();
    for (subject, _) in experiment.cells.iter().flat_map(|cell| &cell.metrics).flat_map(|result| &result.values) {
        if !subjects.contains(subject) {
            subjects.push(*subject);
        }
    }
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        for (index, result) in
            cell.metrics.iter().filter(|result| !experiment.tested().contains(&result.metric.name.as_str())).enumerate()
        {
            let mut row =
                vec![if index == 0 { cell.short_id() } else { String::new() }, format!("`{}`", result.metric.name)];
            row.extend(subjects.iter().map(|subject| middle(result, *subject)));
            row.push(match result.comparison(TWINNED).map(|comparison| &comparison.ratio) {
                Some(Ok(ratio)) => {
                    format!("{} {}{}", estimate(ratio.mean), result.word(ratio.side), doubt(ratio.side))
                }
                Some(Err(reason)) => why(result, TWINNED, reason),
                None => "not compared".into(),
            });
            rows.push(row);
        }
    }
    let meanings: Vec<_> = rest().map(|metric| format!("`{}`: {}", metric.name, metric.meaning)).collect();
    let mut header = vec!["cell", "metric"];
    header.extend(subjects.iter().map(|subject| subject.name()));
    header.push(if experiment.baselines().len() == 1 {
        "percpu to perthread"
    } else {
        "percpu to the cell's baseline"
    });
    Table {
        caption: format!(
            "Other metrics, medians; `summary.csv` has every ratio. Holm's procedure does not count them, and no claim rests on \
             them. {}",
            meanings.join(" ")
        ),
        header,
        text_columns: 2,
        rows,
    }
}

/// What each mode costs beyond the control arm, where that is a floor. None: no control arm was measured.
pub fn excess(experiment: &Experiment) -> Option<Table> {
    let headline = &experiment.definition.headline;
    let metric = experiment.definition.metric(headline)?;
    let (mut rows, mut no_floor) = (Vec::new(), Vec::new());
    for cell in &experiment.cells {
        let Some(result) = cell.result(headline) else { continue };
        let mut label = cell.short_id();
        for (subject, difference) in &result.excess {
            let floor = match metric.better {
                Better::LessTime | Better::Less => difference.low > 0.0,
                Better::MoreRate => difference.high < 0.0,
                Better::Neither => true,
            };
            if !floor {
                no_floor.push(format!("{}, {subject}", cell.short_id()));
                continue;
            }
            let show = |value: f64| number::with_unit(value, &metric.unit);
            rows.push(vec![
                std::mem::take(&mut label),
                subject.name().into(),
                show(difference.ratio),
                format!("{} to {}", show(difference.low), show(difference.high)),
            ]);
        }
    }
    let beside = match no_floor.as_slice() {
        [] => String::new(),
        cells => {
            format!(" Not where the control does not surely cost less, for there it is no floor: {}.", cells.join("; "))
        }
    };
    (!rows.is_empty() || !no_floor.is_empty()).then(|| Table {
        caption: format!(
            "`{headline}` beyond the control arm: mean difference within a block, with its 95 % interval. The control arm does \
             the same work over private lists, so it has signals, switches and moves but no allocator.{beside}"
        ),
        header: vec!["cell", "mode", "difference to control", "95 % interval"],
        text_columns: 2,
        rows,
    })
}

/// Every prediction and what came of it.
pub fn predictions(experiment: &Experiment) -> Table {
    let mut rows = Vec::new();
    for prediction in &experiment.definition.predictions {
        let unit = experiment.definition.metric(&prediction.metric).map_or("", |metric| metric.unit.as_str());
        let show = |value: f64| match prediction.of {
            Quantity::Ratio => number::ratio(value),
            Quantity::Value => number::with_unit(value, unit),
        };
        let without = match prediction.holds_without_effect() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "–",
        };
        let bounds = match prediction.at_most {
            Some(most) => format!("{} to {}", show(prediction.at_least), show(most)),
            None => format!("{} or more", show(prediction.at_least)),
        };
        let estimate = |found: Estimate| format!("{} [{} to {}]", show(found.ratio), show(found.low), show(found.high));
        let mut outcomes = experiment.outcomes(prediction);
        if outcomes.is_empty() {
            rows.push(vec![
                prediction.text.trim().into(),
                "none measured".into(),
                bounds.clone(),
                without.into(),
                "–".into(),
                word(Outcome::Untested).into(),
            ]);
        }
        for (index, (cell, outcome, found)) in outcomes.drain(..).enumerate() {
            rows.push(vec![
                if index == 0 { prediction.text.trim().into() } else { "the same".into() },
                format!("{}, `{}`, {}", cell.short_id(), prediction.metric, prediction.mode),
                bounds.clone(),
                without.into(),
                found.map_or_else(|| "–".into(), estimate),
                word(outcome).into(),
            ]);
        }
    }
    Table {
        caption: format!(
            "Ratios to {0}, or values where a unit stands beside them. `held`: the whole interval lies within the predicted \
             bounds; `failed`: wholly outside. Without an effect: whether it would hold if the mode were {0}; then that it held \
             says little.",
            experiment.baseline_words()
        ),
        header: vec!["prediction", "cell", "predicted", "without an effect", "found", "outcome"],
        text_columns: 2,
        rows,
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "held",
        Outcome::Failed => "failed",
        Outcome::Undecided => "undecided",
        Outcome::Untested => "not tested",
    }
}

/// The median of a subject's values.
pub fn middle(result: &MetricResult, subject: Subject) -> String {
    let mut values = result.of(subject);
    if values.is_empty() {
        return "–".into();
    }
    number::with_unit(perseq_statistics::median(&mut values), &result.metric.unit)
}

fn spread(values: &[f64], unit: &str) -> String {
    if values.is_empty() {
        return "no value".into();
    }
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let middle = perseq_statistics::median(&mut values.to_vec());
    let show = |value: f64| number::with_unit(value, unit);
    if least == most { show(middle) } else { format!("{} ({}, {})", show(middle), show(least), show(most)) }
}

/// A ratio with its interval.
pub fn estimate(estimate: Estimate) -> String {
    format!("{} [{}]", number::ratio(estimate.ratio), interval(estimate))
}

/// Both ends.
pub fn interval(estimate: Estimate) -> String {
    format!("{} to {}", number::ratio(estimate.low), number::ratio(estimate.high))
}

/// A resolution in percent.
pub fn resolution(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{} %", number::short(share * 100.0)))
}

/// Why nothing is said, in a few words behind `unclear`.
pub fn doubt(side: Side) -> &'static str {
    match side {
        Side::Unclear(Doubt::SameModeDiffers) => ": this host cannot resolve it",
        Side::Unclear(Doubt::MedianDisagrees) => ": the median disagrees",
        Side::Unclear(Doubt::Holm) => ": not after Holm",
        Side::Unclear(Doubt::Clock) => ": below the clock's step",
        Side::Unclear(Doubt::Late) => ": samples were late",
        _ => "",
    }
}
