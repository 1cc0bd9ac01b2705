//! The directory of a run: `manifest.json`, `plan.jsonl`, `samples.jsonl`, their `SHA256SUMS`, and `report/`.
//!
//! Rows are only ever appended, each flushed before the next sample starts. An existing run is never
//! overwritten. A last line that was cut off by a crash is left out of what is read, with a warning.

use crate::checksum;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::plan::Planned;
use crate::sample::{Row, SCHEMA};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a run consists of; everything else is made from it.
const RAW: [&str; 3] = ["manifest.json", "plan.jsonl", "samples.jsonl"];

/// A run on disk.
pub struct Archive {
    root: PathBuf,
}

/// Rows of a file, and what was wrong with its end.
pub struct Rows {
    /// The complete rows.
    pub rows: Vec<Row>,
    /// A warning about a line that was cut off.
    pub warning: Option<String>,
    complete_bytes: u64,
}

impl Archive {
    /// Creates the directory. Refuses one that holds anything.
    pub fn create(root: &Path) -> Result<Archive, Failure> {
        let occupied = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => root.exists(),
        };
        if occupied {
            let line = format!("{}: exists and is not empty; results are never overwritten", root.display());
            return Err(Failure::usage(line));
        }
        fs::create_dir_all(root).map_err(|error| Failure::file(root, "create", error))?;
        Ok(Archive { root: root.to_owned() })
    }

    /// Opens a run that exists.
    pub fn open(root: &Path) -> Result<Archive, Failure> {
        if !root.is_dir() {
            return Err(Failure::usage(format!(
                "{}: no such directory; expected a run made by `perseq run`",
                root.display()
            )));
        }
        Ok(Archive { root: root.to_owned() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes the manifest, whole or not at all.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Failure> {
        let (path, draft) = (self.root.join("manifest.json"), self.root.join("manifest.json.draft"));
        let json = serde_json::to_string_pretty(manifest).map_err(|error| Failure::file(&path, "write", error))?;
        fs::write(&draft, json + "\n").map_err(|error| Failure::file(&draft, "write", error))?;
        fs::rename(&draft, &path).map_err(|error| Failure::file(&path, "write", error))
    }

    /// Reads the manifest. Refuses a foreign schema.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        let path = self.root.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: expected JSON: {error}", path.display())))?;
        let schema = json.get("schema").and_then(|schema| schema.as_str());
        check_schema(&path, schema)?;
        serde_json::from_value(json)
            .map_err(|error| Failure::usage(format!("{}: expected a manifest: {error}", path.display())))
    }

    /// Writes the plan.
    pub fn write_plan(&self, plan: &[Planned]) -> Result<(), Failure> {
        let path = self.root.join("plan.jsonl");
        let mut text = String::new();
        for planned in plan {
            text += &serde_json::to_string(planned).map_err(|error| Failure::file(&path, "write", error))?;
            text.push('\n');
        }
        fs::write(&path, text).map_err(|error| Failure::file(&path, "write", error))
    }

    /// Reads the plan.
    pub fn plan(&self) -> Result<Vec<Planned>, Failure> {
        let path = self.root.join("plan.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        text.lines().enumerate().map(|(index, line)| parse(&path, index, line)).collect()
    }

    /// Reads every complete row.
    pub fn rows(&self) -> Result<Rows, Failure> {
        let path = self.root.join("samples.jsonl");
        let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..complete])
            .map_err(|error| Failure::usage(format!("{}: expected text in UTF-8: {error}", path.display())))?;
        let warning = (complete < bytes.len()).then(|| {
            let line = text.lines().count() + 1;
            format!("samples.jsonl: line {line} was cut off after {} bytes and is left out", bytes.len() - complete)
        });
        let mut rows = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let json: serde_json::Value = parse(&path, index, line)?;
            check_schema(&path, json.get("schema").and_then(|schema| schema.as_str()))?;
            rows.push(parse(&path, index, line)?);
        }
        Ok(Rows { rows, warning, complete_bytes: complete as u64 })
    }

    /// Writes the sums of the raw files, in the format of `sha256sum -c`.
    pub fn write_sums(&self) -> Result<(), Failure> {
        let path = self.root.join("SHA256SUMS");
        let mut text = String::new();
        for name in RAW {
            text += &format!("{}  {name}\n", self.sum(name)?);
        }
        fs::write(&path, text).map_err(|error| Failure::file(&path, "write", error))
    }

    /// Which raw files are not those whose sums were written when the run ended. None were written: none.
    pub fn changed(&self) -> Result<Vec<&'static str>, Failure> {
        let Ok(sums) = fs::read_to_string(self.root.join("SHA256SUMS")) else { return Ok(Vec::new()) };
        let mut changed = Vec::new();
        for name in RAW {
            let expected = sums.lines().find_map(|line| line.strip_suffix(name)).map(str::trim);
            if expected != Some(&self.sum(name)?) {
                changed.push(name);
            }
        }
        Ok(changed)
    }

    fn sum(&self, name: &str) -> Result<String, Failure> {
        let path = self.root.join(name);
        let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
        Ok(checksum::of(&bytes))
    }

    /// Opens the rows for appending, after dropping a line that was cut off.
    pub fn appender(&self) -> Result<Appender, Failure> {
        let mut appender = Appender::open(self.root.join("samples.jsonl"))?;
        appender.remedy = ", and `perseq resume` takes the rest";
        let complete = self.rows()?.complete_bytes;
        let cut = appender.file.set_len(complete);
        cut.map_err(|error| Failure::file(&appender.path, "drop the cut-off line of", error))?;
        Ok(appender)
    }
}

/// Appends rows.
pub struct Appender {
    file: File,
    path: PathBuf,
    /// How to go on where a row could not be appended.
    remedy: &'static str,
}

impl Appender {
    /// Opens a file of rows, with rows in it or none.
    pub fn open(path: PathBuf) -> Result<Appender, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(|error| Failure::file(&path, "append", error)).map(|file| Appender { file, path, remedy: "" })
    }

    /// Appends one row and hands it to the disk.
    pub fn append(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(row).map_err(|error| Failure::file(&self.path, "write", error))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            let (path, remedy) = (self.path.display(), self.remedy);
            Failure::host(format!("{path}: cannot append: {error}; the rows before are kept{remedy}"))
        })
    }
}

fn parse<T: DeserializeOwned>(path: &Path, index: usize, line: &str) -> Result<T, Failure> {
    serde_json::from_str(line).map_err(|error| {
        Failure::usage(format!("{}: line {}: expected one JSON object: {error}", path.display(), index + 1))
    })
}

/// Refuses files of another major version.
fn check_schema(path: &Path, found: Option<&str>) -> Result<(), Failure> {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    match found {
        Some(found) if major(found) == major(SCHEMA) => Ok(()),
        Some(found) => Err(Failure::usage(format!("{}: schema {found}; this perseq reads {SCHEMA}", path.display()))),
        None => Err(Failure::usage(format!("{}: no `schema`; expected {SCHEMA}", path.display()))),
    }
}
