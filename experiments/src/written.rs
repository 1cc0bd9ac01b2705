//! Files that are written whole or not at all, folders for them that were empty, and the mark on what was made of changed
//! rows.

use crate::failure::Failure;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
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

/// Creates the folder that was named, or `PARENT/NAME`, with a number behind it if another was made in the same second.
/// Refuses one that holds anything.
pub fn folder(named: Option<&Path>, parent: &str, name: &str) -> Result<PathBuf, Failure> {
    let Some(folder) = named else { return fresh(Path::new(parent), name) };
    let occupied = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => folder.exists(),
    };
    if occupied {
        let line = format!("{}: exists and is not empty; results are never overwritten", folder.display());
        return Err(Failure::usage(line));
    }
    fs::create_dir_all(folder).map_err(|error| Failure::file(folder, "create", error))?;
    Ok(folder.to_owned())
}

fn fresh(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    fs::create_dir_all(parent).map_err(|error| Failure::file(parent, "create", error))?;
    for number in 1.. {
        let folder = parent.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file(&folder, "create", error)),
        }
    }
    unreachable!("some number is free")
}

/// The rows that something is made of.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the run.
    pub run_id: String,
    /// How many there are.
    pub rows: usize,
    /// What stands for all of them: SHA-256 of the last line, which holds that of the line before it, and so on down to
    /// the plan. Before schema 1.2: of the whole file.
    pub root: String,
    /// Whether each row holds the sum of the line before it.
    pub chained: bool,
    /// What does not fit in the files of the run, if that was accepted.
    pub changed: Option<String>,
}

impl Origin {
    /// The line by which what was made can be traced to the rows.
    pub fn line(&self) -> String {
        let what = if self.chained { "the root of their chain" } else { "the SHA-256 of their file" };
        format!("Made of the {} rows of run {}; {what} is {}.", self.rows, self.run_id, self.root)
    }

    /// Enough of the root to know it again.
    fn short(&self) -> &str {
        self.root.get(..16).unwrap_or(&self.root)
    }

    /// The text of a file called `name`, with the line of its origin, and with a banner if the run's files were changed.
    pub fn mark(&self, name: &str, text: &str) -> String {
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let text = traced(ending, text, &self.line(), self.short());
        match &self.changed {
            Some(changed) => marked(ending, &text, &banner(changed)),
            None => text,
        }
    }
}

/// A folder of files that are made from a run. Each names the rows it was made of; if the run's own files were changed,
/// each of them says so.
pub struct Folder {
    root: PathBuf,
    origin: Origin,
}

impl Folder {
    /// The folder, created.
    pub fn create(root: PathBuf, origin: Origin) -> Result<Folder, Failure> {
        fs::create_dir_all(&root).map_err(|error| Failure::file(&root, "create", error))?;
        Ok(Folder { root, origin })
    }

    /// A folder within it.
    pub fn below(&self, name: &str) -> Result<Folder, Failure> {
        Folder::create(self.root.join(name), self.origin.clone())
    }

    /// Writes a file, and returns its path.
    pub fn save(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.root.join(name);
        whole(&path, self.origin.mark(name, text).as_bytes()).map(|()| path)
    }
}

/// The mark: what nobody must miss who reads a file made of changed rows.
pub fn banner(changed: &str) -> String {
    format!("CHANGED FILES: this was made of files that are not what the run wrote. {changed}")
}

/// The text with the line of its origin where its format has a place for it: a table of commas has a column of its own.
fn traced(ending: &str, text: &str, line: &str, root: &str) -> String {
    match ending {
        "csv" => column(text, "chain_root", root),
        "tex" => format!("% {line}\n{text}"),
        "svg" => format!("{text}<!-- {} -->\n", line.replace("--", "- -")),
        "html" => text.replacen("</h1>", &format!("</h1><p class=\"origin\">{}</p>", escaped(line)), 1),
        "md" => match text.split_once('\n') {
            Some((title, rest)) if title.starts_with("# ") => format!("{title}\n\n{line}\n{rest}"),
            _ => format!("{line}\n\n{text}"),
        },
        _ => format!("# {line}\n{text}"),
    }
}

/// The table with one more column, the same in every line. A line break between quotes ends no line.
fn column(text: &str, header: &str, value: &str) -> String {
    let (mut table, mut quoted, mut first) = (String::with_capacity(text.len()), false, true);
    for line in text.split_inclusive('\n') {
        quoted ^= line.matches('"').count() % 2 == 1;
        let Some(line) = line.strip_suffix('\n').filter(|_| !quoted) else {
            table += line;
            continue;
        };
        table += &format!("{line},{}\n", if std::mem::take(&mut first) { header } else { value });
    }
    table
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The text with the banner where its format has a place for it.
fn marked(ending: &str, text: &str, banner: &str) -> String {
    match ending {
        "tex" => format!("% {banner}\n{text}"),
        "svg" => format!("{text}<!-- {} -->\n", banner.replace("--", "- -")),
        "html" => {
            let banner = escaped(banner);
            text.replacen("<main>", &format!("<main><p class=\"notice\" role=\"note\"><b>{banner}</b></p>"), 1)
        }
        "md" => format!("> **{banner}**\n\n{text}"),
        _ => format!("# {banner}\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;

    #[test]
    fn every_file_names_its_rows_and_says_so_if_they_were_changed() {
        let place = tempfile::tempdir().unwrap();
        for (changed, expected) in [(Some("line 3".to_owned()), true), (None, false)] {
            let root = checksum::of(b"rows");
            let origin = Origin { run_id: "name".into(), rows: 7, root: root.clone(), chained: true, changed };
            let folder = Folder::create(place.path().join("report"), origin).unwrap();
            for name in ["a.html", "a.md", "a.csv", "a.svg", "a.tex", "a.txt"] {
                let path = folder.save(name, "<html><main><h1>title</h1>text</main></html>\n1\n").unwrap();
                let text = fs::read_to_string(path).unwrap();
                assert_eq!(text.contains("CHANGED FILES") && text.contains("line 3"), expected, "{name}: {text}");
                assert!(text.contains(&root[..16]), "{name}: {text}");
                assert!(name == "a.csv" || text.contains(&root), "{name}: {text}");
            }
        }
        assert!(fs::read_dir(place.path().join("report")).unwrap().count() == 6, "no draft is left");
    }

    #[test]
    fn a_table_gets_a_column_whatever_is_between_its_quotes() {
        let table = column("a,b\n1,\"two\nlines\"\n2,\"a \"\"word\"\"\"\n", "chain_root", "f00");
        assert_eq!(table, "a,b,chain_root\n1,\"two\nlines\",f00\n2,\"a \"\"word\"\"\",f00\n");
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
