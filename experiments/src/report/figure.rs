//! Figures: drawn with the same few elements, in colours that stay apart for every eye and in grey.
//!
//! Black becomes `currentColor`, so that a figure follows the page into the dark. Shapes repeat what colours
//! say. A value of 0 on a logarithmic axis has a strip of its own at the foot, marked 0.

use super::analysis::{Analysis, Cell, Experiment};
use super::document::Figure;
use super::number;
use crate::definition::{Curve, Rule};
use crate::failure::Failure;
use crate::subject::{BASELINE, Subject};
use perseq::Mode;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const INK: RGBColor = BLACK;
const FONT: i32 = 16;

/// Colours after Okabe and Ito.
fn colour(subject: Subject) -> RGBColor {
    match subject {
        Subject::Perseq(Mode::PerCpu) => RGBColor(0x00, 0x72, 0xb2),
        Subject::Perseq(Mode::PerCpuMmCid) => RGBColor(0x56, 0xb4, 0xe9),
        Subject::Perseq(Mode::PerThread) => RGBColor(0xd5, 0x5e, 0x00),
        Subject::Perseq(Mode::PerThreadDrain) => RGBColor(0xe6, 0x9f, 0x00),
        Subject::Perseq(Mode::Sharded) => RGBColor(0xf0, 0xe4, 0x42),
        Subject::Perseq(Mode::PerCpuLock) => RGBColor(0x80, 0x80, 0x80),
        Subject::Perseq(Mode::Central) => RGBColor(0x00, 0x9e, 0x73),
        Subject::System => RGBColor(0xcc, 0x79, 0xa7),
    }
}

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

/// One metric against one parameter, a panel for each rule, every sample shown.
pub fn curve(analysis: &Analysis, experiment: &Experiment, curve: &Curve) -> Result<Option<Figure>, Failure> {
    let Some(metric) = experiment.definition.metric(&curve.metric) else {
        return Ok(None);
    };
    let mut rules: Vec<Option<Rule>> = experiment.cells.iter().map(|cell| cell.rule).collect();
    rules.dedup();
    let points = |rule: Option<Rule>, subject: Subject| -> Vec<(f64, Vec<f64>)> {
        let at = |cell: &Cell| {
            let values = cell.result(&curve.metric)?.of(subject).to_vec();
            (!values.is_empty()).then_some((*cell.parameters.get(&curve.parameter)? as f64, values))
        };
        experiment.cells.iter().filter(|cell| cell.rule == rule).filter_map(at).collect()
    };
    let everything: Vec<_> = rules
        .iter()
        .flat_map(|rule| Subject::all().map(move |subject| (*rule, subject)))
        .map(|(rule, subject)| (rule, subject, points(rule, subject)))
        .filter(|(_, _, points)| !points.is_empty())
        .collect();
    if everything.is_empty() {
        return Ok(None);
    }
    let xs: Vec<f64> = everything.iter().flat_map(|(_, _, points)| points.iter().map(|(x, _)| *x)).collect();
    let ys: Vec<f64> =
        everything.iter().flat_map(|(_, _, points)| points.iter().flat_map(|(_, ys)| ys.clone())).collect();
    let x_axis = Axis::around(&xs, true);
    let y_axis = if curve.log { Axis::around(&ys, true) } else { Axis { low: 0.0, ..Axis::around(&ys, false) } };
    let mut subjects: Vec<_> = everything.iter().map(|(_, subject, _)| *subject).collect();
    subjects.sort_by_key(|subject| subject.rank());
    subjects.dedup();

    let svg = draw((960, 380), |area| {
        legend(area, &subjects)?;
        let gap = 100;
        let width = (960 - 110 - gap * (rules.len() as i32 - 1)) / rules.len() as i32;
        for (index, rule) in rules.iter().enumerate() {
            let panel =
                Panel { left: 90 + index as i32 * (width + gap), top: 62, width, height: 250, x: x_axis, y: y_axis };
            let title = rule.map_or_else(String::new, |rule| format!("rule {rule:?}: {}", rule.words()));
            let mut ticks = xs.clone();
            ticks.sort_by(f64::total_cmp);
            ticks.dedup();
            let y_ticks = if curve.log && metric.unit == "bytes" { y_axis.binary_ticks() } else { y_axis.ticks() };
            let y_text = |value: f64| number::axis(value, &metric.unit);
            panel.frame(area, &title, (&curve.label, &ticks), &y_ticks, y_text)?;
            for (_, subject, points) in everything.iter().filter(|(of, _, _)| of == rule) {
                let colour = colour(*subject);
                let middle: Vec<_> =
                    points.iter().map(|(x, ys)| panel.place(*x, crate::statistics::median(&mut ys.clone()))).collect();
                line(area, &middle, colour.to_rgba(), 2)?;
                for (x, ys) in points {
                    for y in ys {
                        marker(area, *subject, panel.place(*x, *y), 3, colour.mix(0.4))?;
                    }
                }
                for place in middle {
                    marker(area, *subject, place, 5, colour.to_rgba())?;
                }
            }
        }
        Ok(())
    })?;
    let n = analysis.least_blocks();
    let caption = format!(
        "{}: `{}` against {}. Large marks: medians; small marks: every sample, n = {n} or more for each. {}.",
        experiment.definition.id, curve.metric, curve.label, analysis.manifest.host_caption
    );
    Ok(Some(Figure { name: format!("{}-{}", experiment.definition.id.to_lowercase(), curve.metric), caption, svg }))
}

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
                    .filter(|row| row.planned.cell_id == cell.id && row.planned.mode_requested == subject);
                let values: Vec<_> = rows
                    .filter_map(|row| Some((row.planned.order_index, row.value(metric).filter(|value| *value > 0.0)?)))
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
    let svg = draw((960, 320), |area| {
        legend(area, &subjects)?;
        let x = Axis { low: -1.0, high: analysis.planned as f64, log: false, zero: false };
        let y = Axis { low: -reach, high: reach, log: false, zero: false };
        let panel = Panel { left: 90, top: 50, width: 850, height: 210, x, y };
        panel.frame(area, "", ("place in the run", &x.ticks()), &y.ticks(), |value| format!("{value:+.0} %"))?;
        line(area, &[panel.place(x.low, 0.0), panel.place(x.high, 0.0)], INK.mix(0.5), 1)?;
        for (subject, index, residual) in &points {
            marker(area, *subject, panel.place(*index, *residual), 3, colour(*subject).mix(0.8))?;
        }
        Ok(())
    })?;
    let caption = format!(
        "Run order: deviation of each sample's headline metric from the mean of its cell and mode. n = {}. {}.",
        points.len(),
        analysis.manifest.host_caption
    );
    Ok(Some(Figure { name: "run-order".into(), caption, svg }))
}

