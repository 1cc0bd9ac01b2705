//! Values over a parameter: a panel for each key, in it a line for each name, and every value shown.

use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{INK, LEFT, PANEL, WIDTH, data, draw, line, text};
use super::mark::{Named, height_of, legend_of};
use crate::failure::Failure;
use perseq_statistics::{Estimate, median};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

/// What one name has at one place.
pub struct Point {
    /// The parameter.
    pub x: f64,
    /// The values.
    pub values: Vec<f64>,
    /// Their mean with its interval, if that is shown.
    pub mean: Option<Estimate>,
    /// Samples that did not end in time and so have no value.
    pub late: usize,
}

/// Axes of their own.
pub struct Part {
    /// Which one, in the data.
    pub key: String,
    /// What stands above it.
    pub title: String,
    /// The points of each name. None: it has no line here.
    pub lines: Vec<Vec<Point>>,
}

/// A figure of lines.
pub struct Lines<'a> {
    /// Name of the file, without the ending.
    pub name: String,
    /// What it shows, under it.
    pub caption: String,
    /// Columns of the data: key, name, parameter and value. The third is the parameter's name.
    pub header: [&'a str; 4],
    /// The parameter in words.
    pub across: &'a str,
    /// The unit of the values.
    pub unit: &'a str,
    /// Whether their axis is logarithmic.
    pub log: bool,
    /// Whether it is the same in all parts.
    pub shared: bool,
    /// The names, in the order of the legend.
    pub names: Vec<&'a str>,
    /// The parts, from above.
    pub parts: Vec<Part>,
}

/// Draws them. None: there is no value.
pub fn lines(plot: &Lines) -> Result<Option<Figure>, Failure> {
    let names = Named::all(&plot.names);
    let points = |part: &Part| part.lines.iter().flatten().map(|point| (point.x, point.values.clone())).collect();
    let parts: Vec<Vec<(f64, Vec<f64>)>> = plot.parts.iter().map(points).collect();
    let mut xs: Vec<f64> = parts.iter().flatten().map(|(x, _)| *x).collect();
    if xs.is_empty() {
        return Ok(None);
    }
    let parameter = plot.header[2];
    let x_axis = Axis::around(&xs, true);
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let y_axis = |parts: &[Vec<(f64, Vec<f64>)>]| {
        let ys: Vec<f64> = parts.iter().flatten().flat_map(|(_, ys)| ys.clone()).collect();
        if plot.log { Axis::around(&ys, true) } else { Axis { low: 0.0, ..Axis::around(&ys, false) } }
    };

    const STEP: i32 = 340;
    let top = height_of(&names) + 34;
    let svg = draw((WIDTH as u32, (top + STEP * plot.parts.len() as i32) as u32), |area| {
        legend_of(area, &names)?;
        for (index, part) in plot.parts.iter().enumerate() {
            let y_axis = y_axis(if plot.shared { &parts } else { &parts[index..=index] });
            let panel =
                Panel { left: LEFT, top: top + STEP * index as i32, width: PANEL, height: 250, x: x_axis, y: y_axis };
            let y_ticks = if plot.unit == "bytes" { y_axis.binary_ticks() } else { y_axis.ticks() };
            let y_text = |value: f64| number::axis(value, plot.unit);
            let x_unit = if parameter.ends_with("_bytes") { "bytes" } else { "" };
            let x_text = |value: f64| number::axis(value, x_unit);
            panel.frame_with(area, &part.title, (plot.across, &apart(&panel, &xs)), &y_ticks, y_text, x_text)?;
            if parameter == "threads_per_cpu" && (x_axis.low..=x_axis.high).contains(&1.0) {
                let (foot, head) = (panel.place(1.0, y_axis.low), (panel.place(1.0, 1.0).0, panel.top));
                line(area, &[(head.0, panel.top + panel.height), head], INK.mix(0.35), 1)?;
                text(area, "T = L", (foot.0 + 4, panel.top + 8), HPos::Left, VPos::Center)?;
            }
            for (place, (named, points)) in names.iter().zip(&part.lines).enumerate() {
                if points.is_empty() {
                    continue;
                }
                let colour = named.colour();
                // Beside each other: intervals of two names at one place would hide each other.
                let aside = place as i32 * 4 - 2 * (names.len() as i32 - 1);
                let at = |x: f64, y: f64| {
                    // Nothing has a strip of its own on a logarithmic axis.
                    let y = if y_axis.log && y <= 0.0 { 0.0 } else { y.clamp(y_axis.low, y_axis.high) };
                    let (x, y) = panel.place(x, y);
                    (x + aside, y)
                };
                let measured = points.iter().filter(|point| !point.values.is_empty());
                let middle: Vec<_> = measured.map(|point| at(point.x, median(&mut point.values.clone()))).collect();
                line(area, &middle, colour.to_rgba(), 2)?;
                for Point { x, values, mean, late } in points {
                    if *late > 0 {
                        // Where it has no value to stand beside.
                        let place = (panel.place(*x, y_axis.low).0 - 20, panel.top + 22 + 14 * place as i32);
                        named.marker(area, place, 4, colour.to_rgba())?;
                        text(area, &format!("{late} late"), (place.0 + 8, place.1), HPos::Left, VPos::Center)?;
                    }
                    for y in values {
                        named.marker(area, at(*x, *y), 1, colour.mix(0.35))?;
                    }
                    if let Some(mean) = mean {
                        let (low, high) = (at(*x, mean.low), at(*x, mean.high));
                        line(area, &[low, high], colour.to_rgba(), 2)?;
                        for (end, y) in [low, high] {
                            line(area, &[(end - 3, y), (end + 3, y)], colour.to_rgba(), 2)?;
                        }
                    }
                }
                for place in middle {
                    named.marker(area, place, 4, colour.to_rgba())?;
                }
            }
        }
        Ok(())
    })?;
    let rows = plot.parts.iter().flat_map(|part| {
        plot.names.iter().zip(&part.lines).flat_map(move |(name, points)| {
            let row = move |x: f64, y: &f64| [part.key.clone(), (*name).to_owned(), x.to_string(), y.to_string()];
            points.iter().flat_map(move |point| point.values.iter().map(move |y| row(point.x, y)))
        })
    });
    let data = data(plot.header, rows);
    let late = plot.parts.iter().flat_map(|part| part.lines.iter().flatten()).any(|point| point.late > 0);
    let words = if late { " Late: samples that did not end in time, which are worse than any that did." } else { "" };
    Ok(Some(Figure { name: plot.name.clone(), caption: format!("{}{words}", plot.caption), svg, data }))
}

