//! The one-page summary.

use super::super::analysis::Analysis;
use super::super::document::Figure;
use super::super::number;
use super::{Axis, INK, colour, draw, line, marker, text};
use crate::failure::Failure;
use crate::subject::BASELINE;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// One page: every headline ratio with its interval, the A/A interval behind it.
pub fn forest(analysis: &Analysis) -> Result<Figure, Failure> {
    let mut rows = Vec::new();
    for experiment in &analysis.experiments {
        let metric = &experiment.definition.headline;
        for cell in &experiment.cells {
            let Some(result) = cell.result(metric) else {
                continue;
            };
            for comparison in &result.comparisons {
                if let Ok(ratio) = &comparison.ratio {
                    let label = format!(
                        "{} {}",
                        experiment.definition.id,
                        cell.short_id().replace("rule ", "").replace(" = ", "=")
                    );
                    rows.push((
                        label,
                        metric.clone(),
                        comparison.subject,
                        *ratio,
                        result.twin,
                        result.word(ratio.side),
                    ));
                }
            }
        }
    }
    let bounds = rows.iter().flat_map(|row| [row.3.mean.low, row.3.mean.high]).chain([0.8, 1.25]);
    let (low, high) = bounds.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (left, width, step, top) = (385, 340, 24, 40);
    let bottom = top + step * rows.len() as i32;
    let axis = Axis { low: low * 0.93, high: high * 1.07, log: true, zero: false };
    let x = |value: f64| left + (axis.place(value) * f64::from(width)).round() as i32;
    let svg = draw((960, bottom as u32 + 60), |area| {
        for tick in axis.ticks() {
            line(area, &[(x(tick), top), (x(tick), bottom)], INK.mix(0.15), 1)?;
            text(area, &number::tick(tick), (x(tick), bottom + 6), HPos::Center, VPos::Top)?;
        }
        line(area, &[(x(1.0), top - 6), (x(1.0), bottom)], INK.mix(0.7), 1)?;
        text(area, &format!("ratio to {BASELINE} (log)"), (left + width / 2, bottom + 28), HPos::Center, VPos::Top)?;
        for (column, place) in [("cell", 8), ("metric", 195), ("mode", 290)] {
            text(area, column, (place, top - 22), HPos::Left, VPos::Center)?;
        }
        text(area, "95 % interval", (left + width + 16, top - 22), HPos::Left, VPos::Center)?;
        for (index, (label, metric, subject, ratio, twin, word)) in rows.iter().enumerate() {
            let y = top + step * index as i32 + step / 2;
            if let Some(twin) = twin {
                let ends = [(x(twin.low.max(axis.low)), y - 9), (x(twin.high.min(axis.high)), y + 9)];
                area.draw(&Rectangle::new(ends, INK.mix(0.16).filled()))?;
            }
            let new = index == 0 || rows[index - 1].0 != *label;
            if new {
                text(area, label, (8, y), HPos::Left, VPos::Center)?;
                text(area, metric, (195, y), HPos::Left, VPos::Center)?;
                if index > 0 {
                    line(area, &[(8, y - step / 2), (952, y - step / 2)], INK.mix(0.12), 1)?;
                }
            }
            text(area, subject.name(), (290, y), HPos::Left, VPos::Center)?;
            let colour = colour(*subject);
            line(area, &[(x(ratio.mean.low), y), (x(ratio.mean.high), y)], colour.to_rgba(), 3)?;
            marker(area, *subject, (x(ratio.mean.ratio), y), 5, colour.to_rgba())?;
            let interval = format!("{} to {}  {word}", number::ratio(ratio.mean.low), number::ratio(ratio.mean.high));
            text(area, &interval, (left + width + 16, y), HPos::Left, VPos::Center)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "Headline metrics: geometric mean ratio to {BASELINE}, paired t interval, n = {} blocks or more. \
         Grey bars: the A/A interval of percpu against itself. {}.",
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    Ok(Figure { name: "forest".into(), caption, svg })
}
