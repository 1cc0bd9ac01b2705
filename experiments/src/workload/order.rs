//! What a worker process is told.

use crate::definition::Parameters;
use crate::subject::Subject;
use serde::{Deserialize, Serialize};

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
    /// Group of counters to read. None: a timing sample, all counters closed.
    #[serde(default)]
    pub counters: Option<String>,
    /// The trace to replay, for the workload that does.
    #[serde(default)]
    pub trace_file: Option<std::path::PathBuf>,
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

    /// The measured time asked for.
    pub fn measure(&self) -> Result<std::time::Duration, String> {
        self.get("measure_ms").map(std::time::Duration::from_millis)
    }
}
