//! Numbers that were measured before: one line of JSON each in a file, written as each of them comes, so that a run
//! which is cut goes on where it was.

use super::case::Case;
use super::heap::Heap;
use super::number::Measured;
use crate::failure::Failure;
use crate::host::kernel::Kernel;
use crate::written;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A number, and all it depends on.
#[derive(Serialize, Deserialize)]
struct Line {
    row: String,
    heap: String,
    version: String,
    host: String,
    number: f64,
    #[serde(default)]
    at_least: bool,
}

/// The file, if one was named.
pub struct Kept {
    lines: Vec<Line>,
    file: Option<(PathBuf, File)>,
    host: String,
}

impl Kept {
    /// Reads what there is. A last line that was cut is left out; any other that does not parse is an error.
    pub fn open(path: Option<&Path>) -> Result<Kept, Failure> {
        let kernel = Kernel::read();
        let host = format!("Linux {}, vm.overcommit_memory {}", kernel.release, kernel.overcommit);
        let Some(path) = path else { return Ok(Kept { lines: Vec::new(), file: None, host }) };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(|error| Failure::file(path, "read", error))?,
        };
        let (mut lines, mut whole) = (Vec::new(), String::new());
        for (index, line) in text.split_inclusive('\n').enumerate() {
            match serde_json::from_str(line) {
                Ok(parsed) => lines.push(parsed),
                Err(_) if !line.ends_with('\n') => break,
                Err(error) => {
                    let what = format!("line {}: {error}; expected a row that `perseq limits --rows` wrote", index + 1);
                    return Err(Failure::file(path, "read", what));
                }
            }
            whole += line.trim_end();
            whole.push('\n');
        }
        written::whole(path, whole.as_bytes())?;
        let file = File::options().append(true).open(path).map_err(|error| Failure::file(path, "write", error))?;
        Ok(Kept { lines, file: Some((path.to_owned(), file)), host })
    }

    /// The newest number of this row and column: of the same file of the same allocator, on the same kernel.
    pub fn find(&self, case: &Case, heap: &Heap) -> Option<Measured> {
        let same = |line: &&Line| {
            (&*line.row, &line.heap, &line.version, &line.host) == (case.name, &heap.name, &heap.version, &self.host)
        };
        let found = self.lines.iter().rev().find(same);
        found.map(|line| Measured { number: line.number, at_least: line.at_least })
    }

    /// Appends a number.
    pub fn add(&mut self, case: &Case, heap: &Heap, measured: Measured) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let line = Line {
            row: case.name.into(),
            heap: heap.name.clone(),
            version: heap.version.clone(),
            host: self.host.clone(),
            number: measured.number,
            at_least: measured.at_least,
        };
        let text = serde_json::to_string(&line).map_err(|error| Failure::host(error.to_string()))? + "\n";
        file.write_all(text.as_bytes()).map_err(|error| Failure::file(path, "write", error))
    }
}
