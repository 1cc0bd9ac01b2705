//! The suite's report, from its files alone: the same rows give the same bytes.

use super::analysis::{Analysis, Bound, Comparison, ENOUGH, Mean};
use super::arm::Arm;
use super::plan::Cell;
use super::study::{self, Metric, Row, Run};
use crate::failure::Failure;
use crate::harness::archive::Archive;
use crate::harness::row::Status;
use crate::pattern::{self, Definition};
use crate::report::document::{Block, Document, Table};
use crate::report::parts::{self, Compared};
use crate::report::{html, markdown, number};
use crate::written::Folder;
use perseq_statistics::{Estimate, Side};
use std::path::PathBuf;

/// Writes `report/`, with what real programs did if that was asked, and returns the path of the page to open.
pub fn write(archive: &Archive, run: Run, programs: Vec<Block>) -> Result<PathBuf, Failure> {
    run.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let folder = Folder::create(archive.root().join("report"), run.origin())?;
    let analysis = Analysis::new(run);
    let document = document(&analysis, programs);
    folder.save("report.md", &markdown::write(&document))?;
    folder.save("summary.csv", &csv(&analysis))?;
    folder.save("report.html", &html::write(&document))
}

fn document(analysis: &Analysis, programs: Vec<Block>) -> Document {
    let manifest = &analysis.manifest;
    let mut blocks: Vec<_> = parts::notice(manifest).map(Block::Notice).into_iter().collect();
    let finished = manifest.finished_utc.as_deref().unwrap_or("not finished");
    blocks.push(Block::Paragraph(format!(
        "{}. Profile {}, {} blocks, threads where a pattern has several: {}, seed {}. Started {}, finished {finished}. \
         {} samples planned; {} count, {} failed, {} timed out; {} rows were rejected by a gate and taken again.",
        manifest.host_caption,
        manifest.about.profile,
        manifest.about.blocks,
        manifest.about.threads_text(),
        manifest.seed,
        manifest.started_utc,
        manifest.about.planned,
        analysis.count(Status::Ok),
        analysis.count(Status::Failed),
        analysis.count(Status::Timeout),
        analysis.count(Status::Rejected),
    )));
    blocks.extend(analysis.notices.iter().cloned().map(Block::Notice));
    if manifest.about.profile == "quick" {
        blocks.push(Block::Notice(
            "A quick run is a smoke test. It shows that everything works; it is not to be cited.".into(),
        ));
    }
    let disturbed = analysis.rows.iter().filter(|row| row.disturbance.refusal().is_some()).count();
    if disturbed * 5 > analysis.rows.len() {
        blocks.push(Block::Notice(format!(
            "Noisy host: a gate fired at {disturbed} of {} attempts. Look at the baseline against itself first.",
            analysis.rows.len()
        )));
    }
    if manifest.tool.debug_assertions {
        blocks.push(Block::Notice("The worker is a debug build. Its share of the times is inflated.".into()));
    }
    if manifest.about.blocks < ENOUGH as u64 {
        blocks.push(Block::Notice(format!(
            "{} blocks are fewer than {ENOUGH}: no ratio has an interval or a star.",
            manifest.about.blocks
        )));
    }
    blocks.push(Block::Paragraph(format!(
        "Ratios to `{}`: below 1 is faster, or less memory. Each is a geometric mean over blocks; intervals, 95 %, are in \
         the tables of the patterns. A star marks an interval that lies outside 1 ± 1 % and beyond what the baseline shows \
         against itself. Ratios of single patterns are not corrected for their number. A sample that did not end in time \
         counts with the time it was given, which makes its ratio a bound: ≥ or ≤. Threads that share a CPU share its work.",
        manifest.about.baseline
    )));
    for (metric, title) in [(Metric::Time, "Time"), (Metric::Memory, "Peak memory")] {
        blocks.push(Block::Heading(2, title.into()));
        for (threads, cells) in groups(analysis) {
            blocks.push(Block::Table(matrix(analysis, metric, threads, &cells)));
        }
        blocks.extend(overall(analysis, metric).map(Block::Table));
        blocks.extend(parts(analysis, metric));
    }
    blocks.push(Block::Paragraph(format!(
        "Memory is the largest resident set while the pattern ran, less {}: the worker's own, which is the smallest that \
         any sample had before its pattern. What each allocator had by then is in the table of allocators. Where the \
         baseline needs less than 1 MiB there is no ratio.",
        number::bytes(analysis.own_bytes())
    )));
    blocks.push(Block::Heading(2, "Patterns".into()));
    for name in &manifest.about.patterns {
        blocks.push(Block::Heading(3, name.clone()));
        if let Some(pattern) = pattern::find(name) {
            let Definition { what, differs } = pattern.definition(&manifest.started_utc);
            let differs = differs.map_or_else(String::new, |differs| format!(" Here: {differs}."));
            blocks.push(Block::Paragraph(format!("{}. After: {}.{differs}", capital(what), pattern.origin)));
        }
        let own = analysis.cells.iter().filter(|cell| cell.pattern == *name);
        blocks.extend(own.map(|cell| Block::Table(detail(analysis, &cell.id))));
    }
    blocks.extend(programs);
    allocators(analysis, &mut blocks);
    let time = |row: &Row| study::value(row, Metric::Time);
    let baseline = |_: &[&Row]| manifest.about.baseline.clone();
    blocks.extend(parts::blocks(manifest, &Compared { rows: &analysis.rows, value: &time, baseline: &baseline }));
    let bad: Vec<_> = analysis
        .rows
        .iter()
        .filter(|row| matches!(row.status, Status::Failed | Status::Timeout))
        .map(|row| format!("`{}`: {}", row.planned.sample_id, row.reason.as_deref().unwrap_or("no reason")))
        .collect();
    if !bad.is_empty() {
        blocks.push(Block::Heading(2, "Failed samples".into()));
        blocks.push(Block::List(bad));
    }
    blocks.push(Block::Heading(2, "Again".into()));
    blocks.push(Block::Paragraph(format!(
        "`{}` takes the same samples in the same order, given the same libraries. `perseq suite --report DIR` builds \
         this page again from the rows. `sha256sum -c SHA256SUMS` in the run's directory checks its files.",
        study::command(manifest)
    )));
    Document { title: format!("perseq suite {}", manifest.run_id), blocks }
}

