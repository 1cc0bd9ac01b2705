//! The directory of a run: `manifest.json`, `plan.jsonl`, `samples.jsonl`, their `SHA256SUMS`, and what is made of them.
//!
//! Plan and rows of a finished run may be compressed, as `samples.jsonl.gz` or `.zst`, or in parts, `samples-01.jsonl.gz`
//! and on: they are read as they were.
//!
//! Rows are only ever appended, each handed to the disk before the next sample starts, and each holds the sum of the
//! line before it. All other files are written whole or not at all. An existing run is never overwritten. Reading
//! checks everything; what does not fit is refused in one line.

use super::manifest::{self, Manifest, Rows};
use super::part;
use super::place::Planned;
use super::row::{Row, SCHEMA, minor};
use super::stored::Stored;
use super::study::Study;
use super::verify;
use crate::checksum;
use crate::failure::Failure;
use crate::written::{self, Origin};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.jsonl";
const SAMPLES: &str = "samples.jsonl";
const SUMS: &str = "SHA256SUMS";

/// How strictly a directory is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// What does not fit is refused. A run that was interrupted may end with half a line.
    Strict,
    /// Rows may be missing at the end, for those are taken again. All else is refused.
    ToResume,
    /// What does not fit is said, and marks what is made of it.
    Accepting,
}

impl Reading {
    /// What `--accept-changed` asks for.
    pub fn accepting(accept: bool) -> Reading {
        if accept { Reading::Accepting } else { Reading::Strict }
    }
}

/// A run on disk.
pub struct Archive {
    root: PathBuf,
}

/// A run as it was read.
pub struct Contents<S: Study> {
    /// What it is.
    pub manifest: Manifest<S::About>,
    /// What was to be taken.
    pub plan: Vec<Planned<S::Task>>,
    /// The complete rows.
    pub rows: Vec<Row<S::Task, S::Report>>,
    /// A warning about a line that was cut off.
    pub warning: Option<String>,
    /// What does not fit, if that was accepted.
    pub changed: Option<String>,
    complete_bytes: u64,
    last: String,
    /// What stands for all rows.
    root: String,
}

impl Archive {
    /// Creates the directory that was named, or `runs/NAME`. Refuses one that holds anything.
    pub fn create(named: Option<&Path>, name: &str) -> Result<Archive, Failure> {
        written::folder(named, "runs", name).map(|root| Archive { root })
    }

