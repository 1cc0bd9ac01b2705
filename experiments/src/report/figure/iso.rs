//! The bytes a mode needs to run at its best.

use super::super::analysis::{Analysis, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{INK, LEFT, PANEL, WIDTH, data, draw, line};
use super::mark::{colour, legend, legend_height, marker};
use crate::failure::Failure;
use crate::subject::Subject;
use perseq_statistics::median;
use plotters::prelude::*;

/// Share of its own best that counts as running at its best.
const ENOUGH: f64 = 0.95;

/// A mode, its medians of bytes and of performance relative to its best, and the least bytes that suffice.
pub struct Need {
    /// The mode.
    pub subject: Subject,
    points: Vec<(f64, f64)>,
    /// Least median bytes with which it reaches [`ENOUGH`]. None: it holds no bytes at all.
    pub bytes: Option<f64>,
}

/// What each mode needs.
pub fn needs(experiment: &Experiment, metric: &str, bytes: &str) -> Vec<Need> {
    let point = |cell: &super::super::analysis::Cell, subject: Subject| {
        let middle = |name: &str| {
            let mut values = cell.result(name)?.of(subject);
            (!values.is_empty()).then(|| median(&mut values))
        };
        Some((middle(bytes)?, middle(metric)?))
    };
    let need = |subject: Subject| {
        let mut points: Vec<_> = experiment.cells.iter().filter_map(|cell| point(cell, subject)).collect();
        let best = points.iter().map(|point| point.1).fold(0.0, f64::max);
        points.iter_mut().for_each(|point| point.1 /= best);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let enough = points.iter().filter(|point| point.1 >= ENOUGH).map(|point| point.0).reduce(f64::min);
        (points.len() > 1).then_some(Need { subject, points, bytes: enough.filter(|bytes| *bytes > 0.0) })
    };
    Subject::all().filter_map(need).collect()
}

/// Performance relative to a mode's own best, against the bytes its caches held.
pub fn iso(analysis: &Analysis, experiment: &Experiment, metric: &str, bytes: &str) -> Result<Option<Figure>, Failure> {
    let needs = needs(experiment, metric, bytes);
    let all = || needs.iter().flat_map(|need| &need.points);
    if needs.is_empty() || !all().any(|point| point.0 > 0.0) {
        return Ok(None);
    }
    let x = Axis::around(&all().map(|point| point.0).collect::<Vec<_>>(), true);
    let y = Axis { low: 0.0, high: 1.08, log: false, zero: false };
    let subjects: Vec<_> = needs.iter().map(|need| need.subject).collect();
    let top = legend_height(&subjects) + 40;
    let svg = draw((WIDTH as u32, top as u32 + 300), |area| {
        legend(area, &subjects)?;
        let panel = Panel { left: LEFT, top, width: PANEL, height: 228, x, y };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let label = format!("{} (all caches)", bytes.replace('_', " "));
        let title = format!("{metric}: share of own best");
        panel.frame_with(area, &title, (&label, &x.few_binary_ticks()), &y.ticks(), percent, |bytes| {
            number::axis(bytes, "bytes")
        })?;
        line(area, &[panel.place(x.low, ENOUGH), panel.place(x.high, ENOUGH)], INK.mix(0.5), 1)?;
        for need in &needs {
            let colour = colour(need.subject).to_rgba();
            let path: Vec<_> = need.points.iter().map(|(x, y)| panel.place(*x, *y)).collect();
            line(area, &path, colour, 2)?;
            for place in path {
                marker(area, need.subject, place, 5, colour)?;
            }
            if let Some(bytes) = need.bytes {
                line(area, &[panel.place(bytes, ENOUGH), panel.place(bytes, 0.0)], colour, 1)?;
            }
        }
        Ok(())
    })?;
    let found: Vec<_> = needs
        .iter()
        .map(|need| match need.bytes {
            Some(bytes) => format!("{}: {}", need.subject, number::bytes(bytes)),
            None => format!("{}: none", need.subject),
        })
        .collect();
    let caption = format!(
        "{}: `{metric}` relative to the mode's own best, against `{bytes}`; medians, one mark for each capacity. Least bytes \
         for 95 %: {}. n = {} blocks or more. {}.",
        experiment.definition.id,
        found.join("; "),
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    let rows = needs.iter().flat_map(|need| {
        need.points.iter().map(|(bytes, share)| [need.subject.to_string(), bytes.to_string(), format!("{share:.6}")])
    });
    let data = data(["mode", bytes, "share_of_best"], rows);
    let name = format!("{}-iso-performance", experiment.definition.id.to_lowercase());
    Ok(Some(Figure { name, caption, svg, data }))
}
