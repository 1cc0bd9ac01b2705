//! Colour and shape of a subject, by its name: a subject without a place in the table gets a grey square.

use super::canvas::{Area, Drawn, line, text};
use crate::subject::Subject;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

#[derive(Clone, Copy)]
enum Shape {
    Disc,
    Ring,
    Triangle,
    Cross,
    Square,
    Frame,
    Bar,
}

/// Colours after Okabe and Ito, and two darker ones.
const MARKS: [(&str, RGBColor, Shape); 9] = [
    ("percpu", RGBColor(0x00, 0x72, 0xb2), Shape::Disc),
    ("percpu-mmcid", RGBColor(0x56, 0xb4, 0xe9), Shape::Ring),
    ("percpu-lock", RGBColor(0x7b, 0x4f, 0xa3), Shape::Ring),
    ("perthread", RGBColor(0xd5, 0x5e, 0x00), Shape::Triangle),
    ("perthread-drain", RGBColor(0xe6, 0x9f, 0x00), Shape::Triangle),
    ("sharded", RGBColor(0x9c, 0x75, 0x5f), Shape::Frame),
    ("central", RGBColor(0x00, 0x9e, 0x73), Shape::Cross),
    ("system", RGBColor(0xcc, 0x79, 0xa7), Shape::Square),
    ("control", RGBColor(0x80, 0x80, 0x80), Shape::Bar),
];

fn mark(subject: Subject) -> (RGBColor, Shape) {
    let found = MARKS.iter().find(|(name, ..)| *name == subject.name());
    found.map_or((RGBColor(0x80, 0x80, 0x80), Shape::Square), |(_, colour, shape)| (*colour, *shape))
}

/// Its colour.
pub fn colour(subject: Subject) -> RGBColor {
    mark(subject).0
}

/// Draws its shape. The bar stands upright: lying, it could not be seen on its own interval.
pub fn marker(area: &Area, subject: Subject, (x, y): (i32, i32), size: i32, colour: RGBAColor) -> Drawn {
    let square = [(x - size, y - size), (x + size, y + size)];
    match mark(subject).1 {
        Shape::Disc => area.draw(&Circle::new((x, y), size, colour.filled()))?,
        Shape::Ring => area.draw(&Circle::new((x, y), size, colour.stroke_width(2)))?,
        Shape::Triangle => area.draw(&TriangleMarker::new((x, y), size + 1, colour.filled()))?,
        Shape::Cross => area.draw(&Cross::new((x, y), size, colour.stroke_width(2)))?,
        Shape::Square => area.draw(&Rectangle::new(square, colour.filled()))?,
        Shape::Frame => area.draw(&Rectangle::new(square, colour.stroke_width(2)))?,
        Shape::Bar => line(area, &[(x, y - size - 1), (x, y + size + 1)], colour, 3)?,
    }
    Ok(())
}

/// Names each subject beside its mark, above the plot.
pub fn legend(area: &Area, subjects: &[Subject]) -> Drawn {
    let step = |subject: &Subject| 34 + 8 * subject.name().len() as i32;
    let room = area.dim_in_pixel().0 as i32 - subjects.iter().map(step).sum::<i32>();
    // Above the plot, or as far to the left as many of them need.
    let mut x = room.clamp(8, 96);
    for subject in subjects {
        marker(area, *subject, (x, 16), 5, colour(*subject).to_rgba())?;
        text(area, subject.name(), (x + 12, 16), HPos::Left, VPos::Center)?;
        x += step(subject);
    }
    Ok(())
}
