//! Ratios with their intervals, one below the other: the whole run on one page, or every mode of one experiment.

use super::super::analysis::{Analysis, Experiment, Ratio};
use super::super::document::Figure;
use super::super::number;
use super::axis::Axis;
use super::canvas::{Area, Drawn, INK, data, draw, line, text};
use super::mark::{colour, marker};
use crate::failure::Failure;
use crate::statistics::Estimate;
use crate::subject::{BASELINE, Subject, TWINNED};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// A line of the plot.
enum Row {
    /// Words over what follows.
    Heading(String),
    /// A ratio: cell, mode, ratio, A/A interval, verdict.
    Ratio(String, Subject, Ratio, Option<Estimate>, &'static str),
}

/// One page: the headline ratio of the subject in every cell, the A/A interval behind it.
pub fn forest(analysis: &Analysis) -> Result<Figure, Failure> {
    let mut rows = Vec::new();
    for experiment in &analysis.experiments {
        let ratios = ratios(experiment, |subject| subject == TWINNED);
        if !ratios.is_empty() {
            let definition = &experiment.definition;
            rows.push(Row::Heading(format!("{} {}, {}", definition.id, definition.title, definition.headline)));
            rows.extend(ratios);
        }
    }
    let caption = format!(
        "Every cell's headline metric: geometric mean ratio of {TWINNED} to {BASELINE}, paired t interval, n = {} blocks or more. \
         Grey bars: the A/A interval of {TWINNED} against itself. {}.",
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    plot("forest".into(), caption, &rows)
}

/// Every mode of one experiment. None: there is no other than the subject, and the page shows that.
pub fn modes(analysis: &Analysis, experiment: &Experiment) -> Result<Option<Figure>, Failure> {
    let rows = ratios(experiment, |_| true);
    if !rows.iter().any(|row| matches!(row, Row::Ratio(_, subject, ..) if *subject != TWINNED)) {
        return Ok(None);
    }
    let caption = format!(
        "{}: `{}` of every mode, ratio to {BASELINE}. Grey bars: {TWINNED} against itself. n = {} blocks or more. {}.",
        experiment.definition.id,
        experiment.definition.headline,
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    plot(format!("{}-forest", experiment.definition.id.to_lowercase()), caption, &rows).map(Some)
}

/// An arrowhead where an interval leaves the figure.
fn goes_on(area: &Area, (x, y): (i32, i32), side: i32, colour: RGBAColor) -> Drawn {
    line(area, &[(x - side * 7, y - 5), (x, y), (x - side * 7, y + 5)], colour, 2)
}

fn ratios(experiment: &Experiment, wanted: impl Fn(Subject) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for cell in &experiment.cells {
        let Some(result) = cell.result(&experiment.definition.headline) else { continue };
        let label = cell.short_id().replace("rule ", "").replace(" = ", "=");
        for comparison in result.comparisons.iter().filter(|comparison| wanted(comparison.subject)) {
            if let Ok(ratio) = &comparison.ratio {
                let word = result.word(ratio.side);
                rows.push(Row::Ratio(label.clone(), comparison.subject, *ratio, result.twin, word));
            }
        }
    }
    rows
}

fn plot(name: String, caption: String, rows: &[Row]) -> Result<Figure, Failure> {
    let ends = rows.iter().flat_map(|row| match row {
        Row::Ratio(_, _, ratio, ..) => vec![ratio.mean.low, ratio.mean.high],
        Row::Heading(_) => Vec::new(),
    });
    // Beyond a factor of a thousand the interval only says that nothing is known.
    let (low, high) = ends
        .chain([0.8, 1.25])
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value.max(1e-3)), high.max(value.min(1e3))));
    // Without other modes no column says which one it is, and the plot begins within the width of a phone.
    let single = rows.iter().all(|row| !matches!(row, Row::Ratio(_, subject, ..) if *subject != TWINNED));
    let (left, width, step, top, mode) = (if single { 265 } else { 385 }, 340, 23, 40, 265);
    let full = left + width + 235;
    let bottom = top + step * rows.len() as i32;
    let axis = Axis { low: low * 0.93, high: high * 1.07, log: true, zero: false };
    let x = |value: f64| left + (axis.place(value.clamp(axis.low, axis.high)) * f64::from(width)).round() as i32;
    let svg = draw((full as u32, bottom as u32 + 60), |area| {
        for tick in axis.ticks() {
            line(area, &[(x(tick), top), (x(tick), bottom)], INK.mix(0.15), 1)?;
            text(area, &number::tick(tick), (x(tick), bottom + 6), HPos::Center, VPos::Top)?;
        }
        line(area, &[(x(1.0), top - 6), (x(1.0), bottom)], INK.mix(0.7), 1)?;
        text(area, &format!("ratio to {BASELINE} (log)"), (left + width / 2, bottom + 28), HPos::Center, VPos::Top)?;
        for (column, place) in [("cell", 8), ("mode", mode), ("95 % interval", left + width + 16)] {
            if column == "mode" && single {
                continue;
            }
            text(area, column, (place, top - 22), HPos::Left, VPos::Center)?;
        }
        let mut last = "";
        for (index, row) in rows.iter().enumerate() {
            let y = top + step * index as i32 + step / 2;
            match row {
                Row::Heading(words) => {
                    area.draw(&Rectangle::new([(4, y - 11), (full - 4, y + 11)], INK.mix(0.07).filled()))?;
                    text(area, words, (8, y), HPos::Left, VPos::Center)?;
                    last = "";
                }
                Row::Ratio(label, subject, ratio, twin, word) => {
                    if let Some(twin) = twin {
                        let ends = [(x(twin.low), y - 9), (x(twin.high), y + 9)];
                        area.draw(&Rectangle::new(ends, INK.mix(0.16).filled()))?;
                    }
                    if label != last {
                        text(area, label, (8, y), HPos::Left, VPos::Center)?;
                        last = label;
                    }
                    if !single {
                        text(area, subject.name(), (mode, y), HPos::Left, VPos::Center)?;
                    }
                    let colour = colour(*subject).to_rgba();
                    line(area, &[(x(ratio.mean.low), y), (x(ratio.mean.high), y)], colour, 3)?;
                    if ratio.mean.low < axis.low {
                        goes_on(area, (left, y), -1, colour)?;
                    }
                    if ratio.mean.high > axis.high {
                        goes_on(area, (left + width, y), 1, colour)?;
                    }
                    marker(area, *subject, (x(ratio.mean.ratio), y), 5, colour)?;
                    let [low, high] = [ratio.mean.low, ratio.mean.high].map(number::ratio);
                    let words = format!("{low} to {high}  {word}");
                    text(area, &words, (left + width + 16, y), HPos::Left, VPos::Center)?;
                }
            }
        }
        Ok(())
    })?;
    let mut heading = "";
    let rows = rows.iter().filter_map(|row| match row {
        Row::Heading(words) => {
            heading = words;
            None
        }
        Row::Ratio(cell, subject, Ratio { mean, .. }, twin, word) => {
            let bound = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
            let [ratio, low, high] = [mean.ratio, mean.low, mean.high].map(|value| bound(Some(value)));
            let [twin_low, twin_high] = [twin.map(|twin| twin.low), twin.map(|twin| twin.high)].map(bound);
            let subject = subject.to_string();
            Some([heading.to_owned(), cell.clone(), subject, ratio, low, high, twin_low, twin_high, (*word).to_owned()])
        }
    });
    let data = data(["experiment", "cell", "mode", "ratio", "ci_lo", "ci_hi", "aa_lo", "aa_hi", "verdict"], rows);
    Ok(Figure { name, caption, svg, data })
}
