//! The map as a figure: a line for each huge page that the heap has something of.

use super::heap::Heap;
use crate::live::spans::{Span, Use};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Pixels of a line, of its height, and of what stands before it and above.
const WIDTH: f64 = 1024.0;
const HEIGHT: f64 = 8.0;
const LEFT: f64 = 130.0;
const TOP: f64 = 64.0;

/// The figure.
pub fn figure(heap: &Heap) -> String {
    let mut lines: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    for span in heap.spans.iter().filter(|span| span.what != Use::Hole) {
        for line in span.first_page / heap.huge_pages..=(span.first_page + span.pages - 1) / heap.huge_pages {
            lines.entry(line).or_default().push(*span);
        }
    }
    let (width, height) = (LEFT + WIDTH + 10.0, TOP + lines.len() as f64 * (HEIGHT + 2.0) + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, 10.0, 18.0, &heap.title);
    text(&mut svg, 10.0, 34.0, &heap.sums());
    legend(&mut svg, 50.0);
    for (row, (line, spans)) in lines.iter().enumerate() {
        let (y, first) = (TOP + row as f64 * (HEIGHT + 2.0), line * heap.huge_pages);
        let address = format!("{:#x}", first * heap.page_bytes);
        _ = writeln!(svg, "<text x=\"10\" y=\"{}\" font-size=\"8\">{address}</text>", y + HEIGHT - 1.0);
        for span in spans {
            let start = span.first_page.max(first);
            let end = (span.first_page + span.pages).min(first + heap.huge_pages);
            let scale = WIDTH / heap.huge_pages as f64;
            let (x, wide) = (LEFT + (start - first) as f64 * scale, (end - start) as f64 * scale);
            let (fill, opacity) = colour(heap, span.what);
            _ = writeln!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{HEIGHT}\" fill=\"{fill}\" \
                 fill-opacity=\"{opacity:.2}\"><title>{}</title></rect>",
                (wide - 0.25).max(0.25),
                escaped(&name(heap, span)),
            );
        }
    }
    svg + "</svg>\n"
}

/// What a span is, under the pointer.
fn name(heap: &Heap, span: &Span) -> String {
    let bytes = (span.pages * heap.page_bytes) >> 10;
    match span.what {
        Use::Small { class, out } => {
            let (size, objects) = heap.class(class);
            format!("{bytes} KiB of objects of {size} bytes: {out} of {objects} taken")
        }
        Use::Large => format!("a large block of {bytes} KiB"),
        Use::Own => format!("{bytes} KiB of the allocator's own"),
        Use::Free => format!("{bytes} KiB free and resident"),
        Use::Zero => format!("{bytes} KiB free, given back or untouched"),
        Use::Hole => format!("{bytes} KiB unmapped"),
    }
}

/// The colour of a use, and how dense it is: for small objects as the span is full.
fn colour(heap: &Heap, what: Use) -> (String, f64) {
    match what {
        // Neighbours in the table of classes are far apart on the circle of colours.
        Use::Small { class, out } => (hue(class), 0.15 + 0.85 * heap.share(class, out)),
        Use::Large => ("#445".into(), 1.0),
        Use::Own => ("#000".into(), 1.0),
        Use::Free => ("#fc3".into(), 0.6),
        Use::Zero => ("#ddd".into(), 0.5),
        Use::Hole => ("none".into(), 0.0),
    }
}

/// By the golden angle.
fn hue(class: usize) -> String {
    format!("hsl({:.0},70%,42%)", class as f64 * 137.508 % 360.0)
}

fn legend(svg: &mut String, y: f64) {
    let mut x = 10.0;
    for (fill, opacity, what) in [
        (hue(0), 1.0, "small objects, a colour for each class; full"),
        (hue(0), 0.25, "nearly empty"),
        ("#445".into(), 1.0, "large"),
        ("#000".into(), 1.0, "own"),
        ("#fc3".into(), 0.6, "free, resident"),
        ("#ddd".into(), 0.5, "given back or untouched"),
    ] {
        _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>",
            y - 9.0
        );
        text(svg, x + 14.0, y, what);
        x += 30.0 + 6.6 * what.len() as f64;
    }
}

fn text(svg: &mut String, x: f64, y: f64, text: &str) {
    _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_is_a_rectangle_where_it_lies() {
        let svg = figure(&super::super::heap::example());
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("perseq &lt;of a test&gt;"),
            "{svg}"
        );
        // All but the hole; nothing crosses the end of a huge page.
        assert_eq!(svg.matches("<title>").count(), 7, "{svg}");
        assert_eq!(svg.matches("1 of 8 taken").count(), 1, "{svg}");
        let large = svg.lines().find(|line| line.contains("a large block of 800 KiB")).expect("a rectangle");
        assert!(large.contains("x=\"146.00\"") && large.contains("width=\"399.75\""), "{large}");
        assert!(svg.contains(">0x200000</text>") && svg.contains(">0x2000000</text>"), "{svg}");
    }
}
