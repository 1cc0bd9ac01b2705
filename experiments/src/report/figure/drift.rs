//! Whether the host changed while the run went on.

use super::super::analysis::Analysis;
use super::super::document::Figure;
use super::axis::{Axis, Panel};
use super::canvas::{INK, LEFT, PANEL, WIDTH, data, draw, line};
use super::mark::{colour, legend, legend_height, marker};
use crate::experiment;
use crate::failure::Failure;
use crate::subject::Subject;
use plotters::prelude::*;
use std::collections::BTreeSet;

/// Residual of every headline value against its place in the run: a trend here means that time, not mode, was measured.
pub fn drift(analysis: &Analysis) -> Result<Option<Figure>, Failure> {
    let mut points = Vec::new();
    for experiment in &analysis.experiments {
        let metric = &experiment.definition.headline;
        for subject in Subject::all() {
            for cell in &experiment.cells {
                let rows = analysis
                    .rows
                    .iter()
                    .filter(|row| row.planned.cell_id == cell.id && row.planned.task.mode_requested == subject);
                let values: Vec<_> = rows
                    .filter_map(|row| {
                        Some((row.planned.order_index, experiment::value(row, metric).filter(|value| *value > 0.0)?))
                    })
                    .collect();
                let mean = values.iter().map(|(_, value)| value.ln()).sum::<f64>() / values.len().max(1) as f64;
                points.extend(
                    values.iter().map(|(index, value)| (subject, *index as f64, (value.ln() - mean).exp_m1() * 100.0)),
                );
            }
        }
    }
    if points.is_empty() {
        return Ok(None);
    }
    let reach = points.iter().map(|point| point.2.abs()).fold(1.0, f64::max) * 1.1;
    let mut subjects: Vec<_> = points.iter().map(|point| point.0).collect();
    subjects.sort_by_key(|subject| subject.rank());
    subjects.dedup();
    let top = legend_height(&subjects) + 40;
    let svg = draw((WIDTH as u32, top as u32 + 270), |area| {
        legend(area, &subjects)?;
        // A part's samples have their places in the whole plan.
        let end = points.iter().map(|point| point.1).fold(analysis.planned as f64, f64::max);
        let x = Axis { low: -1.0, high: end, log: false, zero: false };
        let y = Axis { low: -reach, high: reach, log: false, zero: false };
        let panel = Panel { left: LEFT, top, width: PANEL, height: 198, x, y };
        let percent = |value: f64| if value == 0.0 { "0 %".to_owned() } else { format!("{value:+.0} %") };
        let title = "deviation from the mean of cell and mode";
        panel.frame(area, title, ("place in the run", &x.few_ticks()), &y.ticks(), percent)?;
        line(area, &[panel.place(x.low, 0.0), panel.place(x.high, 0.0)], INK.mix(0.5), 1)?;
        let mut drawn = BTreeSet::new();
        for (subject, index, residual) in &points {
            let place = panel.place(*index, *residual);
            // Of a long run many samples share a place, and one mark shows them.
            if drawn.insert((subject.rank(), place)) {
                marker(area, *subject, place, 3, colour(*subject).mix(0.8))?;
            }
        }
        Ok(())
    })?;
    let caption = format!(
        "Run order: deviation of each sample's headline metric from the mean of its cell and mode. n = {}. {}.",
        points.len(),
        analysis.manifest.host_caption
    );
    let rows = points
        .iter()
        .map(|(subject, index, residual)| [index.to_string(), subject.to_string(), format!("{residual:.4}")]);
    let data = data(["place", "mode", "deviation_percent"], rows);
    Ok(Some(Figure { name: "run-order".into(), caption, svg, data }))
}
