//! Counters per pair as a grid, in which what could not be counted has a cell of its own and never a 0.

use super::super::document::Figure;
use super::canvas::{INK, WIDTH, data, draw, line, text};
use crate::failure::Failure;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// One row: an event, and for each column its value or nothing.
pub struct Event {
    /// Its name.
    pub name: String,
    /// Values, in the order of the columns.
    pub values: Vec<Option<f64>>,
}

/// The grid.
pub fn grid(columns: &[String], events: &[Event], caption: String) -> Result<Option<Figure>, Failure> {
    if columns.is_empty() || events.is_empty() {
        return Ok(None);
    }
    // Names of events are long: each has a line of its own above its values.
    let (left, top, height) = (4, 44, 56);
    let width = (WIDTH - 2 * left) / columns.len() as i32;
    let size = (WIDTH as u32, top as u32 + height as u32 * events.len() as u32 + 12);
    let svg = draw(size, |area| {
        for (column, name) in columns.iter().enumerate() {
            let at = left + column as i32 * width + width / 2;
            text(area, name, (at, top - 16), HPos::Center, VPos::Center)?;
        }
        for (row, event) in events.iter().enumerate() {
            let y = top + row as i32 * height;
            text(area, &event.name, (left, y + 12), HPos::Left, VPos::Center)?;
            let most = event.values.iter().flatten().copied().fold(0.0, f64::max);
            for (column, value) in event.values.iter().enumerate() {
                let (from, to) = (left + column as i32 * width + 2, left + (column as i32 + 1) * width - 2);
                let frame = [(from, y + 24), (to, y + height - 4)];
                match value {
                    Some(value) => {
                        let share = if most > 0.0 { value / most } else { 0.0 };
                        area.draw(&Rectangle::new(frame, RGBColor(0x00, 0x72, 0xb2).mix(0.06 + 0.4 * share).filled()))?;
                        let words = super::super::number::short(*value);
                        text(area, &words, ((from + to) / 2, y + height / 2 + 10), HPos::Center, VPos::Center)?;
                    }
                    None => {
                        area.draw(&Rectangle::new(frame, INK.mix(0.3).stroke_width(1)))?;
                        line(area, &[(from, y + height - 4), (to, y + 24)], INK.mix(0.3), 1)?;
                    }
                }
            }
        }
        Ok(())
    })?;
    let rows = events.iter().flat_map(|event| {
        columns.iter().zip(&event.values).map(|(column, value)| {
            [event.name.clone(), column.clone(), value.map_or_else(String::new, |value| value.to_string())]
        })
    });
    let data = data(["event", "mode", "per_pair"], rows);
    Ok(Some(Figure { name: "counters".into(), caption, svg, data }))
}
