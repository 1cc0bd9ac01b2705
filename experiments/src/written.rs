//! Files that are written whole or not at all, and the mark on what was made of changed rows.

use crate::failure::Failure;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a file under another name, hands it to the disk, and gives it its own.
pub fn whole(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::file(path, "write", error);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    let mut file = File::create(&draft).map_err(fail)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| {
        drop(fs::remove_file(&draft));
        fail(error)
    })
}

/// A folder of files that are made from a run. If the run's own files were changed, each of them says so.
pub struct Folder {
    root: PathBuf,
    changed: Option<String>,
}

impl Folder {
    /// The folder, created; `changed` is what does not fit in the files of the run.
    pub fn create(root: PathBuf, changed: Option<String>) -> Result<Folder, Failure> {
        fs::create_dir_all(&root).map_err(|error| Failure::file(&root, "create", error))?;
        Ok(Folder { root, changed })
    }

    /// A folder within it.
    pub fn below(&self, name: &str) -> Result<Folder, Failure> {
        Folder::create(self.root.join(name), self.changed.clone())
    }

    /// Writes a file, and returns its path.
    pub fn save(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.root.join(name);
        let text = match &self.changed {
            Some(changed) => marked(&path, text, &banner(changed)),
            None => text.to_owned(),
        };
        whole(&path, text.as_bytes()).map(|()| path)
    }
}

/// The mark: what nobody must miss who reads a file made of changed rows.
pub fn banner(changed: &str) -> String {
    format!("CHANGED FILES: this was made of files that are not what the run wrote. {changed}")
}

/// The text with the banner where its format has a place for it.
fn marked(path: &Path, text: &str, banner: &str) -> String {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("tex") => format!("% {banner}\n{text}"),
        Some("svg") => format!("{text}<!-- {} -->\n", banner.replace("--", "- -")),
        Some("html") => {
            let escaped = banner.replace('&', "&amp;").replace('<', "&lt;");
            text.replacen("<main>", &format!("<main><p class=\"notice\" role=\"note\"><b>{escaped}</b></p>"), 1)
        }
        Some("md") => format!("> **{banner}**\n\n{text}"),
        _ => format!("# {banner}\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_made_of_changed_rows_says_so_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        for (changed, expected) in [(Some("line 3".to_owned()), true), (None, false)] {
            let folder = Folder::create(place.path().join("report"), changed).unwrap();
            for name in ["a.html", "a.md", "a.csv", "a.svg", "a.tex", "a.txt"] {
                let path = folder.save(name, "<html><main>text</main></html>\n").unwrap();
                let text = fs::read_to_string(path).unwrap();
                assert_eq!(text.contains("CHANGED FILES") && text.contains("line 3"), expected, "{name}: {text}");
            }
        }
        assert!(fs::read_dir(place.path().join("report")).unwrap().count() == 6, "no draft is left");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        whole(&path, b"first").unwrap();
        fs::create_dir(place.path().join("file.draft")).unwrap();
        assert!(whole(&path, b"second").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
