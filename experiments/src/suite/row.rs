//! One row of the suite's `samples.jsonl`, and the process behind it.

use super::arm::Arm;
use super::plan::Planned;
use super::worker::{Order, Report};
use crate::gate::{Disturbance, Watch};
use crate::sample::{Ended, SCHEMA, Status, observe};
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One attempt at one planned sample. Fields that [`crate::sample::Row`] has too mean the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Version of the row.
    pub schema: String,
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// 1, or 2 for the one repetition after a rejection.
    pub attempt: u32,
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
    pub report: Option<Report>,
}

/// What the report compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Wall time of the pattern.
    Time,
    /// Largest resident set from the start of the pattern.
    Memory,
}

impl Row {
    /// The value of a metric, if the sample counts.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let report = self.report.as_ref().filter(|_| self.status == Status::Ok)?;
        Some(match metric {
            Metric::Time => report.wall_ns as f64,
            Metric::Memory => report.rss_peak_bytes as f64,
        })
    }
}

/// Takes the sample in a fresh process. Never fails: whatever happens becomes a row.
pub fn take(planned: &Planned, arm: &Arm, attempt: u32) -> Row {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = planned.estimate() * 20 + Duration::from_secs(30);
    let watch = Watch::start();
    let outcome = start(planned, arm).and_then(|(command, order)| observe(command, &order, deadline));
    let mut row = Row {
        schema: SCHEMA.into(),
        planned: planned.clone(),
        attempt,
        started_ns: since.as_nanos() as u64,
        status: Status::Failed,
        reason: None,
        exit_code: None,
        signal: None,
        warnings: Vec::new(),
        disturbance: watch.stop(),
        report: None,
    };
    match outcome {
        Err(reason) => row.reason = Some(reason),
        Ok(Ended::TimedOut) => {
            row.status = Status::Timeout;
            row.reason = Some(format!("the worker did not end within {:.0} s and was killed", deadline.as_secs_f64()));
        }
        Ok(Ended::Exited { status, stdout, stderr }) => {
            (row.exit_code, row.signal) = (status.code(), status.signal());
            judge(&mut row, &stdout, stderr.lines().last().unwrap_or("no message"));
        }
    }
    row
}

fn start(planned: &Planned, arm: &Arm) -> Result<(Command, Vec<u8>), String> {
    let binary = std::env::current_exe().map_err(|error| format!("own binary: {error}"))?;
    let mut command = Command::new(binary);
    command.arg("suite-worker").env_clear().envs(arm.environment());
    command.env("HARNESS_PAD", "x".repeat(planned.env_pad as usize));
    let order = Order {
        pattern: planned.cell_id.clone(),
        threads: planned.threads,
        percent: planned.percent,
        seed: planned.invocation_seed,
        library: arm.library.clone(),
        mode: arm.mode.clone(),
    };
    serde_json::to_vec(&order).map(|order| (command, order)).map_err(|error| error.to_string())
}

fn judge(row: &mut Row, stdout: &str, message: &str) {
    if let Some(signal) = row.signal {
        row.reason = Some(format!("the worker died of signal {signal}: {message}"));
        return;
    }
    if row.exit_code != Some(0) {
        row.reason = Some(message.to_owned());
        return;
    }
    match serde_json::from_str::<Report>(stdout) {
        Err(error) => row.reason = Some(format!("the worker's report cannot be read: {error}")),
        Ok(report) => {
            if let Some(fault) = &report.fault {
                row.reason = Some(fault.clone());
            } else if let (Some(refusal), 1) = (row.disturbance.refusal(), row.attempt) {
                (row.status, row.reason) = (Status::Rejected, Some(refusal));
            } else {
                row.status = Status::Ok;
                row.warnings.extend(row.disturbance.refusal());
            }
            row.report = Some(report);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row that counts, with this time and this growth.
    pub fn row(planned: &Planned, wall_ns: u64, growth: u64) -> Row {
        let report = Report {
            fault: None,
            verified: true,
            checksum: 0,
            checksum_expected: 0,
            operations: 1,
            wall_ns,
            cpu_user_ns: 0,
            cpu_sys_ns: 0,
            minor_faults: 0,
            rss_before_bytes: 1 << 20,
            rss_peak_bytes: (1 << 20) + growth,
            mode_active: None,
        };
        Row {
            schema: SCHEMA.into(),
            planned: planned.clone(),
            attempt: 1,
            started_ns: 0,
            status: Status::Ok,
            reason: None,
            exit_code: Some(0),
            signal: None,
            warnings: Vec::new(),
            disturbance: Disturbance::default(),
            report: Some(report),
        }
    }

    #[test]
    fn a_sample_that_failed_has_no_value() {
        let patterns: Vec<_> = crate::pattern::PATTERNS.iter().collect();
        let amount = super::super::plan::Amount { blocks: 1, threads: 1, percent: 1, seed: 1 };
        let plan = super::super::plan::make(&patterns, &[Arm::bare("system")], "system", &amount);
        let mut row = row(&plan[0], 7, 4096);
        assert_eq!(
            (row.value(Metric::Time), row.value(Metric::Memory)),
            (Some(7.0), Some(f64::from((1 << 20) + 4096)))
        );
        row.status = Status::Rejected;
        assert_eq!(row.value(Metric::Time), None);
    }
}
