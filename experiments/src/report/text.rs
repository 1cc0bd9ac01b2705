//! What the report says, in order: what may not be believed, the ratios, the predictions, the claims.

use super::analysis::{Analysis, Experiment, MetricResult, Outcome};
use super::document::{Block, Document, Table};
use super::{claims, counted, figure, number};
use crate::definition::{Better, Quantity};
use crate::failure::Failure;
use crate::sample::Status;
use crate::selftest::Validity;
use crate::statistics::{Doubt, Estimate, Side};
use crate::subject::{BASELINE, Subject, TWINNED};

/// Tells it.
pub fn document(analysis: &Analysis) -> Result<Document, Failure> {
    let mut blocks = Vec::new();
    opening(analysis, &mut blocks);
    if analysis.manifest.valid() {
        blocks.push(Block::Figure(figure::forest(analysis)?));
    }
    blocks.push(Block::Paragraph(format!(
        "A ratio above 1 means more than {BASELINE}. That is good for throughput and bad for time and bytes; the verdict \
         says which. `faster` and `slower`, `less` and `more`: the whole interval lies outside 1 ± 1 %. `equivalent`: \
         wholly inside 1 ± 2 %. `unclear`: neither, or the same mode run twice differs as much."
    )));
    validity(analysis, &mut blocks);
    for experiment in &analysis.experiments {
        self::experiment(analysis, experiment, &mut blocks)?;
    }
    blocks.extend(counted::blocks(analysis)?);
    claims(analysis, &mut blocks);
    blocks.push(Block::Heading(2, "Order of the run".into()));
    blocks.extend(figure::drift(analysis)?.map(Block::Figure));
    left_out(analysis, &mut blocks);
    method(analysis, &mut blocks);
    Ok(Document { title: format!("perseq run {}", analysis.manifest.run_id), blocks })
}

fn opening(analysis: &Analysis, blocks: &mut Vec<Block>) {
    let manifest = &analysis.manifest;
    let finished = manifest.finished_utc.as_deref().unwrap_or("not finished");
    blocks.push(Block::Paragraph(format!(
        "{}. Profile {}, seed {}. Started {}, finished {finished}. {} samples planned; {} count, {} failed, {} timed out, \
         {} skipped; {} rows were rejected by a gate and taken again.",
        manifest.host_caption,
        manifest.profile,
        manifest.seed,
        manifest.started_utc,
        analysis.planned,
        analysis.count(Status::Ok),
        analysis.count(Status::Failed),
        analysis.count(Status::Timeout),
        analysis.count(Status::Skipped),
        analysis.count(Status::Rejected),
    )));
    let mut notice = |text: String| blocks.push(Block::Notice(text));
    if manifest.profile == "quick" {
        notice("A quick run is a smoke test. It shows that everything works and how large an effect might be; it is not to be cited.".into());
    }
    if !manifest.valid() {
        notice("A check of E00 failed. This report has no headline, and nothing may be claimed from it.".into());
    }
    if manifest.tool.debug_assertions {
        notice("This is a debug build. Its times are worth nothing.".into());
    }
    if analysis.noisy() {
        notice(format!(
            "Noisy host: a gate fired on {} of {} samples. Look at the A/A intervals before anything else.",
            analysis.disturbed(),
            analysis.planned
        ));
    }
    let settled = analysis.rows.iter().filter(|row| row.settled()).count();
    if settled < analysis.planned {
        notice(format!(
            "Incomplete: {settled} of {} samples were taken. `perseq resume` takes the rest.",
            analysis.planned
        ));
    }
    if let Some(warning) = &analysis.warning {
        notice(format!("{warning}."));
    }
    let nonsteady =
        analysis.rows.iter().filter(|row| row.warnings.iter().any(|warning| warning.starts_with("nonsteady"))).count();
    if nonsteady > 0 {
        notice(format!(
            "{nonsteady} samples have a trend inside their measured part (a line through their windows changes by 2 % or more). They are kept."
        ));
    }
}

