//! Index times lending: what each of the two does where the other is held still.

use super::analysis::{Cell, Experiment};
use super::document::Table;
use super::tables;
use crate::definition::Rule;
use crate::experiment::{Row, Series, pairs, series, value};
use crate::subject::{Subject, TWINNED};
use perseq_statistics::{Paired, unpaired};

/// A line for every cell that was measured with budgets that may be lent and with fixed ones. None: there is no such cell.
pub fn table(experiment: &Experiment, rows: &[Row]) -> Option<Table> {
    let headline = &experiment.definition.headline;
    let lending = experiment.cells.iter().filter(|cell| cell.rule == Some(Rule::B) && experiment.one_policy(cell));
    let mut lines = Vec::new();
    for lent in lending {
        let same = |cell: &&Cell| cell.rule > Some(Rule::B) && cell.parameters == lent.parameters;
        let Some(fixed) = experiment.cells.iter().find(same) else { continue };
        let (Some(with), Some(without)) = (lent.result(headline), fixed.result(headline)) else { continue };
        let other = with.baseline;
        let index = |cell: &Cell| {
            let values = |subject| values(rows, cell, subject, headline);
            Paired::in_layouts(&pairs(&values(other), &values(TWINNED)))
                .and_then(|paired| paired.t())
                .map_or_else(|| "–".into(), tables::estimate)
        };
        let policy = |subject: Subject| {
            let of = |cell: &Cell| values(rows, cell, subject, headline).into_values().collect::<Vec<_>>();
            unpaired(&of(fixed), &of(lent)).map_or_else(|| "–".into(), tables::estimate)
        };
        let mut label = fixed.short_id();
        for subject in [TWINNED, other] {
            lines.push(vec![
                std::mem::take(&mut label),
                subject.name().into(),
                tables::middle(with, subject),
                tables::middle(without, subject),
                policy(subject),
            ]);
        }
        lines.push(vec![String::new(), format!("{TWINNED} to {other}"), index(lent), index(fixed), "–".into()]);
    }
    (!lines.is_empty()).then(|| Table {
        caption: format!(
            "Index and lending, `{headline}`: medians, and ratios with their 95 % intervals. To the right, what lending does to \
             one index; the third line of each cell, what the index does under one policy. Blocks of two rules are not \
             paired, so the interval to the right is Welch's."
        ),
        header: vec!["cell", "mode", "caches may lend (rule B)", "fixed shares (rule C)", "lending to fixed"],
        text_columns: 2,
        rows: lines,
    })
}

/// By block: the copy that ran, and the value.
fn values(rows: &[Row], cell: &Cell, subject: Subject, metric: &str) -> Series {
    let own = rows.iter().filter(|row| row.planned.cell_id == cell.id);
    series(own, subject, false, |row| value(row, metric))
}
