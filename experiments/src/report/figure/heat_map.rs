//! A ratio over two parameters, as colours.

use super::super::analysis::{Analysis, Cell, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::canvas::{INK, WIDTH, data, draw, line, text};
use crate::failure::Failure;
use crate::subject::{BASELINE, TWINNED};
use perseq_statistics::Side;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// The ratio of the twinned subject to the baseline: blue above 1, orange below, hatched where it is unclear.
pub fn heat_map(
    analysis: &Analysis,
    experiment: &Experiment,
    metric: &str,
    across: &str,
    up: &str,
) -> Result<Option<Figure>, Failure> {
    let place = |cell: &Cell| {
        let (x, y) = (*cell.parameters.get(across)?, *cell.parameters.get(up)?);
        // A cell that differs in something else has no place here.
        let expected: String = [(across, x), (up, y)].map(|(name, value)| format!("/{name}={value}")).concat();
        let other: String = [(up, y), (across, x)].map(|(name, value)| format!("/{name}={value}")).concat();
        let id = cell.id.split_once('/').map_or("", |(_, rest)| rest);
        let ratio = cell.result(metric)?.ratio(TWINNED)?.clone();
        (expected[1..] == *id || other[1..] == *id).then_some((x, y, ratio))
    };
    let cells: Vec<_> = experiment.cells.iter().filter_map(place).collect();
    let sorted = |mut values: Vec<u64>| {
        values.sort_unstable();
        values.dedup();
        values
    };
    let xs = sorted(cells.iter().map(|cell| cell.0).collect());
    let ys = sorted(cells.iter().map(|cell| cell.1).collect());
    if xs.len() < 2 || ys.len() < 2 {
        return Ok(None);
    }
    let reach = cells.iter().map(|cell| cell.2.mean.ratio.ln().abs()).fold(0.1, f64::max);
    let (left, top, height) = (136, 44, 76);
    let width = (WIDTH - left - 10) / xs.len() as i32;
    let bottom = top + height * ys.len() as i32;
    let svg = draw((WIDTH as u32, bottom as u32 + 40), |area| {
        let title = format!("{metric}: {TWINNED} to {BASELINE}");
        text(area, &title, (left, 20), HPos::Left, VPos::Center)?;
        for (x, y, ratio) in &cells {
            let column = xs.iter().position(|value| value == x).unwrap_or(0) as i32;
            let row = ys.iter().rev().position(|value| value == y).unwrap_or(0) as i32;
            let (from, to) = (
                (left + column * width + 2, top + row * height + 2),
                (left + (column + 1) * width - 2, top + (row + 1) * height - 2),
            );
            let strength = (ratio.mean.ratio.ln().abs() / reach).min(1.0);
            let colour = if ratio.mean.ratio >= 1.0 { RGBColor(0x00, 0x72, 0xb2) } else { RGBColor(0xd5, 0x5e, 0x00) };
            area.draw(&Rectangle::new([from, to], colour.mix(0.08 + 0.42 * strength).filled()))?;
            if matches!(ratio.side, Side::Unclear(_)) {
                for offset in (0..width + height).step_by(14) {
                    let begin = (from.0 + (offset - (to.1 - from.1)).max(0), from.1 + offset.min(to.1 - from.1));
                    let end = (from.0 + offset.min(to.0 - from.0), from.1 + (offset - (to.0 - from.0)).max(0));
                    if begin.0 <= to.0 && end.1 <= to.1 {
                        line(area, &[begin, end], INK.mix(0.18), 1)?;
                    }
                }
            }
            let middle = ((from.0 + to.0) / 2, (from.1 + to.1) / 2);
            let [low, high] = [ratio.mean.low, ratio.mean.high].map(number::ratio);
            for (down, words) in [(-22, number::ratio(ratio.mean.ratio)), (2, format!("{low} to")), (22, high)] {
                text(area, &words, (middle.0, middle.1 + down), HPos::Center, VPos::Center)?;
            }
        }
        for (column, x) in xs.iter().enumerate() {
            let at = left + column as i32 * width + width / 2;
            text(area, &experiment.definition.label(across, *x), (at, bottom + 8), HPos::Center, VPos::Top)?;
        }
        for (row, y) in ys.iter().rev().enumerate() {
            let at = top + row as i32 * height + height / 2;
            let label = format!("{} = {y}", up.trim_end_matches("_percent"));
            let label = if up.ends_with("_percent") { format!("{label} %") } else { label };
            text(area, &label, (left - 8, at), HPos::Right, VPos::Center)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: ratio of {TWINNED} to {BASELINE} in `{metric}`, with its 95 % interval. Blue: above 1. Orange: below. \
         Hatched: unclear. n = {} blocks or more. {}.",
        experiment.definition.id,
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    let rows = cells.iter().map(|(x, y, ratio)| {
        let mean = ratio.mean;
        let [ratio, low, high] = [mean.ratio, mean.low, mean.high].map(|value| format!("{value:.6}"));
        [x.to_string(), y.to_string(), ratio, low, high]
    });
    let data = data([across, up, "ratio", "ci_lo", "ci_hi"], rows);
    Ok(Some(Figure { name: format!("{}-{metric}-map", experiment.definition.id.to_lowercase()), caption, svg, data }))
}
