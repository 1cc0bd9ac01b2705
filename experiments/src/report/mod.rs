//! The report of a run, from its files alone: the same rows give the same bytes.
//!
//! [`analysis`] turns rows into ratios, [`claims`] says what they allow, [`figure`] draws them, [`text`] tells
//! it as a [`document`], and [`markdown`], [`html`] and [`latex`] write that down.

pub mod analysis;
mod claims;
mod counted;
pub mod document;
pub mod figure;
pub mod html;
mod latex;
mod locality;
pub mod markdown;
pub mod number;
pub mod parts;
mod planted;
mod policy;
mod restarts;
mod standing;
mod summary;
pub mod tables;
mod text;

use crate::experiment::Experiments;
use crate::failure::Failure;
use crate::harness::archive::{Archive, Contents};
use crate::written::{Folder, Origin};
use analysis::Analysis;
use document::Document;
use std::fmt;
use std::path::PathBuf;

/// What a command says of a report that it has written, in three lines.
pub struct Told {
    conclusion: String,
    host: String,
    /// The page to open.
    pub page: PathBuf,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.conclusion, self.host, self.page.display())
    }
}

/// Writes `report/`.
pub fn write(archive: &Archive, run: Contents<Experiments>) -> Result<Told, Failure> {
    run.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let origin = run.origin();
    write_analysis(archive, origin, &Analysis::new(run))
}

/// As [`write`], of a run that was analysed already.
pub fn write_analysis(archive: &Archive, origin: Origin, analysis: &Analysis) -> Result<Told, Failure> {
    let folder = Folder::create(archive.root().join("report"), origin)?;
    let document = text::document(analysis)?;
    let tex = folder.below("latex")?;
    for (name, contents) in latex::files(analysis) {
        tex.save(&name, &contents)?;
    }
    folder.save("summary.csv", &summary::csv(analysis))?;
    let page = pages(&folder, &document)?;
    Ok(Told { conclusion: standing::conclusion(analysis), host: text::fitness(analysis), page })
}

/// Writes a document as Markdown and as a page, with the figures beside them. The page's path.
pub fn pages(folder: &Folder, document: &Document) -> Result<PathBuf, Failure> {
    let figures = folder.below("figures")?;
    for figure in document.figures() {
        figures.save(&format!("{}.svg", figure.name), &figure.svg)?;
        figures.save(&format!("{}.csv", figure.name), &figure.data)?;
    }
    folder.save("report.md", &markdown::write(document))?;
    folder.save("report.html", &html::write(document))
}
