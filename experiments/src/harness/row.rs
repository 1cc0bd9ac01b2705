//! One row of `samples.jsonl`: one attempt at one planned sample.

use super::place::Planned;
use super::task::{Pass, Task};
use crate::gate::Disturbance;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of rows and manifests. A reader refuses another major version. From 1.2 on rows are chained and manifests
/// sealed, rows of every kind name their run, and every kind of run keeps its plan. From 1.3 on rows of experiments name
/// the copy of the measured loop, and what is planted. From 1.4 on the comparisons of a question are a family of their own.
/// From 1.5 on a run may be a part of a plan, or joined from such parts, whose names its rows then bear.
/// From 1.6 on rows of simulations tell the tiers of the allocator's metadata apart.
/// From 1.7 on rows of experiments say in how many turns they worked, and what was drawn for the addresses of their block.
/// From 1.8 on rows of simulations may say what was found of objects as they were handed out.
pub const SCHEMA: &str = "1.8.0";

/// The minor version of a schema whose major version is ours.
pub fn minor(schema: &str) -> u32 {
    schema.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// How a sample ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It counts.
    Ok,
    /// The worker failed, died, or did not prove its mode.
    Failed,
    /// It was not taken.
    Skipped,
    /// A gate fired; it was taken once more.
    Rejected,
    /// The worker did not end in time.
    Timeout,
}

impl Status {
    /// The word in files and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
            Status::Rejected => "rejected",
            Status::Timeout => "timeout",
        }
    }
}

/// One attempt at one planned sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row<T, R> {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run it belongs to. Empty in rows of the suite before schema 1.2.
    #[serde(default)]
    pub run_id: String,
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned<T>,
    /// 1, or 2 for the one repetition after a rejection.
    pub attempt: u32,
    /// Its pass, where the run has several.
    #[serde(flatten)]
    pub pass: Option<Pass>,
    /// Start, nanoseconds since 1970.
    pub started_ns: u64,
    /// How it ended.
    pub status: Status,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    /// Exit code of the worker.
    pub exit_code: Option<i32>,
    /// Signal that ended the worker.
    pub signal: Option<i32>,
    /// What a reader should know although the sample counts.
    pub warnings: Vec<String>,
    /// What went on beside it.
    #[serde(flatten)]
    pub disturbance: Disturbance,
    /// What the worker reported.
    #[serde(flatten)]
    pub report: Option<R>,
    /// SHA-256 of the line before this one; of the first: of `plan.jsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl<T: Task, R> Row<T, R> {
    /// A row of a sample that is not taken yet, or not going to be.
    pub fn new(run_id: &str, planned: &Planned<T>, attempt: u32) -> Row<T, R> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Row {
            schema: SCHEMA.into(),
            run_id: run_id.into(),
            planned: planned.clone(),
            attempt,
            pass: planned.task.pass(),
            started_ns: since.as_nanos() as u64,
            status: Status::Skipped,
            reason: planned.skip.clone(),
            exit_code: None,
            signal: None,
            warnings: Vec::new(),
            disturbance: Disturbance::default(),
            report: None,
            previous: None,
        }
    }

    /// Whether the sample needs no further attempt.
    pub fn settled(&self) -> bool {
        self.status != Status::Rejected
    }

    /// The report, if the sample counts.
    pub fn counts(&self) -> Option<&R> {
        self.report.as_ref().filter(|_| self.status == Status::Ok)
    }
}

/// How many rows ended like this.
pub fn count<T, R>(rows: &[Row<T, R>], status: Status) -> usize {
    rows.iter().filter(|row| row.status == status).count()
}

#[cfg(test)]
mod tests {
    /// As the run had them: a report made of the rows is then the one that was made at the end of the run.
    #[test]
    fn numbers_are_read_to_the_last_digit() {
        for number in [0.025523361650485438, 0.013383709016393443, 0.1 + 0.2, f64::MIN_POSITIVE, 123456789.12345679] {
            let text = serde_json::to_string(&number).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), number.to_bits(), "{text}");
        }
    }
}
