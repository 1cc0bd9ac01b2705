//! How many operations took longer than a time: the tail, from the histograms of all samples.

use super::super::analysis::{Analysis, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{LEFT, PANEL, WIDTH, data, draw, line};
use super::mark::{colour, legend, legend_height, marker};
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::subject::Subject;
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Share that took longer, against the time; both logarithmic, a panel for each cell.
pub fn tail(
    analysis: &Analysis,
    experiment: &Experiment,
    histogram: &str,
    label: &str,
) -> Result<Option<Figure>, Failure> {
    // Every sample's histogram added up: a picture. The table's percentiles are of single processes.
    let pooled = |cell: &str, subject: Subject| -> Vec<(f64, f64)> {
        let mut sum: BTreeMap<u64, u64> = BTreeMap::new();
        let rows = analysis.rows.iter().filter(|row| {
            row.planned.cell_id == cell
                && row.planned.task.mode_requested == subject
                && !row.planned.twin
                && row.status == Status::Ok
        });
        for (value, count) in
            rows.filter_map(|row| row.report.as_ref()?.measurement.histograms.get(histogram)).flatten()
        {
            *sum.entry(*value).or_default() += count;
        }
        let all: u64 = sum.values().sum();
        let mut left = all;
        let mut points = Vec::with_capacity(sum.len());
        for (value, count) in sum {
            left -= count;
            // The last bucket has nothing beyond it; half a value keeps it on the axis.
            points.push((value as f64, (left as f64).max(0.5) / all as f64));
        }
        points
    };
    let mut everything = Vec::new();
    for (index, cell) in experiment.cells.iter().enumerate() {
        for subject in Subject::all() {
            let points = pooled(&cell.id, subject);
            if points.len() > 1 {
                everything.push((index, subject, points));
            }
        }
    }
    if everything.is_empty() {
        return Ok(None);
    }
    let points = || everything.iter().flat_map(|(_, _, points)| points);
    let x_axis = Axis::around(&points().map(|point| point.0).collect::<Vec<_>>(), true);
    let least = points().map(|point| point.1).fold(1.0, f64::min);
    let y_axis = Axis { low: least / 1.5, high: 1.2, log: true, zero: false };
    let mut subjects: Vec<_> = everything.iter().map(|(_, subject, _)| *subject).collect();
    subjects.sort_by_key(|subject| subject.rank());
    subjects.dedup();
    const STEP: i32 = 300;
    let top = legend_height(&subjects) + 34;
    let svg = draw((WIDTH as u32, (top + STEP * experiment.cells.len() as i32) as u32), |area| {
        legend(area, &subjects)?;
        for (index, cell) in experiment.cells.iter().enumerate() {
            let panel =
                Panel { left: LEFT, top: top + STEP * index as i32, width: PANEL, height: 220, x: x_axis, y: y_axis };
            let y_text = |share: f64| format!("{} %", number::tick(share * 100.0));
            let decades = y_axis.ticks();
            panel.frame_with(
                area,
                &format!("took longer, {}", cell.short_id()),
                (label, &x_axis.few_ticks()),
                &decades,
                y_text,
                number::nanoseconds,
            )?;
            for (_, subject, points) in everything.iter().filter(|(of, _, _)| *of == index) {
                let path: Vec<_> = points.iter().map(|(x, y)| panel.place(*x, *y)).collect();
                line(area, &path, colour(*subject).to_rgba(), 2)?;
                if let Some(last) = path.last() {
                    marker(area, *subject, *last, 5, colour(*subject).to_rgba())?;
                }
            }
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: share of {label} that took longer. All processes of a mode together; the mark is the longest seen. n = {} blocks \
         or more. {}.",
        experiment.definition.id,
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    let rows = everything.iter().flat_map(|(index, subject, points)| {
        let cell = &experiment.cells[*index].id;
        points.iter().map(move |(ns, share)| [cell.clone(), subject.to_string(), ns.to_string(), format!("{share:.9}")])
    });
    let data = data(["cell", "mode", "ns", "share_longer"], rows);
    let name = format!("{}-{histogram}-tail", experiment.definition.id.to_lowercase());
    Ok(Some(Figure { name, caption, svg, data }))
}
