//! What a kind of run brings along.

use super::place::Planned;
use super::process::{Exited, Job};
use super::task::Task;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Why an ended process has no report.
#[derive(Debug)]
pub enum Refusal {
    /// The process failed.
    Failed(String),
    /// The process found that this host lacks something: the sample is skipped.
    Missing(String),
}

/// A kind of run.
pub trait Study {
    /// The name in manifests.
    const KIND: &'static str;
    /// What a sample's process is called in a reason.
    const PROCESS: &'static str = "the worker";
    /// Whether the gates reject a sample. They do not where a program leaves work to processes that nobody waits for.
    const GATED: bool = true;
    /// Fields of [`Self::About`] that each part of a plan finds out for itself. In all others the parts are alike.
    const FOUND: &'static [&'static str] = &[];
    /// What a sample is told.
    type Task: Task;
    /// What a sample's process reports.
    type Report: Clone + Debug + Serialize + DeserializeOwned;
    /// What the manifest says beyond host, binary and seed.
    type About: Clone + Debug + Serialize + DeserializeOwned;

    /// The process of a sample.
    fn job(&self, planned: &Planned<Self::Task>) -> Result<Job, String>;

    /// The report of a process that ended by itself.
    fn read(&self, planned: &Planned<Self::Task>, ended: &Exited) -> Result<Self::Report, Refusal>;

    /// What contradicts the claim that the sample measured what it was told to, and that its work was right.
    fn fault(task: &Self::Task, report: &Self::Report) -> Option<String>;

    /// What a reader should know although the sample counts.
    fn remarks(_: &Self::Report) -> Vec<String> {
        Vec::new()
    }

    /// The subject every ratio is taken to.
    fn baseline(about: &Self::About) -> &str;

    /// The subject that runs twice in each block, where one does.
    fn twinned(about: &Self::About) -> &str {
        Self::baseline(about)
    }

    /// Whether a sample gives the same row on any host, so that it does not matter which one took it.
    fn same_anywhere(_: &Self::About) -> bool {
        false
    }

    /// Adds what another part of the plan found to what is said of the whole.
    fn join(_: &mut Self::About, _: &Self::About) {}

    /// The plan of a run of schema 1.1 that has no file of it.
    fn plan_of(_: &Self::About, _seed: u64) -> Option<Vec<Planned<Self::Task>>> {
        None
    }
}

/// The report that a worker of this binary printed as one line of JSON.
pub fn json<R: DeserializeOwned>(ended: &Exited) -> Result<R, Refusal> {
    if !ended.status.success() {
        return Err(Refusal::Failed(ended.last_line()));
    }
    serde_json::from_slice(&ended.stdout)
        .map_err(|error| Refusal::Failed(format!("the worker's report cannot be read: {error}")))
}
