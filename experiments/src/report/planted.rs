//! What was planted, and what came of it: the baseline slowed down by known work, found by the same rule or not.

use super::analysis::{Analysis, Cell, Experiment, MetricResult, Planted};
use super::document::{Block, Table};
use super::{number, tables};
use crate::definition::Better;
use crate::subject::BASELINE;
use std::collections::BTreeMap;

fn planted(experiment: &Experiment) -> impl Iterator<Item = (&Cell, &MetricResult, &Planted)> {
    experiment.cells.iter().flat_map(|cell| {
        let result = cell.result(&experiment.definition.headline).into_iter();
        result.flat_map(move |result| result.planted.iter().map(move |planted| (cell, result, planted)))
    })
}

/// What the ratio is to be.
fn expected(planted: &Planted, better: Better) -> f64 {
    let slower = 1.0 + planted.percent as f64 / 100.0;
    if better == Better::MoreRate { 1.0 / slower } else { slower }
}

/// Whether the run says that it finds as much.
fn promised(result: &MetricResult, planted: &Planted) -> bool {
    result.resolution.is_some_and(|resolution| planted.percent as f64 / 100.0 >= resolution)
}

/// One line over all cells, and those in which the promise was not kept.
pub fn summary(analysis: &Analysis) -> Vec<Block> {
    let mut by_percent: BTreeMap<u64, [usize; 4]> = BTreeMap::new();
    let mut missed = Vec::new();
    for experiment in &analysis.experiments {
        for (cell, result, planted) in planted(experiment) {
            let promised = promised(result, planted);
            let [found, all, found_of_promised, of_promised] = by_percent.entry(planted.percent).or_default();
            *all += 1;
            *found += usize::from(planted.found);
            *of_promised += usize::from(promised);
            *found_of_promised += usize::from(promised && planted.found);
            if promised && !planted.found {
                missed.push(format!("{} {}: {} %", experiment.definition.id, cell.short_id(), planted.percent));
            }
        }
    }
    if by_percent.is_empty() {
        return Vec::new();
    }
    let line = |(percent, [found, all, found_of_promised, of_promised]): (&u64, &[usize; 4])| {
        format!(
            "{percent} %: found in {found} of {}, and in {found_of_promised} of the {of_promised} that promise it",
            number::count(*all, "cell")
        )
    };
    let lines: Vec<_> = by_percent.iter().map(line).collect();
    let mut blocks = vec![Block::Paragraph(format!(
        "Planted: {BASELINE} slowed down by known work, and judged like any mode. {}. A cell promises a percentage if its \
         resolution, of the whole rule in the noise of A/A, is as fine; it is to keep that four times in five.",
        lines.join("; ")
    ))];
    if !missed.is_empty() {
        blocks.push(Block::Notice(format!("Planted, promised and not found: {}.", missed.join("; "))));
    }
    blocks
}

/// Cell by cell. None: nothing was planted here.
pub fn table(experiment: &Experiment) -> Option<Table> {
    let rows: Vec<_> = planted(experiment)
        .map(|(cell, result, planted)| {
            let ratio = planted.ratio.as_ref().map_or_else(Clone::clone, |ratio| tables::estimate(ratio.mean));
            let late = if promised(result, planted) { "not found, although promised" } else { "not found" };
            vec![
                cell.short_id(),
                format!("{} %", planted.percent),
                planted.n.to_string(),
                number::ratio(expected(planted, result.metric.better)),
                ratio,
                tables::resolution(result.resolution),
                if planted.found { "found" } else { late }.into(),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        caption: format!(
            "Planted: {BASELINE} with known work, against {BASELINE}. Expected: the ratio that this work makes. Resolution: \
             the smallest difference that the whole rule finds four times in five in noise like that of A/A."
        ),
        header: vec!["cell", "planted", "n", "expected", "ratio", "resolution", "outcome"],
        text_columns: 2,
        rows,
    })
}