fn validity(analysis: &Analysis, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "E00 Validity".into()));
    let validity = &analysis.manifest.validity;
    if validity.is_empty() {
        blocks.push(Block::Paragraph("The checks were not made in this run; `perseq selftest` makes them.".into()));
        return;
    }
    let row = |validity: &Validity| vec![validity.check.clone(), validity.status.to_string(), validity.detail.clone()];
    blocks.push(Block::Table(Table {
        caption: "Checks with known answers, made before the first sample. If one fails the report has no headline."
            .into(),
        header: vec!["check", "outcome", "found"],
        text_columns: 3,
        rows: validity.iter().map(row).collect(),
    }));
}

fn experiment(analysis: &Analysis, experiment: &Experiment, blocks: &mut Vec<Block>) -> Result<(), Failure> {
    let definition = &experiment.definition;
    blocks.push(Block::Heading(2, format!("{} {}", definition.id, definition.title)));
    blocks.push(Block::Paragraph(definition.question.clone()));
    blocks.push(Block::Paragraph(definition.method.trim().into()));
    for curve in &definition.curves {
        blocks.extend(figure::curve(analysis, experiment, curve)?.map(Block::Figure));
    }
    for picture in &definition.figures {
        blocks.extend(figure::picture(analysis, experiment, picture)?.map(Block::Figure));
    }
    blocks.extend(figure::modes(analysis, experiment)?.map(Block::Figure));
    blocks.push(Block::Table(headline(experiment)));
    blocks.push(Block::Table(others(experiment)));
    blocks.extend(excess(experiment).map(Block::Table));
    blocks.push(Block::Heading(3, format!("Predictions of {}, written before the run", definition.id)));
    blocks.push(Block::Table(predictions(experiment)));
    Ok(())
}

fn headline(experiment: &Experiment) -> Table {
    let definition = &experiment.definition;
    let metric = definition.metric(&definition.headline);
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        let Some(result) = cell.result(&definition.headline) else {
            continue;
        };
        for (index, (subject, values)) in result.values.iter().enumerate() {
            let label = if index == 0 { cell.short_id() } else { String::new() };
            rows.push(headline_row(label, result, *subject, values));
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
            "`{}`: {meaning} {good} Ratio to {BASELINE}: geometric mean with 95 % interval, paired by block. Median: of the same \
             ratios, with its bootstrap interval. A/A: {TWINNED} against itself. Resolution: the smallest difference this \
             many pairs find four times in five.",
            definition.headline
        ),
        header: vec![
            "cell",
            "mode",
            "n",
            "value: median (least, most)",
            "ratio",
            "median",
            "A/A",
            "resolution",
            "verdict",
        ],
        text_columns: 2,
        rows,
    }
}

