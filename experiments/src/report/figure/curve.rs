//! A metric over a parameter.

use super::super::analysis::{Analysis, Cell, Experiment};
use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{INK, LEFT, PANEL, WIDTH, data, draw, line, text};
use super::mark::{colour, legend, legend_height, marker};
use crate::definition::{Curve, Rule};
use crate::failure::Failure;
use crate::statistics::{Estimate, mean};
use crate::subject::Subject;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// One metric against one parameter, a panel for each rule, every sample shown.
pub fn curve(analysis: &Analysis, experiment: &Experiment, curve: &Curve) -> Result<Option<Figure>, Failure> {
    let Some(metric) = experiment.definition.metric(&curve.metric) else {
        return Ok(None);
    };
    let mut rules: Vec<Option<Rule>> = experiment.cells.iter().map(|cell| cell.rule).collect();
    rules.dedup();
    // What differs from the other cells in something else is not on their curve.
    let usual = |cell: &&Cell| {
        let own = experiment.definition.parameters.iter().filter(|(name, _)| **name != curve.parameter);
        own.into_iter().all(|(name, value)| cell.parameters.get(name) == Some(value))
    };
    let points = |rule: Option<Rule>, subject: Subject| -> Vec<(f64, Vec<f64>, Option<Estimate>)> {
        let at = |cell: &Cell| {
            let result = cell.result(&curve.metric)?;
            let (values, mean) = (result.of(subject), mean(result.in_layouts(subject)));
            (!values.is_empty()).then_some((*cell.parameters.get(&curve.parameter)? as f64, values, mean))
        };
        experiment.cells.iter().filter(|cell| cell.rule == rule).filter(usual).filter_map(at).collect()
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
    let xs: Vec<f64> = everything.iter().flat_map(|(_, _, points)| points.iter().map(|(x, ..)| *x)).collect();
    let ys: Vec<f64> =
        everything.iter().flat_map(|(_, _, points)| points.iter().flat_map(|(_, ys, _)| ys.clone())).collect();
    let x_axis = Axis::around(&xs, true);
    let y_axis = if curve.log { Axis::around(&ys, true) } else { Axis { low: 0.0, ..Axis::around(&ys, false) } };
    let mut subjects: Vec<_> = everything.iter().map(|(_, subject, _)| *subject).collect();
    subjects.sort_by_key(|subject| subject.rank());
    subjects.dedup();

    const STEP: i32 = 340;
    let top = legend_height(&subjects) + 34;
    let svg = draw((WIDTH as u32, (top + STEP * rules.len() as i32) as u32), |area| {
        legend(area, &subjects)?;
        for (index, rule) in rules.iter().enumerate() {
            let panel =
                Panel { left: LEFT, top: top + STEP * index as i32, width: PANEL, height: 250, x: x_axis, y: y_axis };
            let title = title(&curve.metric, *rule);
            let mut ticks = xs.clone();
            ticks.sort_by(f64::total_cmp);
            ticks.dedup();
            let y_ticks = if metric.unit == "bytes" { y_axis.binary_ticks() } else { y_axis.ticks() };
            let y_text = |value: f64| number::axis(value, &metric.unit);
            let x_unit = if curve.parameter.ends_with("_bytes") { "bytes" } else { "" };
            let x_text = |value: f64| number::axis(value, x_unit);
            panel.frame_with(area, &title, (&curve.label, &apart(&panel, ticks)), &y_ticks, y_text, x_text)?;
            if curve.parameter == "threads_per_cpu" && (x_axis.low..=x_axis.high).contains(&1.0) {
                let (foot, head) = (panel.place(1.0, y_axis.low), (panel.place(1.0, 1.0).0, panel.top));
                line(area, &[(head.0, panel.top + panel.height), head], INK.mix(0.35), 1)?;
                text(area, "T = L", (foot.0 + 4, panel.top + 8), HPos::Left, VPos::Center)?;
            }
            for (_, subject, points) in everything.iter().filter(|(of, _, _)| of == rule) {
                let colour = colour(*subject);
                // Beside each other: intervals of two modes at one place would hide each other.
                let aside = subjects.iter().position(|other| other == subject).unwrap_or(0) as i32 * 4
                    - 2 * (subjects.len() as i32 - 1);
                let at = |x: f64, y: f64| {
                    // Nothing has a strip of its own on a logarithmic axis.
                    let y = if y_axis.log && y <= 0.0 { 0.0 } else { y.clamp(y_axis.low, y_axis.high) };
                    let (x, y) = panel.place(x, y);
                    (x + aside, y)
                };
                let middle: Vec<_> =
                    points.iter().map(|(x, ys, _)| at(*x, crate::statistics::median(&mut ys.clone()))).collect();
                line(area, &middle, colour.to_rgba(), 2)?;
                for (x, ys, mean) in points {
                    for y in ys {
                        marker(area, *subject, at(*x, *y), 1, colour.mix(0.35))?;
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
                    marker(area, *subject, place, 4, colour.to_rgba())?;
                }
            }
        }
        Ok(())
    })?;
    let n = analysis.least_blocks();
    let caption = format!(
        "{}: `{}` against {}. Large marks: medians; bars: the 95 % interval of the mean; dots: every sample, n = {n} or more for \
         each. {}.",
        experiment.definition.id, curve.metric, curve.label, analysis.manifest.host_caption
    );
    let rows = everything.iter().flat_map(|(rule, subject, points)| {
        let rule = rule.map_or_else(String::new, |rule| format!("{rule:?}"));
        points.iter().flat_map(move |(x, ys, _)| {
            let rule = rule.clone();
            ys.iter().map(move |y| [rule.clone(), subject.to_string(), x.to_string(), y.to_string()])
        })
    });
    let data = data(["rule", "mode", &curve.parameter, &curve.metric], rows);
    let name = format!("{}-{}", experiment.definition.id.to_lowercase(), curve.metric);
    Ok(Some(Figure { name, caption, svg, data }))
}

/// The ticks whose words do not touch the one before.
fn apart(panel: &Panel, ticks: Vec<f64>) -> Vec<f64> {
    let mut last = i32::MIN / 2;
    let mut far = |tick: &f64| {
        let x = panel.place(*tick, panel.y.low).0;
        let far = x - last >= 44;
        last = if far { x } else { last };
        far
    };
    ticks.into_iter().filter(|tick| far(tick)).collect()
}

/// What stands above a panel.
fn title(metric: &str, rule: Option<Rule>) -> String {
    let words = rule.map_or_else(String::new, |rule| format!(", rule {rule:?}: {}", rule.words()));
    format!("{metric}{words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter of the figures' font is some 6.3 wide in the mean, and what is cut off at the edge cannot be read.
    #[test]
    fn titles_end_before_the_edge() {
        for definition in crate::definition::all() {
            for curve in &definition.curves {
                for rule in definition.rules.iter().copied().map(Some).chain([None]) {
                    let title = title(&curve.metric, rule);
                    assert!(title.len() as f64 * 6.3 < f64::from(WIDTH - LEFT), "{}: {title}", definition.id);
                }
            }
        }
    }
}
