//! Colour and shape of a subject, by its place in the list of subjects, and of other names beside them.

use super::canvas::{Area, Drawn, LEFT, WIDTH, line, text};
use crate::subject::Subject;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Disc,
    Ring,
    Triangle,
    Cross,
    Square,
    Frame,
    Bar,
}

/// Colours after Okabe and Ito, and darker ones that keep apart from them. Subjects take them in the order of their list, so
/// that a new mode has a colour of its own.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x9c, 0x75, 0x5f),
    RGBColor(0x7b, 0x4f, 0xa3),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x4d, 0x4d, 0x4d),
];

const SHAPES: [Shape; 7] =
    [Shape::Disc, Shape::Ring, Shape::Triangle, Shape::Cross, Shape::Frame, Shape::Square, Shape::Bar];

/// The arm without an allocator is grey and upright; all others by their place. Nine colours and six shapes repeat together
/// after eighteen subjects.
fn mark(subject: Subject) -> (RGBColor, Shape) {
    if subject == Subject::Control {
        return (RGBColor(0x80, 0x80, 0x80), Shape::Bar);
    }
    ranked(subject.rank())
}

fn ranked(rank: usize) -> (RGBColor, Shape) {
    (COLOURS[rank % COLOURS.len()], SHAPES[rank % (SHAPES.len() - 1)])
}

/// A name in a figure, with its colour and its shape.
#[derive(Clone)]
pub struct Named {
    /// The name.
    pub name: String,
    mark: (RGBColor, Shape),
}

impl Named {
    /// Subjects look as they do everywhere; what is none takes a colour and a shape that no subject among them has.
    pub fn all(names: &[&str]) -> Vec<Named> {
        let known: Vec<_> = names.iter().map(|name| Subject::from_name(name)).collect();
        let taken: Vec<_> = known.iter().flatten().map(|subject| mark(*subject)).collect();
        // From the end: the first are the modes'.
        let colours = COLOURS.iter().rev().filter(|colour| taken.iter().all(|(other, _)| other != *colour));
        let shapes = SHAPES.iter().rev().filter(|shape| taken.iter().all(|(_, other)| *other != **shape));
        let mut free = colours.cycle().zip(shapes.cycle());
        let mark = |subject: &Option<Subject>| match subject {
            Some(subject) => mark(*subject),
            None => free.next().map_or_else(|| ranked(0), |(colour, shape)| (*colour, *shape)),
        };
        let marks: Vec<_> = known.iter().map(mark).collect();
        names.iter().zip(marks).map(|(name, mark)| Named { name: (*name).to_owned(), mark }).collect()
    }

    fn of(subject: Subject) -> Named {
        Named { name: subject.name().to_owned(), mark: mark(subject) }
    }

    /// Its colour.
    pub fn colour(&self) -> RGBColor {
        self.mark.0
    }

    /// Draws its shape.
    pub fn marker(&self, area: &Area, at: (i32, i32), size: i32, colour: RGBAColor) -> Drawn {
        shape(area, self.mark.1, at, size, colour)
    }
}

/// Its colour.
pub fn colour(subject: Subject) -> RGBColor {
    mark(subject).0
}

/// Draws its shape.
pub fn marker(area: &Area, subject: Subject, at: (i32, i32), size: i32, colour: RGBAColor) -> Drawn {
    shape(area, mark(subject).1, at, size, colour)
}

/// The bar stands upright: lying, it could not be seen on its own interval.
fn shape(area: &Area, shape: Shape, (x, y): (i32, i32), size: i32, colour: RGBAColor) -> Drawn {
    let square = [(x - size, y - size), (x + size, y + size)];
    match shape {
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

/// Where each name stands in the legend, and the height of it all: in lines as wide as the figure.
fn places(names: &[Named]) -> (Vec<(i32, i32)>, i32) {
    const LINE: i32 = 22;
    let (mut x, mut y) = (LEFT, 14);
    let mut places = Vec::with_capacity(names.len());
    for Named { name, .. } in names {
        let width = 34 + 8 * name.len() as i32;
        if x + width > WIDTH && x > LEFT {
            (x, y) = (LEFT, y + LINE);
        }
        places.push((x, y));
        x += width;
    }
    (places, y + LINE)
}

fn named(subjects: &[Subject]) -> Vec<Named> {
    subjects.iter().map(|subject| Named::of(*subject)).collect()
}

/// The height of the legend.
pub fn legend_height(subjects: &[Subject]) -> i32 {
    height_of(&named(subjects))
}

/// The height of the legend of these names.
pub fn height_of(names: &[Named]) -> i32 {
    places(names).1
}

/// Names each subject beside its mark, above the plot.
pub fn legend(area: &Area, subjects: &[Subject]) -> Drawn {
    legend_of(area, &named(subjects))
}

/// Names each beside its mark, above the plot.
pub fn legend_of(area: &Area, names: &[Named]) -> Drawn {
    for (named, (x, y)) in names.iter().zip(places(names).0) {
        named.marker(area, (x, y), 5, named.colour().to_rgba())?;
        text(area, &named.name, (x + 12, y), HPos::Left, VPos::Center)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_subjects_look_alike() {
        let looks: BTreeSet<_> = Subject::all()
            .map(|subject| {
                let (RGBColor(red, green, blue), shape) = mark(subject);
                (red, green, blue, shape as u8)
            })
            .collect();
        assert_eq!(looks.len(), Subject::all().count());
    }

    #[test]
    fn others_look_unlike_the_subjects_beside_them() {
        let names = ["percpu", "mimalloc2", "perthread", "jemalloc", "snmalloc"];
        let named = Named::all(&names);
        let colours: BTreeSet<_> = named.iter().map(|named| (named.colour().0, named.colour().1)).collect();
        let shapes: BTreeSet<_> = named.iter().map(|named| named.mark.1 as u8).collect();
        assert_eq!((colours.len(), shapes.len()), (names.len(), names.len()));
        assert_eq!(named[0].colour(), colour(Subject::from_name("percpu").unwrap()));
    }
}
