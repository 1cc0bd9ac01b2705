//! Ratios with their intervals, one below the other: the whole run on one page, or every mode of one experiment.
//!
//! A panel holds what is measured in one kind of unit, and on its axis better lies to the right: a time or a number of
//! bytes is turned over, so that 2 says "twice as fast" or "half of it". Words stand above their interval and not beside
//! it, so that the figure can be read on a phone.

use super::super::analysis::{Analysis, Experiment, MetricResult, Ratio};
use super::super::document::Figure;
use super::super::number;
use super::axis::Axis;
use super::canvas::{Area, Drawn, INK, WIDTH, data, draw, line, text};
use super::mark::{colour, marker};
use crate::definition::Better;
use crate::failure::Failure;
use crate::subject::{BASELINE, Subject, TWINNED};
use perseq_statistics::Estimate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// What a panel shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Speed,
    Bytes,
    Events,
    Neutral,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Speed, Kind::Bytes, Kind::Events, Kind::Neutral];

    fn of(result: &MetricResult) -> Kind {
        match (result.metric.better, result.metric.unit.as_str()) {
            (Better::LessTime | Better::MoreRate, _) => Kind::Speed,
            (Better::Less, "bytes") => Kind::Bytes,
            (Better::Less, _) => Kind::Events,
            (Better::Neither, _) => Kind::Neutral,
        }
    }

    /// What its axis says.
    fn axis(self, baselines: &[Subject]) -> String {
        let other = match baselines {
            [] => BASELINE.name(),
            [only] => only.name(),
            _ => "the cell's baseline",
        };
        match self {
            Kind::Speed => format!("times as fast as {other}: better to the right"),
            Kind::Bytes => format!("times less memory than {other}: better to the right"),
            Kind::Events => format!("times fewer events than {other}: better to the right"),
            Kind::Neutral => format!("ratio to {other}: neither side is better"),
        }
    }
}

/// A line of the plot.
enum Row {
    /// Words over what follows.
    Heading(String),
    /// Why there is no ratio where one would be.
    None(String),
    /// A ratio.
    Ratio(Box<Shown>),
}

struct Shown {
    label: String,
    subject: Subject,
    /// As the table has it.
    ratio: Ratio,
    /// On the axis.
    drawn: Estimate,
    twin: Option<Estimate>,
    word: &'static str,
}

/// Better to the right.
fn turned(estimate: Estimate, better: Better) -> Estimate {
    match better {
        Better::MoreRate | Better::Neither => estimate,
        _ => Estimate { ratio: 1.0 / estimate.ratio, low: 1.0 / estimate.high, high: 1.0 / estimate.low },
    }
}

