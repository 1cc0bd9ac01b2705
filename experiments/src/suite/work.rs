//! What a sample of the suite is told.

use crate::harness::task::Task;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a sample is told. Its cell is the pattern; its seed is the same for all samples of a block, so that all do the
/// same work.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Name of the allocator.
    pub allocator: String,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// How many of them share a CPU. Each does so much less.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub per_cpu: u64,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
}

fn one() -> u64 {
    1
}

fn is_one(value: &u64) -> bool {
    *value == 1
}

impl Task for Work {
    fn subject(&self) -> &str {
        &self.allocator
    }

    fn estimate(&self) -> Duration {
        Duration::from_millis(50 + 7 * self.percent)
    }
}