/// Cells with as many threads each: those of one thread, then by number.
fn groups(analysis: &Analysis) -> Vec<(Option<usize>, Vec<&Cell>)> {
    let mut groups: Vec<(Option<usize>, Vec<&Cell>)> = Vec::new();
    for cell in &analysis.cells {
        let threads = pattern::threaded(&cell.pattern).unwrap_or(false).then_some(cell.threads);
        match groups.iter_mut().find(|(known, _)| *known == threads) {
            Some((_, cells)) => cells.push(cell),
            None => groups.push((threads, vec![cell])),
        }
    }
    groups.sort_by_key(|(threads, _)| *threads);
    groups
}

/// One line to an allocator, one column to a pattern.
fn matrix(analysis: &Analysis, metric: Metric, threads: Option<usize>, cells: &[&Cell]) -> Table {
    let known: Vec<_> = cells.iter().filter_map(|cell| Some((*cell, pattern::find(&cell.pattern)?))).collect();
    let mut rows = Vec::new();
    for (arm, twin) in lines(analysis) {
        let mut row = vec![title(arm, twin)];
        row.push(if twin { "-".into() } else { mean(analysis, analysis.mean(cells, &arm.name, metric)) });
        row.extend(known.iter().map(|(cell, _)| self::cell(&analysis.compare(&cell.id, &arm.name, twin, metric))));
        rows.push(row);
    }
    let who = match threads {
        None => "patterns of one thread".to_owned(),
        Some(1) => "patterns of several threads, on one".to_owned(),
        Some(threads) => format!("patterns of several threads, on {threads}"),
    };
    Table {
        caption: format!("{}, {who}: ratio to {}", what(metric), analysis.manifest.about.baseline),
        header: ["allocator", "geometric mean"]
            .into_iter()
            .chain(known.iter().map(|(_, pattern)| pattern.name))
            .collect(),
        text_columns: 1,
        rows,
    }
}