fn headline_row(label: String, result: &MetricResult, subject: Subject, values: &[f64]) -> Vec<String> {
    let mut row = vec![label, subject.name().into(), values.len().to_string(), spread(values, &result.metric.unit)];
    let mut end = |ratio: String, median: String, twin: String, resolution: String, verdict: String| {
        row.extend([ratio, median, twin, resolution, verdict]);
    };
    let dash = || "–".to_owned();
    let comparison = result.comparison(subject).map(|comparison| (&comparison.ratio, comparison.holm));
    match comparison {
        Some((Ok(ratio), holm)) => {
            let decided = matches!(ratio.side, Side::Below | Side::Above);
            let lost = if holm == Some(false) && decided { ", not after Holm" } else { "" };
            end(
                estimate(ratio.mean),
                estimate(ratio.median),
                result.twin.map_or_else(dash, interval),
                format!("{} %", number::short(ratio.resolution * 100.0)),
                format!("{}{}{lost}", result.word(ratio.side), doubt(ratio.side)),
            );
        }
        Some((Err(reason), _)) => end(dash(), dash(), dash(), dash(), why(result, subject, reason)),
        None if subject == BASELINE => end("1".into(), dash(), dash(), dash(), "baseline".into()),
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

fn doubt(side: Side) -> &'static str {
    match side {
        Side::Unclear(Doubt::SameModeDiffers) => ": this host cannot resolve it",
        Side::Unclear(Doubt::MedianDisagrees) => ": the median disagrees",
        _ => "",
    }
}

fn others(experiment: &Experiment) -> Table {
    let definition = &experiment.definition;
    let rest = || definition.metrics.iter().filter(|metric| metric.name != definition.headline);
    let mut subjects: Vec<Subject> = Vec::new();
    for (subject, _) in experiment.cells.iter().flat_map(|cell| &cell.metrics).flat_map(|result| &result.values) {
        if !subjects.contains(subject) {
            subjects.push(*subject);
        }
    }
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        for (index, result) in
            cell.metrics.iter().filter(|result| result.metric.name != definition.headline).enumerate()
        {
            let mut row =
                vec![if index == 0 { cell.short_id() } else { String::new() }, format!("`{}`", result.metric.name)];
            row.extend(subjects.iter().map(|subject| match result.of(*subject) {
                [] => "–".to_owned(),
                values => number::with_unit(crate::statistics::median(&mut values.to_vec()), &result.metric.unit),
            }));
            row.push(match result.comparison(TWINNED).map(|comparison| &comparison.ratio) {
                Some(Ok(ratio)) => format!("{} {}", estimate(ratio.mean), result.word(ratio.side)),
                Some(Err(reason)) => why(result, TWINNED, reason),
                None => "not compared".into(),
            });
            rows.push(row);
        }
    }
    let meanings: Vec<_> = rest().map(|metric| format!("`{}`: {}", metric.name, metric.meaning)).collect();
    let mut header = vec!["cell", "metric"];
    header.extend(subjects.iter().map(|subject| subject.name()));
    header.push("percpu to perthread");
    Table {
        caption: format!("Other metrics, medians; `summary.csv` has every ratio. {}", meanings.join(" ")),
        header,
        text_columns: 2,
        rows,
    }
}

/// What each mode costs beyond the control arm. None: no control arm was measured.
fn excess(experiment: &Experiment) -> Option<Table> {
    let headline = &experiment.definition.headline;
    let metric = experiment.definition.metric(headline)?;
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        for (index, (subject, difference)) in cell.result(headline)?.excess.iter().enumerate() {
            let show = |value: f64| number::with_unit(value, &metric.unit);
            rows.push(vec![
                if index == 0 { cell.short_id() } else { String::new() },
                subject.name().into(),
                show(difference.ratio),
                format!("{} to {}", show(difference.low), show(difference.high)),
            ]);
        }
    }
    (!rows.is_empty()).then(|| Table {
        caption: format!(
            "`{headline}` beyond the control arm: mean difference within a block, with its 95 % interval. The control arm does \
             the same work over private lists, so it has signals, switches and moves but no allocator."
        ),
        header: vec!["cell", "mode", "difference to control", "95 % interval"],
        text_columns: 2,
        rows,
    })
}

fn predictions(experiment: &Experiment) -> Table {
    let mut rows = Vec::new();
    for prediction in &experiment.definition.predictions {
        let unit = experiment.definition.metric(&prediction.metric).map_or("", |metric| metric.unit.as_str());
        let show = |value: f64| match prediction.of {
            Quantity::Ratio => number::ratio(value),
            Quantity::Value => number::with_unit(value, unit),
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
                "–".into(),
                word(Outcome::Untested).into(),
            ]);
        }
        for (index, (cell, outcome, found)) in outcomes.drain(..).enumerate() {
            rows.push(vec![
                if index == 0 { prediction.text.trim().into() } else { "the same".into() },
                format!("{}, `{}`, {}", cell.short_id(), prediction.metric, prediction.mode),
                bounds.clone(),
                found.map_or_else(|| "–".into(), estimate),
                word(outcome).into(),
            ]);
        }
    }
    Table {
        caption: format!(
            "Ratios to {BASELINE}, or values where a unit stands beside them. `held`: the whole interval lies within the predicted bounds; `failed`: wholly outside."
        ),
        header: vec!["prediction", "cell", "predicted", "found", "outcome"],
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

fn claims(analysis: &Analysis, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "What may be claimed".into()));
    let rows = claims::all(analysis).into_iter().map(|claim| {
        vec![format!("“{}”", claim.claim), if claim.supported { "yes" } else { "no" }.into(), claim.because]
    });
    let caption =
        format!("{} headline comparisons were tested; Holm's procedure counts all of them.", analysis.headlines());
    blocks.push(Block::Table(Table {
        caption,
        header: vec!["claim", "may be made", "because"],
        text_columns: 3,
        rows: rows.collect(),
    }));
}

