//! What a worker process is told.

use crate::definition::Parameters;
use crate::harness::turns::Turns;
use crate::subject::Subject;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// What one worker process is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Which workload.
    pub workload: String,
    /// What it is told.
    pub parameters: Parameters,
    /// On which allocator.
    pub subject: Subject,
    /// Seed of the values written into objects.
    pub seed: u64,
    /// Which copy of the measured loop.
    #[serde(default)]
    pub layout: u64,
    /// Percent by which known work slows it down. None: not at all.
    #[serde(default)]
    pub planted_percent: Option<u64>,
    /// Turns to work in, beside the others of its block. None: without a pause.
    #[serde(default)]
    pub turns: Option<u64>,
    /// What was drawn for the addresses of its block. None: the kernel drew them.
    #[serde(default)]
    pub addresses: Option<u64>,
    /// Links of the think loop in a millisecond, as found when the run began. None: the worker finds out.
    #[serde(default)]
    pub links_per_ms: Option<u64>,
    /// Whether times are measured. Not in an emulated machine: its clock counts instructions.
    #[serde(default = "yes")]
    pub timed: bool,
    /// Group of counters to read. None: a timing sample, all counters closed.
    #[serde(default)]
    pub counters: Option<String>,
    /// The trace to replay, for the workload that does.
    #[serde(default)]
    pub trace_file: Option<std::path::PathBuf>,
}

fn yes() -> bool {
    true
}

impl Order {
    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Result<u64, String> {
        let missing = || format!("workload `{}` needs the parameter `{name}`", self.workload);
        self.parameters.get(name).copied().ok_or_else(missing)
    }

    /// Threads: `threads`, or `threads_per_cpu` for each of `cpus`.
    pub fn threads(&self, cpus: usize) -> Result<usize, String> {
        match self.parameters.get("threads") {
            Some(threads) => Ok((*threads).max(1) as usize),
            None => Ok(cpus * self.get("threads_per_cpu")?.max(1) as usize),
        }
    }

    /// Links of the think loop in a millisecond.
    pub fn links_per_ms(&self) -> u64 {
        static FOUND: OnceLock<u64> = OnceLock::new();
        self.links_per_ms.unwrap_or_else(|| *FOUND.get_or_init(super::think::calibrate))
    }

    /// When to work, and when to wait for others.
    pub fn turns(&self) -> Turns {
        Turns::new(self.turns, super::windows::COUNT)
    }

    /// The measured time asked for.
    pub fn measure(&self) -> Result<std::time::Duration, String> {
        self.get("measure_ms").map(std::time::Duration::from_millis)
    }

    /// The time to warm up before: 15 % of that. In an emulated machine, where every thread has a few turns only, half of it.
    pub fn warmup(&self) -> Result<std::time::Duration, String> {
        Ok(self.measure()? * if self.timed { 15 } else { 50 } / 100)
    }
}