/// The means over all cells, where the run has more than one group of them.
fn overall(analysis: &Analysis, metric: Metric) -> Option<Table> {
    if groups(analysis).len() < 2 {
        return None;
    }
    let cells: Vec<_> = analysis.cells.iter().collect();
    let line =
        |(arm, _): (&Arm, bool)| vec![arm.name.clone(), mean(analysis, analysis.mean(&cells, &arm.name, metric))];
    Some(Table {
        caption: format!("{}, all of them: ratio to {}", what(metric), analysis.manifest.about.baseline),
        header: vec!["allocator", "geometric mean"],
        text_columns: 1,
        rows: lines(analysis).filter(|(_, twin)| !twin).map(line).collect(),
    })
}

fn what(metric: Metric) -> &'static str {
    match metric {
        Metric::Time => "Time",
        Metric::Memory => "Peak of the resident set, less the worker's own",
    }
}

fn mean(analysis: &Analysis, mean: Option<Mean>) -> String {
    let n = analysis.manifest.about.blocks as usize;
    mean.map_or_else(|| "-".into(), |mean| estimate(mean.ratio, mean.bound, n))
}

/// The allocators with a ratio: the baseline against itself first.
fn lines(analysis: &Analysis) -> impl Iterator<Item = (&Arm, bool)> {
    let baseline = &analysis.manifest.about.baseline;
    let own = analysis.manifest.about.allocators.iter().filter(move |arm| arm.name == *baseline).map(|arm| (arm, true));
    own.chain(
        analysis.manifest.about.allocators.iter().filter(move |arm| arm.name != *baseline).map(|arm| (arm, false)),
    )
}

fn title(arm: &Arm, twin: bool) -> String {
    if twin { format!("{} again", arm.name) } else { arm.name.clone() }
}

fn cell(comparison: &Comparison) -> String {
    match &comparison.ratio {
        Ok(ratio) => {
            let star = matches!(comparison.side, Some(Side::Below | Side::Above));
            let sign = comparison.bound.map_or("", Bound::sign);
            format!("{sign}{}{}", number::ratio(ratio.ratio), if star { "*" } else { "" })
        }
        Err(_) => "-".into(),
    }
}

/// Says what each geometric mean is made of.
fn parts(analysis: &Analysis, metric: Metric) -> Option<Block> {
    let cells: Vec<_> = analysis.cells.iter().collect();
    let mut said: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (arm, _) in lines(analysis).filter(|(_, twin)| !twin) {
        let parts = analysis.mean(&cells, &arm.name, metric).map(|mean| mean.parts).unwrap_or_default();
        match said.iter_mut().find(|(known, _)| *known == parts) {
            Some((_, arms)) => arms.push(arm.name.clone()),
            None => said.push((parts, vec![arm.name.clone()])),
        }
    }
    let several = said.len() > 1;
    let line = |(parts, arms): &(Vec<String>, Vec<String>)| {
        let who = if several { format!("{}: ", arms.join(", ")) } else { "All allocators: ".into() };
        let what = if parts.is_empty() { "no pattern".into() } else { parts.join(", ") };
        format!("{who}{what} ({})", parts.len())
    };
    let items: Vec<_> = said.iter().map(line).collect();
    (!items.is_empty()).then(|| Block::List(items.iter().map(|item| format!("Mean over, {item}")).collect()))
}

fn detail(analysis: &Analysis, cell: &str) -> Table {
    let mut rows = Vec::new();
    for (arm, twin) in lines(analysis) {
        let mut row = vec![title(arm, twin)];
        let mut n = 0;
        for (metric, unit) in [(Metric::Time, 1e-6), (Metric::Memory, 1.0)] {
            let comparison = analysis.compare(cell, &arm.name, twin, metric);
            n = n.max(comparison.n);
            row.push(match (comparison.value, metric) {
                (Some(value), Metric::Time) => format!("{} ms", number::short(value * unit)),
                (Some(value), Metric::Memory) => number::bytes(value),
                (None, _) => "-".into(),
            });
            let late = match comparison.late {
                0 => String::new(),
                late => format!(" ({late} of {} timed out)", analysis.manifest.about.blocks),
            };
            let ratio = |ratio: &Estimate| estimate(*ratio, comparison.bound, comparison.n);
            row.push(comparison.ratio.as_ref().map_or_else(Clone::clone, ratio) + &late);
        }
        row.insert(1, n.to_string());
        rows.push(row);
    }
    Table {
        caption: format!("{cell}: geometric means, and ratios to {} with intervals", analysis.manifest.about.baseline),
        header: vec!["allocator", "n", "time", "time ratio", "memory", "memory ratio"],
        text_columns: 1,
        rows,
    }
}