/// An axis: values to places between 0 and 1.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    zero: bool,
}

/// Part of a logarithmic axis that is kept for 0.
const ZERO_STRIP: f64 = 0.1;

impl Axis {
    /// An axis that shows these values with some room around.
    fn around(values: &[f64], log: bool) -> Axis {
        let positive = values.iter().copied().filter(|value| !log || *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        if log {
            let room = if high / low > 1.5 { (high / low).powf(0.08) } else { 2.0 };
            Axis { low: low / room, high: high * room, log, zero: values.iter().any(|value| *value <= 0.0) }
        } else {
            Axis { low: low - (high - low) * 0.08, high: high + high.abs() * 0.08, log, zero: false }
        }
    }

    fn place(&self, value: f64) -> f64 {
        if !self.log {
            return (value - self.low) / (self.high - self.low);
        }
        let strip = if self.zero { ZERO_STRIP } else { 0.0 };
        if value <= 0.0 { 0.0 } else { strip + (1.0 - strip) * (value / self.low).ln() / (self.high / self.low).ln() }
    }

    /// Values to mark that are round in binary, for bytes on a logarithmic axis.
    fn binary_ticks(&self) -> Vec<f64> {
        let step = match self.high / self.low {
            narrow if narrow < 64.0 => 2f64,
            wide if wide < 65536.0 => 4f64,
            _ => 16f64,
        };
        let powers = (0..).map(|power| step.powi(power)).take_while(|tick| *tick <= self.high);
        let zero = self.zero.then_some(0.0);
        zero.into_iter().chain(powers.filter(|tick| *tick >= self.low)).collect()
    }

    /// Round values to mark, not more than eight or so.
    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let raw = (self.high - self.low) / 5.0;
            let decade = 10f64.powf(raw.log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= raw).unwrap_or(raw);
            let first = (self.low / step).ceil() as i64;
            return (first..).map(|index| index as f64 * step).take_while(|tick| *tick <= self.high).collect();
        }
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let wide = (self.high / self.low).log10() > 2.5;
        let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        let zero = self.zero.then_some(0.0);
        zero.into_iter().chain(ticks.filter(|tick| (self.low..=self.high).contains(tick))).collect()
    }
}

/// Axes on a part of the drawing.
struct Panel {
    left: i32,
    top: i32,
    width: i32,
    height: i32,
    x: Axis,
    y: Axis,
}

impl Panel {
    fn place(&self, x: f64, y: f64) -> (i32, i32) {
        let right = self.x.place(x) * f64::from(self.width);
        let up = self.y.place(y) * f64::from(self.height);
        (self.left + right.round() as i32, self.top + self.height - up.round() as i32)
    }

