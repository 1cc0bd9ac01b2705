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
    /// Its figures.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Figure(figure) => Some(figure),
            _ => None,
        })
    }
}