fn allocators(analysis: &Analysis, blocks: &mut Vec<Block>) {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let row = |arm: &Arm| {
        let variables: Vec<_> = arm.environment.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
        let before: Vec<f64> = analysis
            .rows
            .iter()
            .filter(|row| row.planned.task.allocator == arm.name)
            .filter_map(|row| row.report.as_ref().map(|report| report.rss_before_bytes as f64))
            .collect();
        let before =
            if before.is_empty() { "-".into() } else { number::bytes(perseq_statistics::median(&mut before.clone())) };
        vec![
            arm.name.clone(),
            text(&arm.version),
            text(&arm.obtained),
            variables.join(" "),
            text(&arm.seen),
            arm.sha256.as_ref().map_or_else(|| "-".into(), |sum| format!("`{sum}`")),
            before,
        ]
    };
    blocks.push(Block::Heading(2, "Allocators".into()));
    blocks.push(Block::Paragraph(
        "Each sample saw its own calls of malloc, free, calloc and realloc lead to the library named here; libperseq and \
         TCMalloc were asked for their mode. The last column is the median of the resident sets before the patterns."
            .into(),
    ));
    blocks.push(Block::Table(Table {
        caption: "What was preloaded".into(),
        header: vec!["allocator", "version", "obtained", "variables", "mode, seen", "SHA-256", "before"],
        text_columns: 6,
        rows: analysis.manifest.about.allocators.iter().map(row).collect(),
    }));
}

/// With its interval, if it has enough pairs and is no bound.
fn estimate(estimate: Estimate, bound: Option<Bound>, n: usize) -> String {
    let [ratio, low, high] = [estimate.ratio, estimate.low, estimate.high].map(number::ratio);
    match bound {
        Some(bound) => format!("{}{ratio}", bound.sign()),
        None if n < ENOUGH => ratio,
        None => format!("{ratio} [{low}, {high}]"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// One line to a pattern, metric and allocator. An empty field means "not available".
fn csv(analysis: &Analysis) -> String {
    let mut text = String::from(
        "pattern,metric,unit,baseline,allocator,twin,n,gmean,ratio,ci_lo,ci_hi,note,threads,bound,timed_out\n",
    );
    let field = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
    for Cell { id, pattern, threads, .. } in &analysis.cells {
        for (metric, name, unit) in [(Metric::Time, "wall", "ns"), (Metric::Memory, "rss_peak_less_own", "bytes")] {
            for (arm, twin) in lines(analysis) {
                let comparison = analysis.compare(id, &arm.name, twin, metric);
                let ratio = comparison.ratio.as_ref().ok();
                let interval = ratio.filter(|_| comparison.n >= ENOUGH && comparison.bound.is_none());
                let fields = [
                    pattern.clone(),
                    name.into(),
                    unit.into(),
                    analysis.manifest.about.baseline.clone(),
                    arm.name.clone(),
                    twin.to_string(),
                    comparison.n.to_string(),
                    field(comparison.value),
                    field(ratio.map(|ratio| ratio.ratio)),
                    field(interval.map(|ratio| ratio.low)),
                    field(interval.map(|ratio| ratio.high)),
                    comparison
                        .ratio
                        .as_ref()
                        .err()
                        .map_or_else(String::new, |note| note.replace([',', '\n', '"'], ";")),
                    threads.to_string(),
                    comparison.bound.map_or("", |bound| bound.sign().trim_end()).into(),
                    comparison.late.to_string(),
                ];
                text += &fields.join(",");
                text.push('\n');
            }
        }
    }
    text
}
