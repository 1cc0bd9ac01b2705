//! How often sequences were restarted: a rate for each process, cell by cell, since cells differ a thousandfold.

use super::analysis::{Analysis, Cell, Experiment};
use super::document::Table;
use super::number;
use crate::harness::row::Status;
use crate::subject::TWINNED;
use perseq_statistics::{mean, median, poisson};

/// Restarts of the processes of one cell.
pub struct Rates<'a> {
    /// Its experiment.
    pub experiment: &'a Experiment,
    /// Its cell.
    pub cell: &'a Cell,
    /// In a billion operations, one rate for each process, with the copy of the loop that it ran.
    rates: Vec<(u64, f64)>,
    restarts: u64,
    operations: u64,
}

impl Rates<'_> {
    /// The rates alone.
    pub fn of_processes(&self) -> Vec<f64> {
        self.rates.iter().map(|(_, rate)| *rate).collect()
    }
}

/// Every cell in which the twinned subject ran.
pub fn rates(analysis: &Analysis) -> Vec<Rates<'_>> {
    let of_cell = |experiment, cell: &'_ Cell| {
        let (mut rates, mut restarts, mut operations) = (Vec::new(), 0, 0);
        for row in &analysis.rows {
            let task = &row.planned.task;
            if row.planned.cell_id != cell.id
                || task.mode_requested != TWINNED
                || row.status != Status::Ok
                || !task.plain()
            {
                continue;
            }
            let Some(report) = &row.report else { continue };
            let Some(totals) = &report.allocator else { continue };
            let own = report.measurement.ops_alloc + report.measurement.ops_free;
            if own > 0 {
                rates.push((task.layout, totals.restarts as f64 * 1e9 / own as f64));
                (restarts, operations) = (restarts + totals.restarts, operations + own);
            }
        }
        (experiment, rates, restarts, operations)
    };
    let mut found = Vec::new();
    for experiment in &analysis.experiments {
        for cell in &experiment.cells {
            let (experiment, rates, restarts, operations) = of_cell(experiment, cell);
            if !rates.is_empty() {
                found.push(Rates { experiment, cell, rates, restarts, operations });
            }
        }
    }
    found
}

/// The table.
pub fn table(analysis: &Analysis) -> Option<Table> {
    let line = |found: &Rates| {
        let mut rates = found.of_processes();
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        let interval = if found.restarts == 0 {
            // None seen in all of them together is a count, and has a bound.
            format!("below {}", number::short(poisson(0).1 * 1e9 / found.operations as f64))
        } else {
            mean(&found.rates).map_or_else(
                || "–".into(),
                |mean| format!("{} to {}", number::short(mean.low.max(0.0)), number::short(mean.high)),
            )
        };
        vec![
            format!("{}, {}", found.experiment.definition.id, found.cell.short_id()),
            rates.len().to_string(),
            number::short(median(&mut rates)),
            format!("{} to {}", number::short(least), number::short(most)),
            interval,
        ]
    };
    let rows: Vec<_> = rates(analysis).iter().map(line).collect();
    (!rows.is_empty()).then(|| Table {
        caption: format!(
            "Restarts of {TWINNED} in a billion operations. The process is the unit: each has a rate, its twin's as well. \
             Interval: of the mean rate over processes; where none was seen, the exact bound for all operations together."
        ),
        header: vec!["cell", "processes", "median", "least to most", "95 % interval"],
        text_columns: 1,
        rows,
    })
}
