//! `manifest.json`: what a run is, on which host, made by which binary. Written before the first sample.

use crate::checksum;
use crate::counters;
use crate::definition::Definition;
use crate::failure::Failure;
use crate::host::Host;
use crate::known::Known;
use crate::sample::SCHEMA;
use crate::subject::Subject;
use crate::validity::{Outcome, Validity};
use serde::{Deserialize, Serialize};

/// Link-time optimisation of the release profile, as the workspace's manifest has it.
const PROFILE_LTO: &str = match option_env!("BUILD_LTO") {
    Some(lto) => lto,
    None => "not known",
};

/// The manifest. It names neither user nor host nor any path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file and of the rows.
    pub schema: String,
    /// Name of the run.
    pub run_id: String,
    /// Start.
    pub started_utc: String,
    /// End of the last sample. Null: interrupted, or still running.
    pub finished_utc: Option<String>,
    /// Profile.
    pub profile: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// What the checks before the first sample found: E00. Empty: they were not made.
    #[serde(default)]
    pub validity: Vec<Validity>,
    /// What the command line changed.
    pub options: Options,
    /// The binary.
    pub tool: Tool,
    /// The host in one line.
    pub host_caption: String,
    /// CPUs allowed: L.
    pub cpus: u64,
    /// Whether the processor's counters work here.
    pub hardware_counters: bool,
    /// Every event that this processor's table knows.
    #[serde(default)]
    pub counter_catalogue: Vec<counters::Listed>,
    /// The host as `perseq doctor --json` shows it.
    pub host: serde_json::Value,
    /// Name of the host, only if it was asked for.
    #[serde(default)]
    pub host_name: Option<String>,
    /// What of the caller's environment reaches a sample.
    pub environment: String,
    /// How many of the caller's variables no sample got to see. Their names are not recorded.
    #[serde(default)]
    pub excluded_variables: usize,
    /// The definitions as they were when the run began.
    pub definitions: Vec<Definition>,
}

/// What the command line changed in the profile.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Only cells that match.
    pub filter: Option<String>,
    /// Other subjects.
    pub modes: Option<Vec<Subject>>,
    /// Another number of blocks.
    pub blocks: Option<u64>,
    /// Another measured time.
    pub measure_ms: Option<u64>,
    /// Fewer threads.
    pub max_threads: Option<u64>,
    /// Fewer mebibytes.
    pub max_mem_mib: Option<u64>,
}

/// The binary that made the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// Version of perseq.
    pub version: String,
    /// Commit it was built from.
    pub git_commit: Known<String>,
    /// Whether files differed from that commit.
    pub dirty: Known<bool>,
    /// Compiler.
    pub rustc: Known<String>,
    /// Target.
    pub target: Known<String>,
    /// Optimisation level.
    pub opt_level: Known<String>,
    /// Instructions the compiler was allowed to use beyond the target's.
    #[serde(default)]
    pub target_features: Vec<String>,
    /// Link-time optimisation of the profile.
    #[serde(default)]
    pub lto: String,
    /// What a panic does.
    #[serde(default)]
    pub panic: String,
    /// Whether debug assertions are compiled in. Their times are worth nothing.
    pub debug_assertions: bool,
    /// The binary itself.
    pub binary_sha256: String,
}

impl Tool {
    /// This binary.
    pub fn this() -> Result<Tool, Failure> {
        let built = |value: Option<&str>, what: &str| match value {
            Some(value) => Known::is(value.to_owned()),
            None => Known::missing(format!("{what} was not known when perseq was built")),
        };
        let binary = std::fs::read("/proc/self/exe");
        let binary = binary.map_err(|error| Failure::host(format!("cannot read the own binary: {error}")))?;
        Ok(Tool {
            version: env!("CARGO_PKG_VERSION").into(),
            git_commit: built(option_env!("BUILD_COMMIT"), "the commit"),
            dirty: built(option_env!("BUILD_DIRTY"), "the state of the files").map(|dirty| dirty == "true"),
            rustc: built(option_env!("BUILD_RUSTC"), "the compiler"),
            target: built(option_env!("BUILD_TARGET"), "the target"),
            opt_level: built(option_env!("BUILD_OPT_LEVEL"), "the optimisation level"),
            target_features: match option_env!("BUILD_TARGET_FEATURES") {
                Some(features) => features.split(',').map(str::to_owned).collect(),
                None => Vec::new(),
            },
            lto: if cfg!(debug_assertions) { "off" } else { PROFILE_LTO }.into(),
            panic: if cfg!(panic = "abort") { "abort" } else { "unwind" }.into(),
            debug_assertions: cfg!(debug_assertions),
            binary_sha256: checksum::of(&binary),
        })
    }
}

impl Manifest {
    /// The manifest of a run that begins now.
    pub fn new(
        run_id: String,
        profile: String,
        seed: u64,
        options: Options,
        definitions: Vec<Definition>,
    ) -> Result<Manifest, Failure> {
        let host = Host::read();
        Ok(Manifest {
            schema: SCHEMA.into(),
            run_id,
            started_utc: now(),
            finished_utc: None,
            profile,
            seed,
            validity: Vec::new(),
            options,
            tool: Tool::this()?,
            host_caption: host.caption(),
            cpus: host.limits.cpus,
            hardware_counters: host.pmu.hardware(),
            counter_catalogue: counters::catalogue(),
            host: serde_json::to_value(&host).map_err(|error| Failure::host(error.to_string()))?,
            host_name: None,
            excluded_variables: std::env::vars_os().count(),
            environment: "nothing: a sample's environment holds its mode, its capacity and padding only".into(),
            definitions,
        })
    }
}

impl Manifest {
    /// Whether no check of E00 failed.
    pub fn valid(&self) -> bool {
        self.validity.iter().all(|validity| validity.status != Outcome::Failed)
    }
}

/// The time in UTC, to the second.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time as part of a directory's name.
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}
