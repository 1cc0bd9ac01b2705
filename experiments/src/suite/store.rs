//! The directory of a run of the suite: `manifest.json`, `samples.jsonl`, `report/`.

use super::arm::Arm;
use super::plan::Amount;
use super::row::Row;
use crate::archive::Appender;
use crate::failure::Failure;
use crate::host::Host;
use crate::manifest::{self, Tool};
use crate::pattern::Pattern;
use crate::sample::SCHEMA;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What the run is. It names neither user nor host nor any path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file and of the rows.
    pub schema: String,
    /// Name of the run.
    pub run_id: String,
    /// Start.
    pub started_utc: String,
    /// End of the last sample. Null: interrupted.
    pub finished_utc: Option<String>,
    /// Profile.
    pub profile: String,
    /// Blocks to a pattern.
    pub blocks: u64,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of every random choice.
    pub seed: u64,
    /// The allocator every ratio is taken to.
    pub baseline: String,
    /// Patterns, in the order of the report.
    pub patterns: Vec<String>,
    /// Allocators, in the order of the report.
    pub allocators: Vec<Arm>,
    /// Samples planned.
    pub planned: usize,
    /// The binary.
    pub tool: Tool,
    /// The host in one line.
    pub host_caption: String,
    /// The host as `perseq doctor --json` shows it.
    pub host: serde_json::Value,
    /// What of the caller's environment reaches a sample.
    pub environment: String,
}

impl Manifest {
    /// The manifest of a run that begins now.
    pub fn new(
        run_id: String,
        profile: &str,
        amount: &Amount,
        allocators: Vec<Arm>,
        baseline: &str,
        patterns: &[&Pattern],
        planned: usize,
    ) -> Result<Manifest, Failure> {
        let host = Host::read();
        Ok(Manifest {
            schema: SCHEMA.into(),
            run_id,
            started_utc: manifest::now(),
            finished_utc: None,
            profile: profile.into(),
            blocks: amount.blocks,
            threads: amount.threads,
            percent: amount.percent,
            seed: amount.seed,
            baseline: baseline.into(),
            patterns: patterns.iter().map(|pattern| pattern.name.to_owned()).collect(),
            allocators,
            planned,
            tool: Tool::this()?,
            host_caption: host.caption(),
            host: serde_json::to_value(&host).map_err(|error| Failure::host(error.to_string()))?,
            environment: "nothing: a sample's environment holds its allocator's variables and padding only".into(),
        })
    }

    /// The command that takes the same samples in the same order.
    pub fn command(&self) -> String {
        let patterns = self.patterns.join("|");
        let names: Vec<_> = self.allocators.iter().map(|arm| arm.name.as_str()).collect();
        format!(
            "perseq suite --profile {} --blocks {} --percent {} --threads {} --seed {} --baseline {} --only {} --filter '^({patterns})$'",
            self.profile,
            self.blocks,
            self.percent,
            self.threads,
            self.seed,
            self.baseline,
            names.join(",")
        )
    }
}

/// A run on disk.
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Creates the directory. Refuses one that holds anything.
    pub fn create(root: &Path) -> Result<Store, Failure> {
        crate::archive::Archive::create(root).map(|archive| Store { root: archive.root().to_owned() })
    }

    /// Opens a run that exists.
    pub fn open(root: &Path) -> Result<Store, Failure> {
        crate::archive::Archive::open(root).map(|archive| Store { root: archive.root().to_owned() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the file of rows.
    pub fn appender(&self) -> Result<Appender, Failure> {
        Appender::open(self.root.join("samples.jsonl"))
    }

    /// Writes the manifest.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Failure> {
        let path = self.root.join("manifest.json");
        let json = serde_json::to_string_pretty(manifest).map_err(|error| Failure::file(&path, "write", error))?;
        fs::write(&path, json + "\n").map_err(|error| Failure::file(&path, "write", error))
    }

    /// Reads the manifest.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        let path = self.root.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: expected the manifest of a suite: {error}", path.display())))
    }

    /// Reads every row.
    pub fn rows(&self) -> Result<Vec<Row>, Failure> {
        let path = self.root.join("samples.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| {
                Failure::usage(format!("{}: line {}: expected a row: {error}", path.display(), index + 1))
            })
        };
        text.lines().enumerate().map(parse).collect()
    }
}
