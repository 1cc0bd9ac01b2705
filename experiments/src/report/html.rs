//! The report as one page that needs nothing else: style and figures are inside, and no script.

use super::document::{Block, Document, Table, anchor};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// Writes it.
pub fn write(document: &Document) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (document.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (document.title) }
                    @for block in &document.blocks { (self::block(document, block)) }
                }
            }
        }
    }
    .into_string()
        + "\n"
}

fn block(document: &Document, block: &Block) -> Markup {
    match block {
        Block::Contents => html! {
            nav aria-label="Contents" {
                ul { @for (heading, anchor) in document.headings() { li { a href=(format!("#{anchor}")) { (inline(heading)) } } } }
            }
        },
        Block::Heading(2, heading) => html! { h2 id=(anchor(heading)) { (inline(heading)) } },
        Block::Heading(_, heading) => html! { h3 { (inline(heading)) } },
        Block::Paragraph(paragraph) => html! { p { (inline(paragraph)) } },
        Block::Notice(notice) => html! { p.notice role="note" { (inline(notice)) } },
        Block::List(items) => html! { ul { @for item in items { li { (inline(item)) } } } },
        Block::Table(table) => self::table(table),
        Block::Figure(figure) => html! {
            figure id=(figure.name) {
                (PreEscaped(&figure.svg))
                figcaption { (inline(&figure.caption)) }
            }
        },
    }
}

fn table(table: &Table) -> Markup {
    let class = |index: usize| (index >= table.text_columns).then_some("number");
    let long = |cell: &str| (cell.chars().count() > 40).then_some("long");
    html! {
        div.table tabindex="0" {
            table {
                caption { (inline(&table.caption)) }
                thead { tr { @for (index, cell) in table.header.iter().enumerate() { th scope="col" class=[class(index)] { (cell) } } } }
                tbody {
                    @for row in &table.rows {
                        tr { @for (index, cell) in row.iter().enumerate() { td class=[class(index).or(long(cell))] { (inline(cell)) } } }
                    }
                }
            }
        }
    }
}

/// Text with code between backticks.
fn inline(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_backticks_are_code() {
        assert_eq!(inline("a < b in `c & d`").into_string(), "a &lt; b in <code>c &amp; d</code>");
    }
}
