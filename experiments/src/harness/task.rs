//! What a sample is told, as far as the harness asks.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::time::Duration;

/// What a sample is told beyond its place in the plan.
pub trait Task: Clone + PartialEq + Debug + Serialize + DeserializeOwned {
    /// The name of what is measured: a mode, or an allocator.
    fn subject(&self) -> &str;

    /// The name of what runs in a block: the subject, or the subject with something planted in it.
    fn arm(&self) -> String {
        self.subject().to_owned()
    }

    /// The copy of the measured code that runs, where there are several.
    fn layout(&self) -> u64 {
        0
    }

    /// Turns that it works in while the others of its block wait. None: it is alone.
    fn turns(&self) -> Option<u64> {
        None
    }

    /// Expected time of a sample on a quiet host.
    fn estimate(&self) -> Duration;

    /// The same without what the host was found to be: what is told wherever the plan is made.
    fn portable(&self) -> Self {
        self.clone()
    }

    /// The pass a sample belongs to, where there is more than one.
    fn pass(&self) -> Option<Pass> {
        None
    }
}

/// The pass a sample belongs to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// `time`: counters were closed. `counter`: one group was read.
    pub pass: String,
    /// What was counted, or why nothing was.
    pub counters_status: String,
}
