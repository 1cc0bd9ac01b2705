//! The report as Markdown, with its figures beside it.

use super::document::{Block, Document, Table};

/// Writes it.
pub fn write(document: &Document) -> String {
    let mut text = format!("# {}\n", document.title);
    for block in &document.blocks {
        text.push('\n');
        text += &match block {
            Block::Contents => {
                document.headings().map(|(heading, anchor)| format!("- [{heading}](#{anchor})\n")).collect()
            }
            Block::Heading(level, heading) => format!("{} {heading}\n", "#".repeat(usize::from(*level))),
            Block::Paragraph(paragraph) => format!("{paragraph}\n"),
            Block::Notice(notice) => format!("> **Note.** {notice}\n"),
            Block::List(items) => items.iter().map(|item| format!("- {item}\n")).collect(),
            Block::Table(table) => self::table(table),
            Block::Figure(figure) => {
                format!("![{}](figures/{}.svg)\n\n*{}*\n", figure.name, figure.name, figure.caption)
            }
        };
    }
    text
}

fn table(table: &Table) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = format!("*{}*\n\n", table.caption);
    text += &line(&mut table.header.iter().map(|cell| (*cell).to_owned()));
    let rule = |index| if index < table.text_columns { ":--" } else { "--:" };
    text += &line(&mut (0..table.header.len()).map(|index| rule(index).to_owned()));
    for row in &table.rows {
        text += &line(&mut row.iter().map(|cell| cell.replace('|', "\\|")));
    }
    text
}