    /// Opens a run that exists.
    pub fn open(root: &Path) -> Result<Archive, Failure> {
        if !root.is_dir() {
            return Err(Failure::usage(format!("{}: no such directory; expected one of a run", root.display())));
        }
        Ok(Archive { root: root.to_owned() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its kind, which decides who reads it.
    pub fn kind(&self) -> Result<String, Failure> {
        let (_, json) = self.manifest_json()?;
        Ok(match json.get("kind").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            // Before schema 1.2 there were two kinds, told apart by what they hold.
            None if json.get("patterns").is_some() => "suite".into(),
            None => "run".into(),
        })
    }

    /// Writes the manifest.
    pub fn write_manifest<A: Serialize>(&self, manifest: &mut Manifest<A>) -> Result<(), Failure> {
        let path = self.root.join(MANIFEST);
        let text = manifest.text().map_err(|error| Failure::file(&path, "write", error))?;
        written::whole(&path, text.as_bytes())
    }

    /// Writes the plan.
    pub fn write_plan<T: Serialize>(&self, plan: &[Planned<T>]) -> Result<(), Failure> {
        let path = self.root.join(PLAN);
        let mut text = String::new();
        for planned in plan {
            text += &serde_json::to_string(planned).map_err(|error| Failure::file(&path, "write", error))?;
            text.push('\n');
        }
        written::whole(&path, text.as_bytes())
    }

    /// Writes a run that is over: `lines` are its rows, to be chained in this order.
    pub fn write_joined<A: Serialize, T: Serialize>(
        &self,
        manifest: &mut Manifest<A>,
        plan: &[Planned<T>],
        lines: &[&str],
    ) -> Result<(), Failure> {
        self.write_plan(plan)?;
        let (mut last, mut text) = (self.sum(PLAN)?, String::new());
        for line in lines {
            let chained = part::chained(line, &last);
            let line =
                chained.ok_or_else(|| Failure::usage(format!("expected a row that is chained; found `{line}`")))?;
            last = checksum::of(line.as_bytes());
            text += &(line + "\n");
        }
        written::whole(&self.root.join(SAMPLES), text.as_bytes())?;
        manifest.rows = Some(Rows { count: lines.len(), last });
        self.write_manifest(manifest)?;
        self.write_sums()
    }

    /// The rows as they are written.
    pub fn row_text(&self) -> Result<String, Failure> {
        let bytes = self.stored_rows().read()?;
        let path = self.root.join(SAMPLES);
        String::from_utf8(bytes).map_err(|error| Failure::file(&path, "read", error))
    }

    /// Writes the sums of the raw files, in the format of `sha256sum -c`.
    pub fn write_sums(&self) -> Result<(), Failure> {
        let mut text = String::new();
        let names = [vec![MANIFEST.to_owned()], self.stored_plan().files()?, self.stored_rows().files()?];
        for name in names.concat() {
            text += &format!("{}  {name}\n", self.sum(&name)?);
        }
        written::whole(&self.root.join(SUMS), text.as_bytes())
    }

    /// Reads and checks everything.
    pub fn read<S: Study>(&self, reading: Reading) -> Result<Contents<S>, Failure> {
        let (manifest, text) = self.manifest::<S>()?;
        let plan = self.plan::<S>(&manifest)?;
        let chained = minor(&manifest.schema) >= 2;
        let samples = match self.stored_rows().read() {
            // Interrupted before the first.
            Err(_) if reading == Reading::ToResume && manifest.rows.is_none() => Vec::new(),
            samples => samples?,
        };
        let complete = samples.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let path = self.root.join(SAMPLES);
        let lines = std::str::from_utf8(&samples[..complete])
            .map_err(|error| Failure::usage(format!("{}: expected text in UTF-8: {error}", path.display())))?;
        let cut = samples.len() - complete;
        let warning = (cut > 0).then(|| {
            let line = lines.lines().count() + 1;
            format!("{SAMPLES}: line {line} was cut off after {cut} bytes and is left out")
        });
        let mut rows: Vec<Row<S::Task, S::Report>> = Vec::new();
        for (index, line) in lines.lines().enumerate() {
            let json: Value = parse(&path, index, line)?;
            check_schema(&path, json.get("schema").and_then(Value::as_str))?;
            rows.push(parse(&path, index, line)?);
        }
        let mut faults = Vec::new();
        if chained && !manifest::sealed(&text) {
            faults.push(format!("{MANIFEST} was edited: it is not what its seal was made of"));
        }
        let names = part::names(&manifest.run_id, &manifest.parts, &plan);
        let stored_plan = if chained { self.stored_plan().read()? } else { Vec::new() };
        let first = if chained { checksum::of(&stored_plan) } else { String::new() };
        let run = verify::Run { plan: &plan, names: &names, schema: &manifest.schema, chained, first };
        let walked = run.walk::<S>(&rows, lines);
        faults.extend(walked.fault.clone());
        let missing = cut > 0 || walked.settled < plan.len();
        if !manifest.parts.is_empty() && faults.is_empty() && !missing {
            let stored_plan = String::from_utf8_lossy(&stored_plan);
            let plan: Vec<_> = names.iter().copied().zip(stored_plan.lines()).collect();
            let rows: Vec<_> = rows.iter().map(|row| row.run_id.as_str()).zip(lines.lines()).collect();
            faults.extend(part::fault(&manifest.parts, &plan, &rows));
        }
        let finished = manifest.finished_utc.is_some();
        if finished && !(missing && reading == Reading::ToResume) {
            faults.extend(end_fault(manifest.rows.as_ref(), &walked, rows.len(), plan.len(), warning.as_deref()));
        }
        faults.extend(self.sums_fault(finished && chained, missing, reading)?);
        let changed = (!faults.is_empty()).then(|| faults.join("; ") + ".");
        match (&changed, reading) {
            (Some(changed), Reading::Accepting) => eprintln!("warning: {}: {changed}", self.root.display()),
            (Some(_), Reading::ToResume) => {
                return Err(Failure::usage(format!("{}: {}", self.root.display(), faults[0])));
            }
            (Some(_), Reading::Strict) => {
                let line = format!("{}: {}", self.root.display(), faults[0]);
                return Err(Failure::usage(format!("{line}; --accept-changed reads it and marks what it writes")));
            }
            (None, _) => {}
        }
        let root = if chained { walked.last.clone() } else { checksum::of(&samples) };
        let complete_bytes = complete as u64;
        Ok(Contents { manifest, plan, rows, warning, changed, complete_bytes, last: walked.last, root })
    }

    fn manifest_json(&self) -> Result<(String, Value), Failure> {
        let path = self.root.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: expected JSON: {error}", path.display())))?;
        check_schema(&path, json.get("schema").and_then(Value::as_str))?;
        Ok((text, json))
    }

    fn manifest<S: Study>(&self) -> Result<(Manifest<S::About>, String), Failure> {
        let path = self.root.join(MANIFEST);
        let (text, json) = self.manifest_json()?;
        let kind = self.kind()?;
        if kind != S::KIND {
            let path = path.display();
            return Err(Failure::usage(format!("{path}: a run of kind `{kind}`; expected one of kind `{}`", S::KIND)));
        }
        let manifest = serde_json::from_value(json)
            .map_err(|error| Failure::usage(format!("{}: expected a manifest: {error}", path.display())))?;
        Ok((manifest, text))
    }

    fn plan<S: Study>(&self, manifest: &Manifest<S::About>) -> Result<Vec<Planned<S::Task>>, Failure> {
        let path = self.root.join(PLAN);
        let text = match self.stored_plan().read() {
            Ok(bytes) => String::from_utf8(bytes),
            Err(failure) => {
                let made = if minor(&manifest.schema) < 2 { S::plan_of(&manifest.about, manifest.seed) } else { None };
                return made.ok_or(failure);
            }
        };
        let text =
            text.map_err(|error| Failure::usage(format!("{}: expected text in UTF-8: {error}", path.display())))?;
        text.lines().enumerate().map(|(index, line)| parse(&path, index, line)).collect()
    }

    fn stored_plan(&self) -> Stored<'_> {
        Stored::new(&self.root, PLAN, "samples to take")
    }

    fn stored_rows(&self) -> Stored<'_> {
        Stored::new(&self.root, SAMPLES, "rows")
    }