fn left_out(analysis: &Analysis, blocks: &mut Vec<Block>) {
    const SHOWN: usize = 40;
    let rows: Vec<_> = analysis.rows.iter().filter(|row| row.status != Status::Ok).collect();
    blocks.push(Block::Heading(2, "Rows that do not count".into()));
    if rows.is_empty() {
        blocks.push(Block::Paragraph("None: every sample counts.".into()));
        return;
    }
    let line = |row: &&crate::sample::Row| {
        let reason = row.reason.as_deref().unwrap_or("no reason");
        format!(
            "`{}`: {}: {reason}",
            row.planned.sample_id,
            serde_json::to_string(&row.status).unwrap_or_default().trim_matches('"')
        )
    };
    blocks.push(Block::List(rows.iter().take(SHOWN).map(line).collect()));
    if rows.len() > SHOWN {
        blocks.push(Block::Paragraph(format!("And {} more; `samples.jsonl` holds every one.", rows.len() - SHOWN)));
    }
}

fn method(analysis: &Analysis, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "Method".into()));
    blocks.extend(method_paragraphs(analysis).into_iter().map(Block::Paragraph));
}

/// How the numbers were made: order, n, interval, host and exclusions, from the files of the run.
pub fn method_paragraphs(analysis: &Analysis) -> Vec<String> {
    let (manifest, tool) = (&analysis.manifest, &analysis.manifest.tool);
    let dirty = match tool.dirty.value {
        Some(true) => " with uncommitted changes",
        _ => "",
    };
    vec![
        format!(
            "Each sample is a fresh process with randomised stack padding and address space. A block is one shuffled pass \
             over the modes of a cell, {TWINNED} twice; the blocks of all cells are shuffled together (seed {}). The number \
             of blocks was fixed beforehand; the cell with the fewest pairs has n = {}. The first 15 % of each sample warm \
             up. The value of a sample is one number; its windows only show whether it was steady. Ratios are paired by \
             block: geometric mean, paired t interval of the logarithms, and beside it the median with a percentile \
             bootstrap of 2000 resamples. {} headline comparisons were tested, and Holm's procedure counts all of them.",
            manifest.seed,
            analysis.least_blocks(),
            analysis.headlines(),
        ),
        format!(
            "No value was left out for being far from the others. A sample is taken again, once, if more than {:.0} % of CPU \
             time was stolen or other processes used more than {} CPUs, whatever its mode and value: {} of {} samples were \
             disturbed so. {} failed, {} did not end in time, {} were beyond the limits of the host; each is listed.",
            crate::gate::STEAL_SHARE * 100.0,
            crate::gate::OTHER_LOAD,
            analysis.disturbed(),
            analysis.planned,
            analysis.count(Status::Failed),
            analysis.count(Status::Timeout),
            analysis.count(Status::Skipped),
        ),
        format!(
            "Host: {}. perseq {}, commit {}{dirty}, {}, target {}, optimisation level {}. Binary `{}`. Hardware counters: {}.",
            manifest.host_caption,
            tool.version,
            tool.git_commit,
            tool.rustc,
            tool.target,
            tool.opt_level,
            tool.binary_sha256,
            if manifest.hardware_counters {
                "available, closed in timing samples"
            } else {
                "not available on this host"
            },
        ),
    ]
}

fn spread(values: &[f64], unit: &str) -> String {
    if values.is_empty() {
        return "no value".into();
    }
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let middle = crate::statistics::median(&mut values.to_vec());
    let show = |value: f64| number::with_unit(value, unit);
    if least == most { show(middle) } else { format!("{} ({}, {})", show(middle), show(least), show(most)) }
}

fn estimate(estimate: Estimate) -> String {
    format!("{} [{}]", number::ratio(estimate.ratio), interval(estimate))
}

fn interval(estimate: Estimate) -> String {
    format!("{} to {}", number::ratio(estimate.low), number::ratio(estimate.high))
}
