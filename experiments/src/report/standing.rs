//! Where the subject loses and where it wins: every comparison that is tested together, sorted by what may be said.

use super::analysis::{Analysis, Cell, Experiment, MetricResult, Ratio};
use super::document::{Block, Table};
use super::{number, tables};
use crate::statistics::Side;
use crate::subject::{BASELINE, TWINNED};

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

/// The tables, losses first.
pub fn blocks(analysis: &Analysis) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut losses, mut wins, mut differ) = (Vec::new(), Vec::new(), 0);
    let (mut equivalent, mut unclear) = (0, 0);
    for standing in all(analysis) {
        match (standing.good(), standing.ratio.side) {
            (Some(false), _) => losses.push(line(&standing)),
            (Some(true), _) => wins.push(line(&standing)),
            (None, Side::Equivalent) => equivalent += 1,
            (None, Side::Unclear(_)) => unclear += 1,
            (None, _) => differ += 1,
        }
    }
    for (words, rows) in [("loses to", losses), ("wins over", wins)] {
        blocks.push(Block::Heading(3, format!("Where {TWINNED} {words} {BASELINE}")));
        if rows.is_empty() {
            blocks.push(Block::Paragraph("Nowhere that this run could show.".into()));
            continue;
        }
        blocks.push(Block::Table(Table {
            caption: format!("{} comparisons, after Holm's procedure.", rows.len()),
            header: vec!["cell", "metric", "n", "ratio", "A/A", "resolution", "share in the allocator"],
            text_columns: 2,
            rows,
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