/// The ticks whose words do not touch the one before.
fn apart(panel: &Panel, ticks: &[f64]) -> Vec<f64> {
    let mut last = i32::MIN / 2;
    let mut far = |tick: &f64| {
        let x = panel.place(*tick, panel.y.low).0;
        let far = x - last >= 44;
        last = if far { x } else { last };
        far
    };
    ticks.iter().copied().filter(|tick| far(tick)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_drawn_and_in_the_data() {
        let line = |values: &[(f64, f64)]| {
            values.iter().map(|(x, y)| Point { x: *x, values: vec![*y, y + 0.5], mean: None, late: 0 }).collect()
        };
        let lines_of = vec![line(&[(1.0, 1.0), (4.0, 2.0)]), line(&[(1.0, 3.0), (4.0, 9.0)])];
        let mut plot = Lines {
            name: "misses".into(),
            caption: "Misses".into(),
            header: ["count", "subject", "threads_per_cpu", "value"],
            across: "threads per CPU",
            unit: "events",
            log: false,
            shared: false,
            names: vec!["percpu", "mimalloc2"],
            parts: vec![Part { key: "l2".into(), title: "L2 misses".into(), lines: lines_of }],
        };
        let figure = lines(&plot).unwrap().unwrap();
        assert!(figure.data.starts_with("count,subject,threads_per_cpu,value\nl2,percpu,1,1\n"), "{}", figure.data);
        assert_eq!(figure.data.lines().count(), 1 + 8);
        assert!(figure.svg.contains("mimalloc2") && figure.svg.contains("threads per CPU"));
        assert!(!figure.svg.contains("late") && !figure.caption.contains("Late"));
        plot.parts[0].lines[1].push(Point { x: 8.0, values: Vec::new(), mean: None, late: 3 });
        let figure = lines(&plot).unwrap().unwrap();
        assert!(figure.svg.contains("3 late") && figure.caption.contains("Late: "), "{}", figure.svg);
        plot.parts.clear();
        assert!(lines(&plot).unwrap().is_none());
    }
}
