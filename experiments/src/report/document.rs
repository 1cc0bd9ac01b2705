//! A report before it has a format: headings, paragraphs, tables and figures.

/// The whole report.
pub struct Document {
    /// Its title.
    pub title: String,
    /// Its parts, in order.
    pub blocks: Vec<Block>,
}

/// One part. Text between backticks is code.
pub enum Block {
    /// Links to the headings of level 2.
    Contents,
    /// A heading of level 2 or 3.
    Heading(u8, String),
    /// A paragraph.
    Paragraph(String),
    /// A paragraph a reader must not miss.
    Notice(String),
    /// A list.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
}

/// A table.
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// Columns from the left that are text; the rest are numbers.
    pub text_columns: usize,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

/// A figure.
pub struct Figure {
    /// Name of its file, without the ending.
    pub name: String,
    /// What it shows: quantity, n, interval and host.
    pub caption: String,
    /// The drawing.
    pub svg: String,
    /// What was drawn, as CSV.
    pub data: String,
}

impl Document {
    /// Its headings of level 2, each with what links to it are made of.
    pub fn headings(&self) -> impl Iterator<Item = (&str, String)> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Heading(2, heading) => Some((heading.as_str(), anchor(heading))),
            _ => None,
        })
    }

    /// Its figures.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Figure(figure) => Some(figure),
            _ => None,
        })
    }
}

/// What links to a heading are made of, as the usual readers of Markdown make it: lower case, a hyphen for each space, and
/// no punctuation.
pub fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_that_readers_make() {
        assert_eq!(anchor("E01 Cost of the fast path"), "e01-cost-of-the-fast-path");
        assert_eq!(anchor("What `E08` says, and why"), "what-e08-says-and-why");
    }
}
