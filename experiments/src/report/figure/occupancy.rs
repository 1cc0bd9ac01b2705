//! Bytes of each cache, side by side.

use super::super::analysis::{Analysis, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{data, draw};
use super::mark::colour;
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::subject::Subject;
use plotters::prelude::*;

/// Bars for every cache of one sample of each mode, the fullest first; the last cell only, which has the most threads.
pub fn occupancy(analysis: &Analysis, experiment: &Experiment) -> Result<Option<Figure>, Failure> {
    let Some(cell) = experiment.cells.iter().max_by_key(|cell| cell.parameters.get("threads_per_cpu")) else {
        return Ok(None);
    };
    let bytes = |subject: Subject| -> Option<(Subject, Vec<u64>)> {
        let row = analysis.rows.iter().find(|row| {
            row.planned.cell_id == cell.id
                && row.planned.task.mode_requested == subject
                && row.planned.block == 0
                && row.status == Status::Ok
        })?;
        let caches = &row.report.as_ref()?.measurement.caches;
        let mut bytes: Vec<_> = caches.iter().map(|cache| cache.cached_bytes).filter(|bytes| *bytes > 0).collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        (!bytes.is_empty()).then_some((subject, bytes))
    };
    let shown: Vec<_> = Subject::all().filter_map(bytes).collect();
    let Some(most) = shown.iter().flat_map(|(_, bytes)| bytes).max() else { return Ok(None) };
    let widest = shown.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(1);
    let y = Axis { low: 0.0, high: *most as f64 * 1.08, log: false, zero: false };
    let x = Axis { low: 0.0, high: widest as f64, log: false, zero: false };
    let panels = shown.len() as i32;
    let svg = draw((960, 330), |area| {
        let gap = 24;
        let width = (960 - 110 - gap * (panels - 1)) / panels;
        for (index, (subject, bytes)) in shown.iter().enumerate() {
            let panel = Panel { left: 90 + index as i32 * (width + gap), top: 40, width, height: 220, x, y };
            for (rank, bytes) in bytes.iter().enumerate() {
                let (from, to) = (panel.place(rank as f64, 0.0), panel.place(rank as f64 + 1.0, *bytes as f64));
                let room = i32::from(to.0 - from.0 > 3);
                area.draw(&Rectangle::new(
                    [(from.0, to.1), ((to.0 - room).max(from.0 + 1), from.1)],
                    colour(*subject).mix(0.85).filled(),
                ))?;
            }
            let y_ticks = if index == 0 { y.binary_ticks() } else { Vec::new() };
            let title = format!("{subject}: {} caches", bytes.len());
            panel.frame(area, &title, ("cache, fullest first", &x.ticks()), &y_ticks, |bytes| {
                number::axis(bytes, "bytes")
            })?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}, {}: bytes in each cache that holds any, in block 0. {}.",
        experiment.definition.id,
        cell.short_id(),
        analysis.manifest.host_caption
    );
    let rows = shown.iter().flat_map(|(subject, bytes)| {
        let row = move |(rank, bytes): (usize, &u64)| [subject.to_string(), (rank + 1).to_string(), bytes.to_string()];
        bytes.iter().enumerate().map(row)
    });
    let data = data(["mode", "rank", "cached_bytes"], rows);
    Ok(Some(Figure { name: format!("{}-occupancy", experiment.definition.id.to_lowercase()), caption, svg, data }))
}
