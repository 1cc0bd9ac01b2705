//! What the process of a storm is asked, and what it answers.

use super::heap::{Door, Plant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A storm over a heap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Name of the storm.
    pub storm: String,
    /// The way to the heap.
    pub door: Door,
    /// The mode that must be active. None: the heap is another's.
    pub mode: Option<String>,
    /// The library that must stand behind `malloc`, if one is preloaded.
    pub preloaded: Option<PathBuf>,
    /// How long the storm lasts.
    pub seconds: f64,
    /// Threads of the team.
    pub threads: usize,
    /// Seed of every choice.
    pub seed: u64,
    /// What is wrong with the heap, for tests.
    pub plant: Option<Plant>,
    /// A plugin on perseq, if there is one.
    pub plugin: Option<PathBuf>,
    /// libperseq.so, if there is one.
    pub libperseq: Option<PathBuf>,
    /// A folder for files of this storm.
    pub scratch: PathBuf,
}

/// What became of it, if nothing was lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// The storm is over and nothing was lost.
    Over {
        /// Operations of the team.
        operations: u64,
        /// How often each force happened.
        happened: BTreeMap<String, u64>,
    },
    /// The storm cannot be had in this process.
    Absent(String),
}
