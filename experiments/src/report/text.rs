//! What the report says, in order: what may not be believed, the ratios, the predictions, the claims.

use super::analysis::{Analysis, Experiment, Outcome};
use super::document::{Block, Document, Table};
use super::parts::{self, Compared};
use super::{claims, counted, figure, number, planted, policy, restarts, standing, tables};
use crate::definition::{Definition, Rule};
use crate::experiment::{self, Row};
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::provenance::{Version, Withdrawn};
use crate::subject::{BASELINE, TWINNED};
use crate::validity::Validity;
use perseq_statistics::steady;
use std::collections::BTreeSet;

/// Tells it.
pub fn document(analysis: &Analysis) -> Result<Document, Failure> {
    let mut blocks: Vec<_> = parts::notice(&analysis.manifest).map(Block::Notice).into_iter().collect();
    opening(analysis, &mut blocks);
    blocks.push(Block::Contents);
    claims(analysis, &mut blocks);
    if analysis.manifest.about.valid() {
        blocks.extend(standing::blocks(analysis));
        blocks.extend(planted::summary(analysis));
        blocks.push(Block::Figure(figure::forest(analysis)?));
    }
    blocks.push(Block::Paragraph(format!(
        "A ratio above 1 means more than {BASELINE}, or than the mode that a cell names in its place, where {BASELINE} cannot \
         do what the rule asks. That is good for throughput and bad for time and bytes; the verdict \
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
    blocks.push(Block::Heading(2, "Restarts".into()));
    blocks.extend(restarts::table(analysis).map(Block::Table));
    blocks.push(Block::Paragraph(format!(
        "Restarts and operations: `perseq rows . --modes {TWINNED} --metric /allocator/restarts`, and `/ops_alloc` and \
         `/ops_free` in its place."
    )));
    blocks.extend(parts(analysis));
    blocks.push(Block::Heading(2, "Order of the run".into()));
    blocks.extend(figure::drift(analysis)?.map(Block::Figure));
    left_out(analysis, &mut blocks);
    method(analysis, &mut blocks);
    checklist(analysis, &mut blocks);
    Ok(Document { title: format!("perseq run {}", analysis.manifest.run_id), blocks })
}

/// The parts that the run was joined from, and the headlines of each host.
fn parts(analysis: &Analysis) -> Vec<Block> {
    let asked = |row: &Row| {
        let of = |definition: &&Definition| definition.id == row.planned.task.experiment;
        let definition = analysis.manifest.about.definitions.iter().find(of)?;
        let subject = row.planned.task.mode_requested;
        let compared = subject == TWINNED || subject == Rule::baseline(row.planned.task.fairness);
        experiment::value(row, &definition.headline).filter(|_| compared)
    };
    let baseline = |rows: &[&Row]| experiment::baseline(rows).to_string();
    parts::blocks(&analysis.manifest, &Compared { rows: &analysis.rows, value: &asked, baseline: &baseline })
}

/// In one line, whether the host and the run were fit to say anything.
pub fn fitness(analysis: &Analysis) -> String {
    let about = &analysis.manifest.about;
    let samples = number::count(analysis.planned, "sample");
    let mut line = match (analysis.noisy(), analysis.disturbed()) {
        (true, disturbed) => format!("host: noisy, a gate fired on {disturbed} of {samples}"),
        (false, disturbed) => format!("host: quiet, a gate fired on {disturbed} of {samples}"),
    };
    let lacks = [
        (!about.valid(), "a check of E00 failed, so nothing may be claimed"),
        (analysis.manifest.tool.debug_assertions, "a debug build, whose times are worth nothing"),
        (about.profile == "quick", "a quick run, which is not to be cited"),
        (analysis.manifest.part.is_some(), "a part of a plan"),
        (analysis.manifest.across_hosts, "values of several hosts, which --across-hosts joined"),
    ];
    lacks.iter().filter(|(lacks, _)| *lacks).for_each(|(_, words)| line += &format!("; {words}"));
    line
}

fn opening(analysis: &Analysis, blocks: &mut Vec<Block>) {
    let manifest = &analysis.manifest;
    let finished = manifest.finished_utc.as_deref().unwrap_or("not finished");
    blocks.push(Block::Paragraph(format!(
        "{}. Profile {}, seed {}. Started {}, finished {finished}. {} planned; {} count, {} failed, {} timed out, {} \
         skipped; {} rejected by a gate and taken again.",
        manifest.host_caption,
        manifest.about.profile,
        manifest.seed,
        manifest.started_utc,
        number::count(analysis.planned, "sample"),
        analysis.count(Status::Ok),
        analysis.count(Status::Failed),
        analysis.count(Status::Timeout),
        analysis.count(Status::Skipped),
        number::count(analysis.count(Status::Rejected), "row"),
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
            "Noisy host: a gate fired on {} of {}. Look at the A/A intervals before anything else.",
            analysis.disturbed(),
            number::count(analysis.planned, "sample")
        ));
    }
    let settled = analysis.rows.iter().filter(|row| row.settled()).count();
    if settled < analysis.planned {
        notice(format!(
            "Incomplete: {settled} of {} taken. `perseq resume` takes the rest.",
            number::count(analysis.planned, "sample")
        ));
    }
    if let Some(warning) = &analysis.warning {
        notice(format!("{warning}."));
    }
    analysis.older.iter().for_each(|older| notice(older.clone()));
    let lacks = lacks(analysis);
    if !lacks.is_empty() {
        notice(format!("What this run lacks: {}.", lacks.join("; ")));
    }
    let drawn: Vec<_> = analysis.rows.iter().filter_map(|row| row.counts()?.drawn.as_ref()).collect();
    if let Some(reason) = drawn.first() {
        notice(format!(
            "Not at the addresses of their blocks: {}, whose {reason}. Ratios have that noise as well.",
            number::count(drawn.len(), "sample")
        ));
    }
    let windows = |row: &Row| Some(row.counts()?.measurement.windows_pairs_per_s.clone());
    let judged: Vec<_> = analysis.rows.iter().filter_map(windows).filter_map(|windows| steady(&windows)).collect();
    let trends = judged.iter().filter(|steady| !**steady).count();
    if trends > 0 {
        notice(format!(
            "A trend inside the measured part in {trends} of {}: a line through the windows changes by more than 2 %, even \
             less its error. They are kept.",
            number::count(judged.len(), "sample")
        ));
    }
}

/// What a run of an older version, or of few modes, does not have and this report would show.
fn lacks(analysis: &Analysis) -> Vec<String> {
    let cells = || analysis.experiments.iter().flat_map(|experiment| &experiment.cells);
    let mut lacks = Vec::new();
    let mut lack = |missing: bool, what: String| lacks.extend(missing.then_some(what));
    lack(
        cells().all(|cell| cell.copies < 2),
        "every sample ran the same layout of the code, so what another layout would add or save is in no interval"
            .into(),
    );
    lack(
        cells().all(|cell| cell.metrics.iter().all(|result| result.planted.is_empty())),
        "nothing was planted, so its resolution is a promise that nobody tried".into(),
    );
    lack(
        cells().all(|cell| cell.shares.is_empty()),
        "no sample says which share of its time it spent in the allocator".into(),
    );
    lack(
        analysis.experiments.iter().any(|experiment| experiment.cells.iter().any(|cell| !experiment.one_policy(cell))),
        format!(
            "under rule B the caches of {TWINNED} could lend and those of {BASELINE} could not, so its ratios are no headline"
        ),
    );
    lacks
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
    for metric in experiment.tested() {
        blocks.push(Block::Table(tables::headline(experiment, metric)));
    }
    blocks.extend(tables::heaps(experiment).map(Block::List));
    blocks.extend(policy::table(experiment, &analysis.rows).map(Block::Table));
    blocks.extend(planted::table(experiment).map(Block::Table));
    blocks.push(Block::Table(tables::others(experiment)));
    blocks.extend(tables::excess(experiment).map(Block::Table));
    blocks.push(Block::Heading(3, format!("Predictions of {}, written before the run", definition.id)));
    blocks.push(Block::Table(tables::predictions(experiment)));
    blocks.push(Block::Paragraph(provenance(analysis, experiment)));
    blocks.extend(withdrawn(analysis, experiment));
    blocks.push(Block::Paragraph(format!(
        "From the raw rows, in the directory of this run: `perseq rows . --metric {} --filter ^{}/`; the same with the name \
         of any other metric.",
        definition.headline, definition.id
    )));
    Ok(())
}

/// Where the predictions come from, as the run recorded it.
fn provenance(analysis: &Analysis, experiment: &Experiment) -> String {
    let Some(predictions) = analysis.manifest.about.provenance.get(&experiment.definition.id) else {
        return "This run did not record in which commits its predictions first appeared; they are those of its manifest.".into();
    };
    let line = |(number, versions): (usize, &Vec<Version>)| match versions.as_slice() {
        [] => format!("{}: not in the history that perseq was built from", number + 1),
        [first] => format!("{}: {}", number + 1, version(first)),
        [first, amended @ ..] => {
            let amended: Vec<_> = amended.iter().map(version).collect();
            format!("{}: {}; amended {}", number + 1, version(first), amended.join(" and "))
        }
    };
    let lines: Vec<_> = predictions.iter().enumerate().map(line).collect();
    format!("First written, in the order of the table: {}.", lines.join(". "))
}

/// Predictions that the experiment had before this run and no longer has, as the run recorded them.
fn withdrawn(analysis: &Analysis, experiment: &Experiment) -> Vec<Block> {
    let Some(withdrawn) = analysis.manifest.about.withdrawn.get(&experiment.definition.id) else { return Vec::new() };
    let line = |gone: &Withdrawn| {
        let versions: Vec<_> = gone.versions.iter().map(version).collect();
        format!("`{}`: written {}", gone.text.replace("\\\n", "").replace('\n', " "), versions.join(", amended "))
    };
    vec![
        Block::Paragraph("Withdrawn before this run, and not tested in it:".into()),
        Block::List(withdrawn.iter().map(line).collect()),
    ]
}

fn version(version: &Version) -> String {
    let short = |text: &str| text.chars().take(12).collect::<String>();
    let bounds = if version.bounds.is_empty() { String::new() } else { format!("{}: ", version.bounds) };
    format!("{bounds}{} in commit `{}`, SHA-256 `{}`", version.date, short(&version.commit), short(&version.sha256))
}

fn claims(analysis: &Analysis, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "What may be claimed".into()));
    let cells = |cells: Vec<String>| if cells.is_empty() { "–".to_owned() } else { cells.join("; ") };
    let rows = claims::all(analysis).into_iter().map(|claim| {
        let may = if claim.supported && claim.cells_for.is_empty() {
            "yes"
        } else if claim.supported {
            "only of the cells for it"
        } else {
            "no"
        };
        let (for_it, against) = (cells(claim.cells_for), cells(claim.cells_against));
        vec![format!("“{}”", claim.claim), may.into(), for_it, against, claim.because]
    });
    let caption = format!(
        "{}; what Holm's procedure does not keep is not counted here. Both modes of a comparison had the same rule and the \
         same policy of budgets.",
        tested(analysis)
    );
    blocks.push(Block::Table(Table {
        caption,
        header: vec!["claim", "may be made", "cells for it", "cells against it", "because"],
        text_columns: 5,
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
    let line = |row: &&Row| {
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
    let predictions = || definitions().flat_map(|definition| &definition.predictions);
    let without = predictions().filter(|prediction| prediction.holds_without_effect() == Some(true)).count();
    let telling = outcomes().filter(|(_, outcome, _)| matches!(outcome, Outcome::Held | Outcome::Failed)).count();
    let copies = analysis.experiments.iter().flat_map(|experiment| &experiment.cells).map(|cell| cell.copies).min();
    let lost = analysis.planned.saturating_sub(analysis.rows.iter().filter(|row| row.settled()).count());
    let asked = [
        (
            "predictions that were tested",
            yes(telling > 0),
            format!(
                "{} held, {} failed, {} undecided; {without} of {} would hold if there were no effect",
                came(Outcome::Held),
                came(Outcome::Failed),
                came(Outcome::Undecided),
                predictions().count()
            ),
        ),
        (
            "the modes compared have one policy of budgets",
            yes(analysis
                .experiments
                .iter()
                .all(|experiment| experiment.cells.iter().all(|cell| experiment.one_policy(cell)))),
            "rule A, and rule B beside rule C; see the tables of claims".to_owned(),
        ),
        ("a negative case is measured", yes(definitions().any(|definition| definition.id == "E13")), "E13".into()),
        (
            "enough repetitions",
            yes(enough),
            format!("n = {}; {} are asked for", analysis.least_blocks(), claims::ENOUGH),
        ),
        (
            "several layouts of the code",
            yes(copies > Some(1)),
            format!("{} in the cell with the fewest", copies.unwrap_or(0)),
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
        ("every planned sample has a row", yes(lost == 0), format!("{lost} have none")),
        (
            "more than one machine",
            yes(manifest.across_hosts),
            if manifest.across_hosts {
                "their ratios stand beside each other under the hosts and parts".into()
            } else {
                "one run is one host; `perseq compare` holds two together".into()
            },
        ),
    ];
    blocks.push(Block::Heading(2, "Checklist".into()));
    blocks.push(Block::Table(Table {
        caption: "What the SIGPLAN checklist for empirical evaluations asks.".into(),
        header: vec!["asked", "here", "because"],
        text_columns: 3,
        rows: asked.into_iter().map(|(what, here, why)| vec![what.into(), here.into(), why]).collect(),
    }));
}

/// How many comparisons were tested in how many families.
fn tested(analysis: &Analysis) -> String {
    let [comparisons, families, most] = analysis.tested();
    let comparisons = number::count(comparisons, "comparison");
    if analysis.manifest.one_family() {
        return format!("{comparisons} tested together, as one family");
    }
    format!(
        "{comparisons} in {families} families, one for the question of each experiment and one for the other modes in it, \
         the largest of {most}"
    )
}

/// Where the memory of a sample lies, and when it works.
fn placed(analysis: &Analysis) -> String {
    if !analysis.manifest.dealt() {
        return "with randomised stack padding and address space".to_owned();
    }
    let turns = analysis.rows.iter().filter(|row| row.planned.task.turns.is_some());
    let turns: BTreeSet<_> = turns.map(|row| row.planned.task.experiment.as_str()).collect();
    let mut text = "with stack padding and addresses that are drawn for its block".to_owned();
    if !turns.is_empty() {
        let turns = turns.into_iter().collect::<Vec<_>>().join(", ");
        text += &format!("; the samples of a block are alive together and take turns in {turns}");
    }
    text
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
            "Each sample is a fresh process {}. A block is one shuffled pass \
             over the modes of a cell, {TWINNED} twice; the blocks of all cells are shuffled together (seed {}). The number \
             of blocks was fixed beforehand; the cell with the fewest pairs has n = {}. The first 15 % of each sample warm \
             up. The value of a sample is one number; its windows only show whether it was steady. Ratios are paired by \
             block: the geometric mean over copies of the measured loop of the geometric means within them, with the t \
             interval of the copies' logarithms, and beside it the median with the percentile interval of its bootstrap, \
             which is computed and not drawn. {}: Holm's procedure counts all of a family, so of families in which nothing \
             differs one in twenty has a false verdict, at most.",
            placed(analysis),
            manifest.seed,
            analysis.least_blocks(),
            tested(analysis),
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
