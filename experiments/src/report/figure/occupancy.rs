//! Bytes of each cache, side by side.

use super::super::analysis::{Analysis, Cell, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{LEFT, PANEL, WIDTH, data, draw};
use super::mark::colour;
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::subject::{BASELINE, Subject, TWINNED};
use plotters::prelude::*;

/// Bars for every cache of one sample of each mode, the fullest first. Of all cells the one in which most modes have bytes in
/// a cache, and of those the one with the most threads.
pub fn occupancy(analysis: &Analysis, experiment: &Experiment) -> Result<Option<Figure>, Failure> {
    let bytes = |cell: &Cell, subject: Subject| -> Option<(Subject, Vec<u64>)> {
        let row = analysis.rows.iter().find(|row| {
            row.planned.cell_id == cell.id
                && row.planned.task.mode_requested == subject
                && row.planned.task.plain()
                && row.planned.block == 0
                && row.status == Status::Ok
        })?;
        let caches = &row.report.as_ref()?.measurement.caches;
        let mut bytes: Vec<_> = caches.iter().map(|cache| cache.cached_bytes).filter(|bytes| *bytes > 0).collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        (!bytes.is_empty()).then_some((subject, bytes))
    };
    let filled = |cell: &Cell| Subject::all().filter_map(|subject| bytes(cell, subject)).collect::<Vec<_>>();
    let found = experiment.cells.iter().map(|cell| (cell, filled(cell)));
    let both = |shown: &[(Subject, Vec<u64>)]| {
        [TWINNED, BASELINE].iter().all(|wanted| shown.iter().any(|(subject, _)| subject == wanted))
    };
    let fullest = found.max_by_key(|(cell, shown)| (both(shown), shown.len(), cell.parameters.get("threads_per_cpu")));
    let Some((cell, shown)) = fullest else { return Ok(None) };
    if shown.is_empty() {
        return Ok(None);
    }
    const STEP: i32 = 190;
    let svg = draw((WIDTH as u32, 60 + STEP as u32 * shown.len() as u32), |area| {
        for (index, (subject, bytes)) in shown.iter().enumerate() {
            // Scales of its own: a few large caches and hundreds of small ones would hide each other.
            let most = bytes.first().copied().unwrap_or(1) as f64;
            let y = Axis { low: 0.0, high: most * 1.08, log: false, zero: false };
            let x = Axis { low: 0.0, high: bytes.len() as f64, log: false, zero: false };
            let panel = Panel { left: LEFT, top: 40 + STEP * index as i32, width: PANEL, height: 110, x, y };
            for (rank, bytes) in bytes.iter().enumerate() {
                let (from, to) = (panel.place(rank as f64, 0.0), panel.place(rank as f64 + 1.0, *bytes as f64));
                let room = i32::from(to.0 - from.0 > 3);
                area.draw(&Rectangle::new(
                    [(from.0, to.1), ((to.0 - room).max(from.0 + 1), from.1)],
                    colour(*subject).mix(0.85).filled(),
                ))?;
            }
            let y_ticks = y.few_binary_ticks();
            let sum = number::bytes(bytes.iter().sum::<u64>() as f64);
            let title = format!("{subject}: {} caches, {sum}", bytes.len());
            panel.frame(area, &title, ("cache, fullest first", &x.ticks()), &y_ticks, |bytes| {
                number::axis(bytes, "bytes")
            })?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}, {}: bytes in each cache that holds any, in block 0; each mode on scales of its own. {}.",
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
