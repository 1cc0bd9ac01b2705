//! A planned sample and its place in the run.
//!
//! A block is one shuffled pass over the subjects of one cell. The blocks of all cells are shuffled among each other, so
//! that no subject owns a part of the day. The same seed gives the same plan.

use super::task::Task;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One sample to take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Planned<T> {
    /// Unique in its run.
    pub sample_id: String,
    /// What is compared within a block: an experiment with its parameters, a pattern, a program.
    pub cell_id: String,
    /// Whether this is the second of the two equal subjects of a block.
    pub twin: bool,
    /// Number of the block within its cell.
    pub block: u64,
    /// Place in the run.
    pub order_index: u64,
    /// Seed of what the sample draws.
    pub invocation_seed: u64,
    /// Bytes of padding in the environment, so that the stack starts elsewhere.
    pub env_pad: u64,
    /// Why this sample is not going to be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
    /// What the sample is told.
    #[serde(flatten)]
    pub task: T,
}

impl<T: Task> Planned<T> {
    /// Expected time of the whole sample.
    pub fn estimate(&self) -> Duration {
        if self.skip.is_some() { Duration::ZERO } else { self.task.estimate() }
    }

    /// The variable that pads the environment.
    pub fn padding(&self) -> (String, String) {
        padding(self.env_pad)
    }
}

/// A variable that pads the environment by so many bytes.
pub fn padding(bytes: u64) -> (String, String) {
    ("ENVIRONMENT_PAD".into(), "x".repeat(bytes as usize))
}

/// The name of a sample.
pub fn name(cell: &str, block: u64, subject: &str, twin: bool) -> String {
    format!("{cell}/block={block}/{subject}{}", if twin { "-twin" } else { "" })
}

/// The blocks in shuffled order.
pub fn shuffled<T>(mut blocks: Vec<Vec<Planned<T>>>, random: &mut ChaCha8Rng) -> Vec<Planned<T>> {
    blocks.shuffle(random);
    blocks.into_iter().flatten().collect()
}

/// The plan with each sample's place written down.
pub fn numbered<T>(mut plan: Vec<Planned<T>>) -> Vec<Planned<T>> {
    plan.iter_mut().enumerate().for_each(|(index, planned)| planned.order_index = index as u64);
    plan
}

/// Expected time of all samples.
pub fn estimate<T: Task>(plan: &[Planned<T>]) -> Duration {
    plan.iter().map(Planned::estimate).sum()
}