    /// Whether all samples were taken and their sums written.
    pub fn finished(&self) -> bool {
        self.root.join(SUMS).exists()
    }

    /// Compresses plan and rows of a finished run, as long as they are those that it ended with.
    pub fn compress(&self) -> Result<(), Failure> {
        if !self.finished() {
            let line = format!("{}: not a finished run; `perseq resume` takes the rest", self.root.display());
            return Err(Failure::usage(line));
        }
        if let Some(fault) = self.sums_fault(true, false, Reading::Strict)? {
            return Err(Failure::usage(format!("{}: {fault}", self.root.display())));
        }
        self.stored_plan().pack()?;
        self.stored_rows().pack()?;
        self.write_sums()
    }

    /// Which raw file is not the one whose sum was written when the run ended.
    fn sums_fault(&self, expected: bool, missing: bool, reading: Reading) -> Result<Option<String>, Failure> {
        let Ok(sums) = fs::read_to_string(self.root.join(SUMS)) else {
            let fault = format!("{SUMS} is missing, and the run is finished");
            return Ok(Some(fault).filter(|_| expected && reading != Reading::ToResume));
        };
        let known = |name: &str| {
            let sum = sums.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix("  "));
            sum.map(str::to_owned)
        };
        let fault = |name: &str| Some(format!("{name} is not the file that this run ended with; see {SUMS}"));
        if known(MANIFEST) != Some(self.sum(MANIFEST)?) {
            return Ok(fault(MANIFEST));
        }
        for (name, stored) in [(PLAN, self.stored_plan()), (SAMPLES, self.stored_rows())] {
            let files = stored.files()?;
            let there = files.iter().all(|name| self.root.join(name).exists());
            let told = name == SAMPLES && missing && reading == Reading::ToResume;
            if there && !told && !stored.summed(&known)? {
                return Ok(fault(&files.join(", ")));
            }
        }
        Ok(None)
    }

    fn sum(&self, name: &str) -> Result<String, Failure> {
        let path = self.root.join(name);
        checksum::of_file(&path).map_err(|error| Failure::file(&path, "read", error))
    }

    /// Opens the rows for appending behind those that were read, after dropping a line that was cut off.
    pub fn appender<S: Study>(&self, read: &Contents<S>) -> Result<Appender, Failure> {
        // The sums are those of a finished run; it is not finished any more.
        drop(fs::remove_file(self.root.join(SUMS)));
        let stored = self.stored_rows();
        let path = stored.plain();
        if stored.files()?.iter().all(|name| self.root.join(name).exists()) {
            stored.unpack()?;
        }
        let fail = |error| Failure::file(&path, "append", error);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        file.set_len(read.complete_bytes).map_err(fail)?;
        Ok(Appender { file, path, length: read.complete_bytes, last: read.last.clone() })
    }
}