/// One page: the headline ratio of the subject in every cell, the A/A interval behind it. Cells whose modes had two policies
/// of budgets are not in it.
pub fn forest(analysis: &Analysis) -> Result<Figure, Failure> {
    let mut panels = Vec::new();
    for kind in Kind::ALL {
        let mut rows = Vec::new();
        for experiment in &analysis.experiments {
            let ratios = ratios(experiment, kind, true, |subject| subject == TWINNED);
            if !ratios.is_empty() {
                let definition = &experiment.definition;
                rows.push(Row::Heading(format!("{} {}, {}", definition.id, definition.title, experiment.lead())));
                rows.extend(ratios);
            }
        }
        panels.push((kind, rows));
    }
    let caption = format!(
        "Every cell's first metric: ratio of {TWINNED} to {}, geometric mean with its 95 % interval, n = {} blocks or more. \
         Times and bytes are turned over, so better is to the right. Grey bars: the A/A interval of {TWINNED} against itself. \
         The words are the verdict after Holm's procedure. {}.",
        analysis.baseline_words(),
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    plot("forest".into(), caption, &analysis.baselines(), panels)
}

/// Every mode of one experiment. None: there is no other than the subject, and the page shows that.
pub fn modes(analysis: &Analysis, experiment: &Experiment) -> Result<Option<Figure>, Failure> {
    let panels: Vec<_> = Kind::ALL.into_iter().map(|kind| (kind, ratios(experiment, kind, false, |_| true))).collect();
    let other = |row: &Row| matches!(row, Row::Ratio(shown) if shown.subject != TWINNED);
    if !panels.iter().flat_map(|(_, rows)| rows).any(other) {
        return Ok(None);
    }
    let caption = format!(
        "{}: `{}`, ratio of every mode to {}; better is to the right. Grey bars: {TWINNED} against itself. n = {} blocks \
         or more. {}.",
        experiment.definition.id,
        experiment.lead(),
        experiment.baseline_words(),
        analysis.least_blocks(),
        analysis.manifest.host_caption
    );
    let name = format!("{}-forest", experiment.definition.id.to_lowercase());
    plot(name, caption, &experiment.baselines(), panels).map(Some)
}

fn ratios(experiment: &Experiment, kind: Kind, by_cell: bool, wanted: impl Fn(Subject) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let cells = experiment.cells.iter().filter(|cell| !by_cell || experiment.one_policy(cell));
    for cell in cells {
        let Some(result) = cell.result(experiment.lead()).filter(|result| Kind::of(result) == kind) else { continue };
        let mut heading = (!by_cell).then(|| Row::Heading(cell.short_id()));
        for comparison in result.comparisons.iter().filter(|comparison| wanted(comparison.subject)) {
            let late = result.late_words(comparison.subject);
            let label = if by_cell { cell.short_id() } else { comparison.subject.to_string() };
            let label = late.as_ref().map_or_else(|| label.clone(), |late| format!("{label}: {late}"));
            let Ok(ratio) = &comparison.ratio else {
                if late.is_some() {
                    rows.extend(heading.take());
                    rows.push(Row::None(label));
                }
                continue;
            };
            rows.extend(heading.take());
            rows.push(Row::Ratio(Box::new(Shown {
                label,
                subject: comparison.subject,
                ratio: ratio.clone(),
                drawn: turned(ratio.mean, result.metric.better),
                twin: result.twin.map(|twin| turned(twin, result.metric.better)),
                word: result.word(ratio.side),
            })));
        }
    }
    rows
}

/// Where the axis of a panel begins and ends.
const SIDES: (i32, i32) = (10, WIDTH - 10);
const HEADING: i32 = 26;
const STEP: i32 = 40;
/// Above the first row of a panel: its name and its ticks.
const HEAD: i32 = 56;

fn height(rows: &[Row]) -> i32 {
    let rows = rows.iter().map(|row| if matches!(row, Row::Ratio(_)) { STEP } else { HEADING }).sum::<i32>();
    HEAD + rows + 50
}

fn plot(
    name: String,
    caption: String,
    baselines: &[Subject],
    panels: Vec<(Kind, Vec<Row>)>,
) -> Result<Figure, Failure> {
    let panels: Vec<_> = panels.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
    let all: i32 = panels.iter().map(|(_, rows)| height(rows)).sum();
    let svg = draw((WIDTH as u32, all.max(60) as u32), |area| {
        let mut top = 0;
        for (kind, rows) in &panels {
            panel(area, top, &kind.axis(baselines), rows)?;
            top += height(rows);
        }
        if panels.is_empty() {
            text(area, "No cell has a ratio.", (SIDES.0, 30), HPos::Left, VPos::Center)?;
        }
        Ok(())
    })?;
    let mut heading = "";
    let rows = panels.iter().flat_map(|(_, rows)| rows).filter_map(|row| match row {
        Row::Heading(words) => {
            heading = words;
            None
        }
        Row::None(_) => None,
        Row::Ratio(shown) => {
            let bound = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
            let Shown { label, subject, ratio: Ratio { mean, .. }, drawn, twin, word } = shown.as_ref();
            let [ratio, low, high] = [mean.ratio, mean.low, mean.high].map(|value| bound(Some(value)));
            let drawn = [drawn.ratio, drawn.low, drawn.high].map(|value| bound(Some(value)));
            let [drawn, drawn_low, drawn_high] = drawn;
            let [twin_low, twin_high] = [twin.map(|twin| twin.low), twin.map(|twin| twin.high)].map(bound);
            let (heading, label, subject, word) =
                (heading.to_owned(), label.clone(), subject.to_string(), (*word).to_owned());
            Some([heading, label, subject, ratio, low, high, drawn, drawn_low, drawn_high, twin_low, twin_high, word])
        }
    });
    let header = [
        "over",
        "row",
        "mode",
        "ratio",
        "ci_lo",
        "ci_hi",
        "drawn",
        "drawn_lo",
        "drawn_hi",
        "aa_drawn_lo",
        "aa_drawn_hi",
        "verdict",
    ];
    let data = data(header, rows);
    Ok(Figure { name, caption, svg, data })
}

/// An axis that the middle of all intervals fits on: what leaves it has an arrowhead.
fn axis(rows: &[Row]) -> Axis {
    let shown = rows.iter().filter_map(|row| match row {
        Row::Ratio(shown) => Some(shown.drawn),
        Row::Heading(_) | Row::None(_) => None,
    });
    // Beyond a factor of a thousand an interval only says that nothing is known.
    let (low, high) = shown
        .flat_map(|drawn| [drawn.low.max(drawn.ratio / 2.0), drawn.high.min(drawn.ratio * 2.0)])
        .chain([0.8, 1.25])
        .fold((1.0, 1.0), |(low, high): (f64, f64), value| (low.min(value.max(1e-3)), high.max(value.min(1e3))));
    Axis { low: low * 0.95, high: high * 1.05, log: true, zero: false }
}

fn panel(area: &Area, top: i32, title: &str, rows: &[Row]) -> Drawn {
    let axis = axis(rows);
    let x = |value: f64| {
        let place = axis.place(value.clamp(axis.low, axis.high)).clamp(0.0, 1.0);
        SIDES.0 + (place * f64::from(SIDES.1 - SIDES.0)).round() as i32
    };
    let (first, bottom) = (top + HEAD, top + height(rows) - 50);
    text(area, title, (SIDES.0, top + 14), HPos::Left, VPos::Center)?;
    let mut last = i32::MIN / 2;
    for tick in axis.ticks() {
        let words = number::tick(tick);
        line(area, &[(x(tick), first), (x(tick), bottom)], INK.mix(0.15), 1)?;
        // The same words above and below, where they do not touch each other.
        if x(tick) - last > 10 + 9 * words.len() as i32 {
            text(area, &words, (x(tick), first - 12), HPos::Center, VPos::Center)?;
            text(area, &words, (x(tick), bottom + 12), HPos::Center, VPos::Center)?;
            last = x(tick);
        }
    }
    line(area, &[(x(1.0), first - 4), (x(1.0), bottom + 4)], INK.mix(0.7), 1)?;
    let mut y = first;
    for row in rows {
        match row {
            Row::Heading(words) => {
                area.draw(&Rectangle::new([(0, y + 1), (WIDTH, y + HEADING - 3)], INK.mix(0.07).filled()))?;
                text(area, words, (SIDES.0, y + HEADING / 2 - 1), HPos::Left, VPos::Center)?;
                y += HEADING;
            }
            Row::None(words) => {
                text(area, words, (SIDES.0, y + HEADING / 2 - 1), HPos::Left, VPos::Center)?;
                y += HEADING;
            }
            Row::Ratio(shown) => {
                self::row(area, y, shown, &axis, &x)?;
                y += STEP;
            }
        }
    }
    Ok(())
}

fn row(area: &Area, y: i32, shown: &Shown, axis: &Axis, x: &dyn Fn(f64) -> i32) -> Drawn {
    let Shown { label, subject, drawn, twin, word, .. } = shown;
    let [ratio, low, high] = [drawn.ratio, drawn.low, drawn.high].map(number::ratio);
    text(area, label, (SIDES.0, y + 11), HPos::Left, VPos::Center)?;
    let words = format!("{ratio} [{low}, {high}] {word}");
    text(area, &words, (SIDES.1, y + 11), HPos::Right, VPos::Center)?;
    let middle = y + 29;
    if let Some(twin) = twin {
        let ends = [(x(twin.low), middle - 8), (x(twin.high), middle + 8)];
        area.draw(&Rectangle::new(ends, INK.mix(0.16).filled()))?;
    }
    let colour = colour(*subject).to_rgba();
    marker(area, *subject, (x(drawn.ratio), middle), 4, colour)?;
    line(area, &[(x(drawn.low), middle), (x(drawn.high), middle)], colour, 2)?;
    for (end, beyond, side) in [(drawn.low, drawn.low < axis.low, -1), (drawn.high, drawn.high > axis.high, 1)] {
        if beyond {
            let x = if side < 0 { SIDES.0 } else { SIDES.1 };
            line(area, &[(x - side * 7, middle - 5), (x, middle), (x - side * 7, middle + 5)], colour, 2)?;
        } else {
            // A bound, seen beside the mark however near it is.
            line(area, &[(x(end), middle - 7), (x(end), middle + 7)], colour, 2)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_whose_samples_were_late_has_its_line() {
        let rows = vec![Row::Heading("E03".into()), Row::None("r=4: 10 of percpu late".into())];
        let figure = plot("forest".into(), String::new(), &[BASELINE], vec![(Kind::Speed, rows)]).unwrap();
        assert!(figure.svg.contains("r=4: 10 of percpu late"), "{}", figure.svg);
        assert_eq!(figure.data.lines().count(), 1, "{}", figure.data);
    }
}
