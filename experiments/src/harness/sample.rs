//! One attempt at one sample: a fresh process, watched by the gates, and the verdict on how it ended.

use super::place::Planned;
use super::process::{Ended, observe};
use super::row::{Row, Status};
use super::study::{Refusal, Study};
use crate::gate::Watch;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Takes the sample. Never fails: whatever happens becomes a row.
pub fn take<S: Study>(study: &S, run_id: &str, planned: &Planned<S::Task>, attempt: u32) -> Row<S::Task, S::Report> {
    let mut row = Row::new(run_id, planned, attempt);
    if planned.skip.is_some() {
        return row;
    }
    let watch = Watch::start();
    let job = study.job(planned);
    let deadline = job.as_ref().map_or(Duration::ZERO, |job| job.deadline());
    let outcome = job.and_then(|job| observe(&job));
    row.disturbance = watch.stop();
    settle(study, &mut row, outcome, deadline);
    row
}

/// Puts the end of a process into its row.
fn settle<S: Study>(study: &S, row: &mut Row<S::Task, S::Report>, outcome: Result<Ended, String>, deadline: Duration) {
    row.status = Status::Failed;
    let ended = match outcome {
        Err(reason) => return row.reason = Some(reason),
        Ok(Ended::TimedOut) => {
            row.status = Status::Timeout;
            let seconds = deadline.as_secs_f64();
            return row.reason = Some(format!("{} did not end within {seconds:.1} s and was killed", S::PROCESS));
        }
        Ok(Ended::Exited(ended)) => ended,
    };
    (row.exit_code, row.signal) = (ended.status.code(), ended.status.signal());
    if let Some(signal) = row.signal {
        return row.reason = Some(format!("{} died of signal {signal}: {}", S::PROCESS, ended.last_line()));
    }
    let report = match study.read(&row.planned, &ended) {
        Ok(report) => report,
        Err(Refusal::Failed(reason)) => return row.reason = Some(reason),
        Err(Refusal::Missing(reason)) => {
            return (row.status, row.reason) = (Status::Skipped, Some(reason));
        }
    };
    if let Some(fault) = S::fault(&row.planned.task, &report) {
        row.reason = Some(fault);
    } else if let (Some(refusal), 1, true) = (row.disturbance.refusal(), row.attempt, S::GATED) {
        (row.status, row.reason) = (Status::Rejected, Some(refusal));
    } else {
        row.status = Status::Ok;
        row.warnings.extend(row.disturbance.refusal().filter(|_| S::GATED));
    }
    row.warnings.extend(S::remarks(&report));
    row.report = Some(report);
}
