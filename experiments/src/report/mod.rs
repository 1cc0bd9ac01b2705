//! The report of a run, from its files alone: the same rows give the same bytes.
//!
//! [`analysis`] turns rows into ratios, [`claims`] says what they allow, [`figure`] draws them, [`text`] tells
//! it as a [`document`], and [`markdown`], [`html`] and [`latex`] write that down.

mod analysis;
mod claims;
mod counted;
pub mod document;
mod figure;
pub mod html;
mod latex;
pub mod markdown;
pub mod number;
mod summary;
mod tables;
mod text;

use crate::archive::Archive;
use crate::failure::{Exit, Failure};
use crate::output;
use analysis::Analysis;
use std::fs;
use std::path::{Path, PathBuf};

/// `perseq report`.
pub fn main(root: &Path) -> Result<Exit, Failure> {
    let path = write(&Archive::open(root)?)?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(Exit::Done)
}

/// Writes `report/` and returns the path of the page to open.
pub fn write(archive: &Archive) -> Result<PathBuf, Failure> {
    let manifest = archive.manifest()?;
    let plan = archive.plan()?;
    let rows = archive.rows()?;
    rows.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    for name in archive.changed()? {
        eprintln!("warning: {name} is not the file that this run ended with; see SHA256SUMS");
    }
    let analysis = Analysis::new(manifest, &plan, rows.rows, rows.warning);
    let document = text::document(&analysis)?;

    let directory = archive.root().join("report");
    let figures = directory.join("figures");
    fs::create_dir_all(&figures).map_err(|error| Failure::file(&figures, "create", error))?;
    let save = |path: PathBuf, text: &str| {
        fs::write(&path, text).map_err(|error| Failure::file(&path, "write", error)).map(|()| path)
    };
    for figure in document.figures() {
        save(figures.join(format!("{}.svg", figure.name)), &figure.svg)?;
        save(figures.join(format!("{}.csv", figure.name)), &figure.data)?;
    }
    let tex = directory.join("latex");
    fs::create_dir_all(&tex).map_err(|error| Failure::file(&tex, "create", error))?;
    for (name, contents) in latex::files(&analysis) {
        save(tex.join(name), &contents)?;
    }
    save(directory.join("summary.csv"), &summary::csv(&analysis))?;
    save(directory.join("report.md"), &markdown::write(&document))?;
    save(directory.join("report.html"), &html::write(&document))
}
