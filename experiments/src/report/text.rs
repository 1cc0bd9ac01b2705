//! What the report says, in order: what may not be believed, the ratios, the predictions, the claims.

use super::analysis::{Analysis, Experiment, Outcome};
use super::document::{Block, Document, Table};
use super::{claims, counted, figure, tables};
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::subject::{BASELINE, TWINNED};
use crate::validity::Validity;

/// Tells it.
pub fn document(analysis: &Analysis) -> Result<Document, Failure> {
    let mut blocks = Vec::new();
    opening(analysis, &mut blocks);
    if analysis.manifest.about.valid() {
        blocks.push(Block::Figure(figure::forest(analysis)?));
    }
    blocks.push(Block::Paragraph(format!(
        "A ratio above 1 means more than {BASELINE}. That is good for throughput and bad for time and bytes; the verdict \
         says which. `faster` and `slower`, `less` and `more`: the whole interval lies outside 1 ± 1 %. `equivalent`: \
         wholly inside 1 ± 2 %. `unclear`: neither, or the same mode run twice may differ as much."
    )));
    blocks.push(Block::Paragraph(
        "Every number comes from `samples.jsonl`, and a command beside it shows the rows: each with its line in that file, \
         its value as it stands there, and the ratios made of them. How every sample ended: `perseq rows .` in the \
         directory of this run."
            .into(),
    ));
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
    checklist(analysis, &mut blocks);
    Ok(Document { title: format!("perseq run {}", analysis.manifest.run_id), blocks })
}

fn opening(analysis: &Analysis, blocks: &mut Vec<Block>) {
    let manifest = &analysis.manifest;
    let finished = manifest.finished_utc.as_deref().unwrap_or("not finished");
    blocks.push(Block::Paragraph(format!(
        "{}. Profile {}, seed {}. Started {}, finished {finished}. {} samples planned; {} count, {} failed, {} timed out, \
         {} skipped; {} rows were rejected by a gate and taken again.",
        manifest.host_caption,
        manifest.about.profile,
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
    if manifest.about.profile == "quick" {
        notice("A quick run is a smoke test. It shows that everything works and how large an effect might be; it is not to be cited.".into());
    }
    if !manifest.about.valid() {
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
    analysis.older.iter().for_each(|older| notice(older.clone()));
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
    let validity = &analysis.manifest.about.validity;
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
    blocks.push(Block::Paragraph("As the run recorded them: `jq .validity manifest.json`.".into()));
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
    blocks.push(Block::Table(tables::headline(experiment)));
    blocks.push(Block::Table(tables::others(experiment)));
    blocks.extend(tables::excess(experiment).map(Block::Table));
    blocks.push(Block::Heading(3, format!("Predictions of {}, written before the run", definition.id)));
    blocks.push(Block::Table(tables::predictions(experiment)));
    blocks.push(Block::Paragraph(format!(
        "From the raw rows, in the directory of this run: `perseq rows . --metric {} --filter ^{}/`; the same with the name \
         of any other metric.",
        definition.headline, definition.id
    )));
    Ok(())
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
    blocks.push(Block::Paragraph(format!(
        "The ratios are those of the experiments above. Restarts and operations: `perseq rows . --modes {TWINNED} --metric \
         /allocator/restarts`, and `/ops_alloc` and `/ops_free` in its place."
    )));
}

fn left_out(analysis: &Analysis, blocks: &mut Vec<Block>) {
    const SHOWN: usize = 40;
    let rows: Vec<_> = analysis.rows.iter().filter(|row| row.status != Status::Ok).collect();
    blocks.push(Block::Heading(2, "Rows that do not count".into()));
    if rows.is_empty() {
        blocks.push(Block::Paragraph("None: every sample counts.".into()));
        return;
    }
    let line = |row: &&crate::experiment::Row| {
        let reason = row.reason.as_deref().unwrap_or("no reason");
        format!("`{}`: {}: {reason}", row.planned.sample_id, row.status.word())
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

/// What an evaluator of empirical work asks, after the SIGPLAN checklist.
fn checklist(analysis: &Analysis, blocks: &mut Vec<Block>) {
    let manifest = &analysis.manifest;
    let definitions = || analysis.experiments.iter().map(|experiment| &experiment.definition);
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let outcomes = || {
        analysis.experiments.iter().flat_map(|experiment| {
            experiment.definition.predictions.iter().flat_map(|prediction| experiment.outcomes(prediction))
        })
    };
    let came = |wanted: Outcome| outcomes().filter(|(_, outcome, _)| *outcome == wanted).count();
    let enough = analysis.least_blocks() >= claims::ENOUGH;
    let asked = [
        (
            "claims are explicit and bounded",
            yes(true),
            "the table of claims says what may be said and what is missing".to_owned(),
        ),
        (
            "predictions precede the data",
            yes(true),
            format!(
                "{} held, {} failed, {} undecided; all are shown",
                came(Outcome::Held),
                came(Outcome::Failed),
                came(Outcome::Undecided)
            ),
        ),
        ("the baseline is fair", yes(true), format!("{BASELINE} on the same back end, in the same binary")),
        ("a negative case is measured", yes(definitions().any(|definition| definition.id == "E13")), "E13".into()),
        (
            "enough repetitions",
            yes(enough),
            format!("n = {}; {} are asked for", analysis.least_blocks(), claims::ENOUGH),
        ),
        (
            "variation is shown",
            yes(true),
            "intervals, every sample in the curves, and the same mode against itself".into(),
        ),
        (
            "the host was quiet",
            yes(!analysis.noisy()),
            format!("{} of {} samples disturbed", analysis.disturbed(), analysis.planned),
        ),
        (
            "the build is optimised",
            yes(!manifest.tool.debug_assertions),
            format!("optimisation level {}", manifest.tool.opt_level),
        ),
        (
            "the source is known",
            yes(manifest.tool.dirty.value == Some(false)),
            format!("commit {}", manifest.tool.git_commit),
        ),
        ("all data are kept", yes(true), "every row, those that do not count with their reason".into()),
        ("more than one machine", "no", "one run is one host; `perseq compare` holds two together".into()),
    ];
    blocks.push(Block::Heading(2, "Checklist".into()));
    blocks.push(Block::Table(Table {
        caption: "What the SIGPLAN checklist for empirical evaluations asks.".into(),
        header: vec!["asked", "here", "because"],
        text_columns: 3,
        rows: asked.into_iter().map(|(what, here, why)| vec![what.into(), here.into(), why]).collect(),
    }));
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
            if manifest.about.hardware_counters {
                "available, closed in timing samples"
            } else {
                "not available on this host"
            },
        ),
    ]
}
