//! `manifest.json`: what a run is, on which host, made by which binary. Written before the first sample.
//!
//! A manifest names neither user nor host nor any path. It is sealed: its last line but one holds the SHA-256 of the
//! file with `null` in that place. The seal shows an edit; it proves nothing against someone who renews it.

use super::part::{Joined, Part, Shard};
use super::place::Planned;
use super::row::{self, SCHEMA};
use super::task::Task;
use crate::checksum;
use crate::failure::Failure;
use crate::host::Host;
use crate::known::Known;
use serde::{Deserialize, Serialize};

/// Link-time optimisation of the release profile, as the workspace's manifest has it.
const PROFILE_LTO: &str = match option_env!("BUILD_LTO") {
    Some(lto) => lto,
    None => "not known",
};

/// The manifest of a run; `about` is what its kind adds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest<A> {
    /// Version of this file and of the rows.
    pub schema: String,
    /// Kind of the run. Empty before schema 1.2.
    #[serde(default)]
    pub kind: String,
    /// Name of the run.
    pub run_id: String,
    /// Start.
    pub started_utc: String,
    /// End of the last sample. Null: interrupted, or still running.
    pub finished_utc: Option<String>,
    /// Seed of every random choice.
    pub seed: u64,
    /// The binary.
    pub tool: Tool,
    /// The host in one line.
    pub host_caption: String,
    /// The host as `perseq doctor --json` shows it.
    pub host: serde_json::Value,
    /// What of the caller's environment reaches a sample.
    pub environment: String,
    /// Which part of a plan this is. Null: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The parts that this run was joined from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Joined>,
    /// Whether rows that depend on the host are of several, because that was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub across_hosts: bool,
    /// What the kind of the run adds.
    #[serde(flatten)]
    pub about: A,
    /// The rows a finished run has.
    #[serde(default)]
    pub rows: Option<Rows>,
    /// The seal.
    #[serde(default)]
    pub seal: Option<String>,
}

/// The rows of a finished run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rows {
    /// How many there are.
    pub count: usize,
    /// SHA-256 of the last line.
    pub last: String,
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

impl<A> Manifest<A> {
    /// Whether the protocol that the run was made by tested all comparisons as one family: before schema 1.4.
    pub fn one_family(&self) -> bool {
        row::minor(&self.schema) < 4
    }

    /// Whether stacks and addresses were drawn for blocks and not for samples: since schema 1.7.
    pub fn dealt(&self) -> bool {
        row::minor(&self.schema) >= 7
    }

    /// Leaves the samples of a part in a plan, and says so. None: all of them.
    pub fn cut<T: Task>(&mut self, shard: Option<Shard>, plan: Vec<Planned<T>>) -> Result<Vec<Planned<T>>, Failure> {
        let Some(shard) = shard else { return Ok(plan) };
        let (samples, part) = (shard.samples(&plan)?, Part::of_plan(shard, &plan)?);
        self.run_id += &part.ending();
        self.part = Some(part);
        Ok(samples)
    }

    /// What is known of each host whose rows these are.
    pub fn hosts(&self) -> impl Iterator<Item = &serde_json::Value> {
        let others = self.parts.iter().filter_map(|part| part.host_facts.as_ref());
        std::iter::once(&self.host).chain(others)
    }
}

impl<A: Serialize> Manifest<A> {
    /// The manifest of a run that begins now.
    pub fn new(kind: &str, run_id: String, seed: u64, host: &Host, about: A) -> Result<Manifest<A>, Failure> {
        Ok(Manifest {
            schema: SCHEMA.into(),
            kind: kind.into(),
            run_id,
            started_utc: now(),
            finished_utc: None,
            seed,
            tool: Tool::this()?,
            host_caption: host.caption(),
            host: serde_json::to_value(host).map_err(|error| Failure::host(error.to_string()))?,
            environment: "nothing: a sample's environment holds its own variables and padding only".into(),
            part: None,
            parts: Vec::new(),
            across_hosts: false,
            about,
            rows: None,
            seal: None,
        })
    }

    /// The file, sealed.
    pub fn text(&mut self) -> Result<String, serde_json::Error> {
        self.seal = None;
        let open = serde_json::to_string_pretty(self)? + "\n";
        self.seal = Some(checksum::of(open.as_bytes()));
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Whether the text of a manifest is the one its seal was made of.
pub fn sealed(text: &str) -> bool {
    const BEFORE: &str = "\n  \"seal\": ";
    let Some((before, after)) = text.rsplit_once(BEFORE) else { return false };
    let Some((seal, after)) = after.strip_prefix('"').and_then(|after| after.split_once('"')) else { return false };
    seal == checksum::of(format!("{before}{BEFORE}null{after}").as_bytes())
}

/// Warns of a build whose times are worth nothing.
pub fn warn_of_debug_build(tool: &Tool) {
    if tool.debug_assertions {
        eprintln!("warning: a debug build; its times are worth nothing");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_breaks_with_any_edit() {
        let about = serde_json::json!({"profile": "quick", "share": 0.1});
        let mut manifest = Manifest::new("run", "name".into(), u64::MAX, &Host::read(), about).unwrap();
        let text = manifest.text().unwrap();
        assert!(sealed(&text));
        assert_eq!(manifest.text().unwrap(), text, "sealing twice is sealing once");
        for (old, new) in [("quick", "full"), ("\"run_id\": \"name", "\"run_id\": \"none"), ("0.1", "0.10")] {
            assert!(text.contains(old) && !sealed(&text.replacen(old, new, 1)), "{old}");
        }
        assert!(!sealed("{}"));
    }
}
