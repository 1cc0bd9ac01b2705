//! The elements that every figure is drawn with, and the file they end in.
//!
//! Black becomes `currentColor`, so that a figure follows the page into the dark.

use super::super::summary::quote;
use crate::failure::Failure;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

/// Where a figure is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// How drawing ended.
pub type Drawn = Result<(), Box<dyn Error>>;

/// Width of a figure: as wide as words of this size can be read on a phone. Panels stand below each other.
pub const WIDTH: i32 = 480;
/// Room to the left of a panel, for the words of its axis.
pub const LEFT: i32 = 84;
/// Width of a panel.
pub const PANEL: i32 = WIDTH - LEFT - 18;

/// The colour of lines and words.
pub const INK: RGBColor = BLACK;
const FONT: i32 = 16;

/// Draws a line through these points.
pub fn line(area: &Area, points: &[(i32, i32)], colour: RGBAColor, width: u32) -> Drawn {
    Ok(area.draw(&PathElement::new(points.to_vec(), colour.stroke_width(width)))?)
}

/// Writes words at a place.
pub fn text(area: &Area, words: &str, at: (i32, i32), across: HPos, down: VPos) -> Drawn {
    let style = ("sans-serif", FONT).into_font().color(&INK).pos(Pos::new(across, down));
    Ok(area.draw(&Text::new(words.to_owned(), at, style))?)
}

/// The points of a figure as CSV, for those who draw it themselves.
pub fn data<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = header.join(",") + "\n";
    for row in rows {
        text += &row.map(|field| quote(&field)).join(",");
        text.push('\n');
    }
    text
}

/// What SVG takes for granted, and need not be said of each of ten thousand marks.
const GRANTED: [&str; 2] = [" opacity=\"1\"", " stroke=\"none\" stroke-width=\"1\""];

/// Draws, and lets black follow the page.
pub fn draw(size: (u32, u32), body: impl FnOnce(&Area) -> Drawn) -> Result<String, Failure> {
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
    Ok(GRANTED.iter().fold(svg, |svg, words| svg.replace(words, "")).replace("#000000", "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_svg_that_follows_the_page() {
        let svg = draw((100, 50), |area| text(area, "a < b", (10, 10), HPos::Left, VPos::Top)).unwrap();
        assert!(svg.starts_with("<svg class=\"figure\""), "{svg}");
        assert!(svg.contains("currentColor") && svg.contains("a &lt; b") && !svg.contains("#000000"), "{svg}");
        assert!(GRANTED.iter().all(|words| !svg.contains(words)), "{svg}");
    }
}