impl<S: Study> Contents<S> {
    /// A run that begins.
    pub fn new(
        archive: &Archive,
        mut manifest: Manifest<S::About>,
        plan: Vec<Planned<S::Task>>,
    ) -> Result<Self, Failure> {
        archive.write_plan(&plan)?;
        archive.write_manifest(&mut manifest)?;
        let last = archive.sum(PLAN)?;
        let root = last.clone();
        Ok(Contents { manifest, plan, rows: Vec::new(), warning: None, changed: None, complete_bytes: 0, last, root })
    }

    /// What names the rows in everything that is made of them.
    pub fn origin(&self) -> Origin {
        Origin {
            run_id: self.manifest.run_id.clone(),
            rows: self.rows.len(),
            root: self.root.clone(),
            chained: minor(&self.manifest.schema) >= 2,
            changed: self.changed.clone(),
        }
    }

    /// Says in the manifest which rows the run ended with.
    pub fn seal(&mut self, appender: &Appender) {
        self.root = appender.last.clone();
        self.manifest.rows = Some(Rows { count: self.rows.len(), last: appender.last.clone() });
    }

    /// What was read of an older schema, in words.
    pub fn older(&self) -> Option<String> {
        (minor(&self.manifest.schema) < 2).then(|| {
            format!(
                "The files are of schema {}, before rows were chained and manifests sealed. They were read as they are, \
                 and checked by their checksums, against the plan, and for rows that are missing, doubled or not verified.",
                self.manifest.schema
            )
        })
    }
}

/// What is wrong with the end of the rows of a finished run.
fn end_fault(
    known: Option<&Rows>,
    walked: &verify::Walked,
    rows: usize,
    planned: usize,
    cut: Option<&str>,
) -> Option<String> {
    if let Some(cut) = cut {
        return Some(format!("{cut}, and the run is finished; `perseq resume` takes it again"));
    }
    if walked.settled < planned {
        let missing = planned - walked.settled;
        return Some(format!("{SAMPLES}: {missing} of {planned} samples have no row, and the run is finished"));
    }
    let known = known.filter(|known| known.count != rows || known.last != walked.last)?;
    Some(format!("{SAMPLES}: {rows} rows are not the {} that the run ended with", known.count))
}

/// Appends rows.
pub struct Appender {
    file: File,
    path: PathBuf,
    length: u64,
    last: String,
}

impl Appender {
    /// Appends rows, each chained to the one before, and hands them to the disk. If they do not all fit there, nothing is
    /// left of them: samples of a block that belong together stay or go together.
    pub fn append<T: Serialize, R: Serialize>(&mut self, rows: &mut [Row<T, R>]) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for row in rows {
            row.previous = Some(self.last.clone());
            let line = serde_json::to_vec(row).map_err(|error| Failure::file(&self.path, "write", error))?;
            self.last = checksum::of(&line);
            lines.extend([&line[..], b"\n"].concat());
        }
        if let Err(error) = self.file.write_all(&lines).and_then(|()| self.file.sync_data()) {
            drop(self.file.set_len(self.length));
            let path = self.path.display();
            let rest = "the rows before are kept, and `perseq resume` takes the rest";
            return Err(Failure::host(format!("{path}: cannot append: {error}; {rest}")));
        }
        self.length += lines.len() as u64;
        Ok(())
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
