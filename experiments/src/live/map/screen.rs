//! The map with letters.

use super::heap::Heap;
use crate::live::spans::{Span, Use};
use crate::report::number;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Letters of a line.
const LETTERS: u64 = 64;
/// For spans of small objects, by how full they are.
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];

/// The map, in so many lines at most, and the table.
pub fn text(heap: &Heap, rows: u64) -> String {
    let mut text = format!("{}\n{}\n\n", heap.title, heap.sums());
    map(&mut text, heap, rows);
    table(&mut text, heap);
    text
}

fn map(text: &mut String, heap: &Heap, rows: u64) {
    let mut pages = heap.huge_pages.max(LETTERS);
    while lines(heap, pages).len() as u64 > rows {
        pages *= 2;
    }
    let each = pages / LETTERS;
    _ = writeln!(
        text,
        "a line {}, a letter {}: {} small objects, a quarter of a span and more; L large, o own, . free, - given back or \
         untouched",
        bytes(pages * heap.page_bytes),
        bytes(each * heap.page_bytes),
        SHADES.iter().collect::<String>(),
    );
    let mut before = None;
    for (line, spans) in lines(heap, pages) {
        if before.is_some_and(|before: u64| before + 1 != line) {
            text.push_str("                |\n");
        }
        let cells = (0..LETTERS).map(|cell| letter(heap, &spans, line * pages + cell * each, each));
        _ = writeln!(text, "{:#015x} |{}|", line * pages * heap.page_bytes, cells.collect::<String>());
        before = Some(line);
    }
}

/// The lines of so many pages in which the heap has some, each with its spans.
fn lines(heap: &Heap, pages: u64) -> BTreeMap<u64, Vec<Span>> {
    let mut lines: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    // What is not mapped is shown beside what is.
    for span in heap.spans.iter().filter(|span| span.what != Use::Hole) {
        for line in span.first_page / pages..=(span.first_page + span.pages - 1) / pages {
            lines.entry(line).or_default().push(*span);
        }
    }
    lines
}

/// What most of these pages are used for.
fn letter(heap: &Heap, spans: &[Span], first: u64, count: u64) -> char {
    let mut found: BTreeMap<char, u64> = BTreeMap::new();
    for span in spans {
        let (start, end) = (span.first_page.max(first), (span.first_page + span.pages).min(first + count));
        if start < end {
            *found.entry(of(heap, span.what)).or_default() += end - start;
        }
    }
    found.into_iter().max_by_key(|(_, pages)| *pages).map_or(' ', |(letter, _)| letter)
}

fn of(heap: &Heap, what: Use) -> char {
    match what {
        Use::Small { class, out } => SHADES[quarter(heap.share(class, out))],
        Use::Large => 'L',
        Use::Own => 'o',
        Use::Free => '.',
        Use::Zero => '-',
        Use::Hole => ' ',
    }
}

/// In which quarter a share is; all of it in the last.
fn quarter(share: f64) -> usize {
    ((share * 4.0) as usize).min(3)
}

/// Spans of each class by how full they are.
fn table(text: &mut String, heap: &Heap) {
    // Empty, up to each quarter, full.
    let mut classes: BTreeMap<usize, [u64; 6]> = BTreeMap::new();
    for span in &heap.spans {
        let Use::Small { class, out } = span.what else { continue };
        let share = heap.share(class, out);
        let column = if out == 0 {
            0
        } else if share >= 1.0 {
            5
        } else {
            1 + quarter(share)
        };
        classes.entry(class).or_default()[column] += 1;
    }
    _ = writeln!(
        text,
        "\n{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "class", "spans", "empty", "to 25%", "to 50%", "to 75%", "below all", "full"
    );
    for (class, counts) in classes {
        _ = write!(text, "{:>9} {:>9}", heap.class(class).0, counts.iter().sum::<u64>());
        counts.iter().for_each(|count| _ = write!(text, " {count:>9}"));
        text.push('\n');
    }
}

fn bytes(bytes: u64) -> String {
    number::axis(bytes as f64, "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_letter_and_each_span_its_column() {
        let heap = super::super::heap::example();
        let text = text(&heap, 48);
        let map: Vec<_> = text.lines().filter(|line| line.ends_with('|')).collect();
        // Two lines of a huge page, with a gap between them; the one that is not mapped is not shown.
        assert_eq!(map.len(), 3, "{text}");
        let letters = &map[0][map[0].find('|').expect("a border")..];
        let expected = ["|░", &"L".repeat(25), "ooo", &".".repeat(25), &"-".repeat(10), "|"].concat();
        assert_eq!(letters, expected, "{text}");
        assert!(map[0].starts_with("0x0000000200000 |"), "{text}");
        assert!(
            text.contains("\n        8         1         0         0         0         0         0         1\n"),
            "{text}"
        );
        assert!(
            text.contains("\n     3072         1         0         1         0         0         0         0\n"),
            "{text}"
        );
        // With fewer lines a letter stands for more.
        let short = super::text(&heap, 1);
        assert_eq!(short.lines().filter(|line| line.ends_with('|')).count(), 1, "{short}");
    }
}
