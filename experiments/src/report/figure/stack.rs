//! Bytes of every tier against time, stacked.

use super::super::analysis::{Analysis, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{INK, LEFT, PANEL, WIDTH, data, draw, line, text};
use crate::experiment::{self, Row};
use crate::failure::Failure;
use crate::harness::row::Status;
use crate::subject::Subject;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// Colours of tiers, from the bottom: told apart by lightness as well.
const SHADES: [RGBColor; 5] = [
    RGBColor(0x1b, 0x4f, 0x72),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x8f, 0xc3, 0xe8),
    RGBColor(0xc9, 0xc9, 0xc4),
];

/// One panel for each mode, of the block in the middle of the headline metric; the last cell only, where the effect is
/// greatest.
pub fn stack(analysis: &Analysis, experiment: &Experiment, series: &[String]) -> Result<Option<Figure>, Failure> {
    let Some(cell) = experiment.cells.last() else { return Ok(None) };
    let headline = &experiment.definition.headline;
    let typical = |subject: Subject| -> Option<&Row> {
        let mut rows: Vec<_> = analysis
            .rows
            .iter()
            .filter(|row| {
                row.planned.cell_id == cell.id && row.planned.task.mode_requested == subject && !row.planned.twin
            })
            .filter(|row| row.status == Status::Ok && experiment::value(row, headline).is_some())
            .collect();
        rows.sort_by(|a, b| {
            experiment::value(a, headline)
                .partial_cmp(&experiment::value(b, headline))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        rows.get(rows.len() / 2).copied()
    };
    let shown: Vec<_> = Subject::all().filter_map(|subject| Some((subject, typical(subject)?))).collect();
    let layers = |row: &Row| -> Vec<Vec<(u64, u64)>> {
        let mut below: Vec<(u64, u64)> = Vec::new();
        let mut layers = Vec::new();
        for name in series {
            let values = row.report.as_ref().and_then(|report| report.measurement.series.get(name));
            let values = values.cloned().unwrap_or_default();
            let sum = |index: usize, value: u64| value + below.get(index).map_or(0, |below| below.1);
            below = values.iter().enumerate().map(|(index, (at, value))| (*at, sum(index, *value))).collect();
            layers.push(below.clone());
        }
        layers
    };
    let drawn: Vec<_> = shown.iter().map(|(subject, row)| (*subject, layers(row))).collect();
    let points = || drawn.iter().flat_map(|(_, layers)| layers).flatten();
    let (Some(last), Some(most)) = (points().map(|point| point.0).max(), points().map(|point| point.1).max()) else {
        return Ok(None);
    };
    let x = Axis { low: 0.0, high: last as f64 / 1e9, log: false, zero: false };
    let y = Axis { low: 0.0, high: most as f64 * 1.05, log: false, zero: false };
    const STEP: i32 = 230;
    let words: Vec<_> = series.iter().map(|name| name.replace('_', " ")).collect();
    let top = 22 * words.len() as i32 + 40;
    let svg = draw((WIDTH as u32, (top + STEP * drawn.len() as i32) as u32), |area| {
        // From the top, as they lie on each other.
        for (index, (name, shade)) in words.iter().zip(SHADES).rev().enumerate() {
            let y = 12 + 22 * index as i32;
            area.draw(&Rectangle::new([(LEFT, y - 7), (LEFT + 14, y + 7)], shade.filled()))?;
            text(area, name, (LEFT + 20, y), HPos::Left, VPos::Center)?;
        }
        for (index, (subject, layers)) in drawn.iter().enumerate() {
            let panel = Panel { left: LEFT, top: top + STEP * index as i32, width: PANEL, height: 150, x, y };
            for (layer, shade) in layers.iter().zip(SHADES).rev() {
                let mut outline: Vec<_> =
                    layer.iter().map(|(at, bytes)| panel.place(*at as f64 / 1e9, *bytes as f64)).collect();
                let (Some(first), Some(end)) = (outline.first().copied(), outline.last().copied()) else { continue };
                outline.extend([(end.0, panel.top + panel.height), (first.0, panel.top + panel.height)]);
                area.draw(&Polygon::new(outline, shade.filled()))?;
            }
            let y_ticks = y.few_binary_ticks();
            let y_text = |bytes: f64| number::axis(bytes, "bytes");
            panel.frame(area, subject.name(), ("seconds", &x.ticks()), &y_ticks, y_text)?;
            line(area, &[(panel.left, panel.top), (panel.left + panel.width, panel.top)], INK.mix(0.08), 1)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}, {}: bytes of every tier over time, in the sample of each mode that is in the middle of `{headline}`. {}.",
        experiment.definition.id,
        cell.short_id(),
        analysis.manifest.host_caption
    );
    let rows = drawn.iter().flat_map(|(subject, layers)| {
        series.iter().zip(layers).flat_map(move |(name, layer)| {
            layer.iter().map(move |(at, top)| [subject.to_string(), name.clone(), at.to_string(), top.to_string()])
        })
    });
    let data = data(["mode", "tier", "time_ns", "bytes_up_to_and_with"], rows);
    Ok(Some(Figure { name: format!("{}-tiers", experiment.definition.id.to_lowercase()), caption, svg, data }))
}