    fn frame(
        &self,
        area: &Area,
        title: &str,
        (x_label, x_ticks): (&str, &[f64]),
        y_ticks: &[f64],
        y_text: impl Fn(f64) -> String,
    ) -> Drawn {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for tick in y_ticks {
            let y = self.place(self.x.low, *tick).1;
            line(area, &[(self.left, y), (right, y)], INK.mix(0.13), 1)?;
            text(area, &y_text(*tick), (self.left - 8, y), HPos::Right, VPos::Center)?;
        }
        for tick in x_ticks {
            let x = self.place(*tick, self.y.low).0;
            line(area, &[(x, bottom), (x, bottom + 5)], INK.mix(0.6), 1)?;
            text(area, &number::tick(*tick), (x, bottom + 8), HPos::Center, VPos::Top)?;
        }
        line(area, &[(self.left, self.top), (self.left, bottom), (right, bottom)], INK.mix(0.6), 1)?;
        text(area, title, (self.left, self.top - 14), HPos::Left, VPos::Center)?;
        text(area, x_label, (self.left + self.width / 2, bottom + 30), HPos::Center, VPos::Top)
    }
}

fn legend(area: &Area, subjects: &[Subject]) -> Drawn {
    let mut x = 96;
    for subject in subjects {
        marker(area, *subject, (x, 16), 5, colour(*subject).to_rgba())?;
        text(area, subject.name(), (x + 12, 16), HPos::Left, VPos::Center)?;
        x += 34 + 8 * subject.name().len() as i32;
    }
    Ok(())
}

fn line(area: &Area, points: &[(i32, i32)], colour: RGBAColor, width: u32) -> Drawn {
    Ok(area.draw(&PathElement::new(points.to_vec(), colour.stroke_width(width)))?)
}

fn text(area: &Area, words: &str, at: (i32, i32), across: HPos, down: VPos) -> Drawn {
    let style = ("sans-serif", FONT).into_font().color(&INK).pos(Pos::new(across, down));
    Ok(area.draw(&Text::new(words.to_owned(), at, style))?)
}

/// The shape of a subject.
fn marker(area: &Area, subject: Subject, (x, y): (i32, i32), size: i32, colour: RGBAColor) -> Drawn {
    match subject {
        Subject::Perseq(Mode::PerCpu) => area.draw(&Circle::new((x, y), size, colour.filled()))?,
        Subject::Perseq(Mode::PerCpuMmCid) => area.draw(&Circle::new((x, y), size, colour.stroke_width(2)))?,
        Subject::Perseq(Mode::PerThread) => area.draw(&TriangleMarker::new((x, y), size + 1, colour.filled()))?,
        Subject::Perseq(Mode::PerThreadDrain) => {
            area.draw(&TriangleMarker::new((x, y), size + 1, colour.stroke_width(2)))?
        }
        Subject::Perseq(Mode::Sharded) => area.draw(&Cross::new((x, y), size, colour.stroke_width(1)))?,
        Subject::Perseq(Mode::PerCpuLock) => area.draw(&Circle::new((x, y), size, colour.stroke_width(1)))?,
        Subject::Perseq(Mode::Central) => area.draw(&Cross::new((x, y), size, colour.stroke_width(2)))?,
        Subject::System => area.draw(&Rectangle::new([(x - size, y - size), (x + size, y + size)], colour.filled()))?,
    }
    Ok(())
}

/// Draws, and lets black follow the page.
fn draw(size: (u32, u32), body: impl FnOnce(&Area) -> Drawn) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = body(&area).and_then(|()| Ok(area.present()?));
        drawn.map_err(|error| Failure::host(format!("a figure could not be drawn: {error}")))?;
    }
    const HEAD: &str = "<svg class=\"figure\" role=\"img\"><style>svg.figure { color: #1b1b1b; } \
        @media (prefers-color-scheme: dark) { svg.figure { color: #e4e4e2; } } \
        @media print { svg.figure { color: #000; } }</style>";
    let (style_open, style) = HEAD.split_once('>').unwrap_or(("<svg", ""));
    let svg = svg.replacen("<svg", style_open, 1).replacen(">\n", &format!(">{style}\n"), 1);
    Ok(svg.replace("#000000", "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_place_of_its_own_on_a_log_axis() {
        let axis = Axis::around(&[0.0, 10.0, 1000.0], true);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(axis.place(10.0) > ZERO_STRIP);
        assert_eq!(axis.ticks()[0], 0.0);
    }

    #[test]
    fn a_figure_is_svg_that_follows_the_page() {
        let svg = draw((100, 50), |area| text(area, "a < b", (10, 10), HPos::Left, VPos::Top)).unwrap();
        assert!(svg.starts_with("<svg class=\"figure\""), "{svg}");
        assert!(svg.contains("currentColor") && svg.contains("a &lt; b") && !svg.contains("#000000"), "{svg}");
    }
}
