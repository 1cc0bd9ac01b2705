//! Where the subject loses and where it wins: every comparison that is tested together, sorted by what may be said.

use super::analysis::{Analysis, Cell, Experiment, MetricResult, Ratio};
use super::document::{Block, Table};
use super::{number, tables};
use crate::subject::{BASELINE, TWINNED};
use perseq_statistics::Side;

/// One comparison of the twinned subject with the baseline.
pub struct Standing<'a> {
    /// Its experiment.
    pub experiment: &'a Experiment,
    /// Its cell.
    pub cell: &'a Cell,
    /// Its metric.
    pub result: &'a MetricResult,
    /// The ratio.
    pub ratio: &'a Ratio,
    /// Pairs.
    pub n: usize,
}

impl Standing<'_> {
    /// Whether the subject does better. None: neither, or nothing is said.
    pub fn good(&self) -> Option<bool> {
        self.result.good(self.ratio.side)
    }

    /// In a few words, for a list.
    pub fn words(&self) -> String {
        let share =
            self.cell.share(TWINNED).map_or_else(String::new, |share| format!(", share {}", number::percent(share)));
        format!(
            "{} {}: {}{share}",
            self.experiment.definition.id,
            self.cell.short_id(),
            number::ratio(self.ratio.mean.ratio)
        )
    }
}

/// All that are tested together, in the order of the report. Only those whose modes had one policy of budgets.
pub fn all(analysis: &Analysis) -> Vec<Standing<'_>> {
    analysis.experiments.iter().flat_map(|experiment| of(experiment, &experiment.tested())).collect()
}

/// Those of some metrics of one experiment.
pub fn of<'a>(experiment: &'a Experiment, metrics: &[&str]) -> Vec<Standing<'a>> {
    let mut found = Vec::new();
    for cell in experiment.cells.iter().filter(|cell| experiment.one_policy(cell)) {
        for result in metrics.iter().filter_map(|metric| cell.result(metric)) {
            if let Some(comparison) = result.comparison(TWINNED)
                && let Ok(ratio) = &comparison.ratio
            {
                found.push(Standing { experiment, cell, result, ratio, n: comparison.n });
            }
        }
    }
    found
}

/// All of them, by what may be said.
#[derive(Default)]
pub struct Sorted<'a> {
    /// The subject does worse.
    pub losses: Vec<Standing<'a>>,
    /// It does better.
    pub wins: Vec<Standing<'a>>,
    /// It differs in what is neither good nor bad.
    pub differ: usize,
    /// Both are the same within 2 %.
    pub equivalent: usize,
    /// Nothing may be said.
    pub unclear: usize,
}

/// Sorts them.
pub fn sorted(analysis: &Analysis) -> Sorted<'_> {
    let mut sorted = Sorted::default();
    for standing in all(analysis) {
        match (standing.good(), standing.ratio.side) {
            (Some(false), _) => sorted.losses.push(standing),
            (Some(true), _) => sorted.wins.push(standing),
            (None, Side::Equivalent) => sorted.equivalent += 1,
            (None, Side::Unclear(_)) => sorted.unclear += 1,
            (None, _) => sorted.differ += 1,
        }
    }
    sorted
}

/// In one line, losses first.
pub fn conclusion(analysis: &Analysis) -> String {
    let Sorted { losses, wins, differ, equivalent, unclear } = sorted(analysis);
    let (losses, wins) = (losses.len(), wins.len());
    let all = number::count(losses + wins + differ + equivalent + unclear, "comparison");
    format!(
        "{TWINNED} beside {BASELINE}, {all}: worse in {losses}, better in {wins}, equivalent in {equivalent}, otherwise \
         different in {differ}, unclear in {unclear}"
    )
}

/// The tables, losses first.
pub fn blocks(analysis: &Analysis) -> Vec<Block> {
    let mut blocks = Vec::new();
    let Sorted { losses, wins, differ, equivalent, unclear } = sorted(analysis);
    for (words, rows) in [("loses to", losses), ("wins over", wins)] {
        blocks.push(Block::Heading(3, format!("Where {TWINNED} {words} {BASELINE}")));
        if rows.is_empty() {
            blocks.push(Block::Paragraph("Nowhere that this run could show.".into()));
            continue;
        }
        blocks.push(Block::Table(Table {
            caption: format!("{}, after Holm's procedure.", number::count(rows.len(), "comparison")),
            header: vec!["cell", "metric", "n", "ratio", "A/A", "resolution", "share in the allocator"],
            text_columns: 2,
            rows: rows.iter().map(line).collect(),
        }));
    }
    blocks.push(Block::Paragraph(format!(
        "Of the other comparisons {equivalent} are equivalent, {differ} differ in what is neither good nor bad, and of \
         {unclear} nothing may be said."
    )));
    let mixed: Vec<_> = analysis
        .experiments
        .iter()
        .filter(|experiment| experiment.cells.iter().any(|cell| !experiment.one_policy(cell)))
        .map(|experiment| experiment.definition.id.as_str())
        .collect();
    if !mixed.is_empty() {
        blocks.push(Block::Paragraph(format!(
            "Rule B of {} is in neither table: in this run it gave {TWINNED} caches that may lend each other room, and \
             {BASELINE} rigid shares. Its ratios are of two policies and two indices at once.",
            mixed.join(", ")
        )));
    }
    blocks
}

fn line(standing: &Standing) -> Vec<String> {
    let Standing { experiment, cell, result, ratio, n } = standing;
    let heaps = [TWINNED, result.baseline].into_iter().find_map(|subject| Some((subject, result.heaps(subject)?)));
    let heaps = heaps.map_or_else(String::new, |(subject, _)| format!(", {subject} in two heaps"));
    vec![
        format!("{}, {}{heaps}", experiment.definition.id, cell.short_id()),
        format!("`{}`", result.metric.name),
        n.to_string(),
        tables::estimate(ratio.mean),
        result.twin.map_or_else(|| "–".into(), tables::interval),
        tables::resolution(ratio.resolution),
        cell.share(TWINNED).map_or_else(|| "–".into(), number::percent),
    ]
}
