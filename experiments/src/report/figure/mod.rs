//! Figures: drawn with the same few elements, in colours that stay apart for every eye and in grey.
//!
//! Black becomes `currentColor`, so that a figure follows the page into the dark. Shapes repeat what colours
//! say. A value of 0 on a logarithmic axis has a strip of its own at the foot, marked 0.

mod axis;
mod curve;
mod drift;
mod forest;
pub mod grid;
mod heat_map;
mod iso;
mod mark;
mod occupancy;
mod stack;
mod tail;

pub use curve::curve;
pub use drift::drift;
pub use forest::{forest, modes};

use super::analysis::{Analysis, Experiment};
use super::document::Figure;
use crate::definition::Picture;
use crate::failure::Failure;
use crate::subject::Subject;
use axis::{Axis, Panel};
use mark::{colour, marker};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const INK: RGBColor = BLACK;
const FONT: i32 = 16;

/// Draws what a definition asks for beside its curves. None: the rows do not have it.
pub fn picture(analysis: &Analysis, experiment: &Experiment, picture: &Picture) -> Result<Option<Figure>, Failure> {
    match picture {
        Picture::HeatMap { metric, across, up } => heat_map::heat_map(analysis, experiment, metric, across, up),
        Picture::Tail { histogram, label } => tail::tail(analysis, experiment, histogram, label),
        Picture::Stack { series } => stack::stack(analysis, experiment, series),
        Picture::IsoPerformance { metric, bytes } => iso::iso(analysis, experiment, metric, bytes),
        Picture::Occupancy => occupancy::occupancy(analysis, experiment),
    }
}

fn legend(area: &Area, subjects: &[Subject]) -> Drawn {
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

fn line(area: &Area, points: &[(i32, i32)], colour: RGBAColor, width: u32) -> Drawn {
    Ok(area.draw(&PathElement::new(points.to_vec(), colour.stroke_width(width)))?)
}

fn text(area: &Area, words: &str, at: (i32, i32), across: HPos, down: VPos) -> Drawn {
    let style = ("sans-serif", FONT).into_font().color(&INK).pos(Pos::new(across, down));
    Ok(area.draw(&Text::new(words.to_owned(), at, style))?)
}

/// The points of a figure as CSV, for those who draw it themselves.
fn data<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = header.join(",") + "\n";
    for row in rows {
        text += &row.map(|field| super::summary::quote(&field)).join(",");
        text.push('\n');
    }
    text
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
    fn a_figure_is_svg_that_follows_the_page() {
        let svg = draw((100, 50), |area| text(area, "a < b", (10, 10), HPos::Left, VPos::Top)).unwrap();
        assert!(svg.starts_with("<svg class=\"figure\""), "{svg}");
        assert!(svg.contains("currentColor") && svg.contains("a &lt; b") && !svg.contains("#000000"), "{svg}");
    }
}
