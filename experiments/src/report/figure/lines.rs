//! Counts over a parameter, a line for each name: for runs whose subjects are not all modes.

use super::super::document::Figure;
use super::super::number;
use super::axis::{Axis, Panel};
use super::canvas::{LEFT, PANEL, WIDTH, data, draw, line};
use super::mark::{Named, height_of, legend_of};
use crate::failure::Failure;
use crate::statistics::median;
use plotters::style::Color;
use std::collections::BTreeMap;

/// What one name has in one panel: its values at each place.
pub type Line = BTreeMap<u64, Vec<f64>>;

/// Axes and what they show.
pub struct Lines<'a> {
    /// Name of the file, without the ending.
    pub name: String,
    /// What it shows, under it.
    pub caption: String,
    /// The parameter: its name in files, and in words.
    pub across: (&'a str, &'a str),
    /// The names, in the order of the legend.
    pub names: Vec<&'a str>,
    /// Titles of the panels, each with a line for every name.
    pub panels: Vec<(String, Vec<Line>)>,
}

/// Draws them. None: there is no value.
pub fn lines(plot: Lines) -> Result<Option<Figure>, Failure> {
    let marks = Named::all(&plot.names);
    let every = || plot.panels.iter().flat_map(|(_, lines)| lines.iter().flatten());
    let xs: Vec<f64> = every().map(|(x, _)| *x as f64).collect();
    if xs.is_empty() {
        return Ok(None);
    }
    let x_axis = Axis::around(&xs, true);
    let mut ticks = xs.clone();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    const STEP: i32 = 340;
    let top = height_of(&marks) + 34;
    let svg = draw((WIDTH as u32, (top + STEP * plot.panels.len() as i32) as u32), |area| {
        legend_of(area, &marks)?;
        for (index, (title, lines)) in plot.panels.iter().enumerate() {
            let ys: Vec<f64> = lines.iter().flat_map(|line| line.values().flatten().copied()).collect();
            let y_axis = Axis { low: 0.0, ..Axis::around(&ys, false) };
            let top = top + STEP * index as i32;
            let panel = Panel { left: LEFT, top, width: PANEL, height: 250, x: x_axis, y: y_axis };
            panel.frame(area, title, (plot.across.1, &ticks), &y_axis.ticks(), number::tick)?;
            for (mark, values) in marks.iter().zip(lines) {
                let middle = |values: &Vec<f64>| median(&mut values.clone());
                let points: Vec<_> = values.iter().map(|(x, ys)| panel.place(*x as f64, middle(ys))).collect();
                line(area, &points, mark.colour().to_rgba(), 2)?;
                for (x, y) in values.iter().flat_map(|(x, ys)| ys.iter().map(move |y| (*x as f64, *y))) {
                    mark.marker(area, panel.place(x, y), 1, mark.colour().to_rgba())?;
                }
                for point in points {
                    mark.marker(area, point, 4, mark.colour().to_rgba())?;
                }
            }
        }
        Ok(())
    })?;
    let rows = plot.panels.iter().flat_map(|(title, lines)| {
        plot.names.iter().zip(lines).flat_map(move |(name, line)| {
            let row = move |x: u64, y: f64| [title.clone(), (*name).to_owned(), x.to_string(), y.to_string()];
            line.iter().flat_map(move |(x, ys)| ys.iter().map(move |y| (*x, *y))).map(move |(x, y)| row(x, y))
        })
    });
    let data = data(["panel", "subject", plot.across.0, "value"], rows);
    Ok(Some(Figure { name: plot.name, caption: plot.caption, svg, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_drawn_and_in_the_data() {
        let line = |values: &[(u64, f64)]| values.iter().map(|(x, y)| (*x, vec![*y, *y + 0.5])).collect();
        let plot = Lines {
            name: "misses".into(),
            caption: "Misses".into(),
            across: ("threads_per_cpu", "threads per CPU"),
            names: vec!["percpu", "mimalloc2"],
            panels: vec![("L2 misses".into(), vec![line(&[(1, 1.0), (4, 2.0)]), line(&[(1, 3.0), (4, 9.0)])])],
        };
        let figure = lines(plot).unwrap().unwrap();
        assert!(
            figure.data.starts_with("panel,subject,threads_per_cpu,value\nL2 misses,percpu,1,1\n"),
            "{}",
            figure.data
        );
        assert_eq!(figure.data.lines().count(), 1 + 8);
        assert!(figure.svg.contains("mimalloc2") && figure.svg.contains("threads per CPU"));
        let empty =
            Lines { name: "".into(), caption: "".into(), across: ("", ""), names: Vec::new(), panels: Vec::new() };
        assert!(lines(empty).unwrap().is_none());
    }
}
