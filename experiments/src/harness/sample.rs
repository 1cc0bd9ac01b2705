//! One attempt at one sample: a fresh process, watched by the gates, and the verdict on how it ended.

use super::place::Planned;
use super::process::Ended;
use super::row::{Row, Status};
use super::study::{Refusal, Study};
use super::task::Task;
use super::turns;
use crate::gate::Watch;
use std::os::unix::process::ExitStatusExt;

/// The row of a sample that was taken.
pub type Taken<S> = Row<<S as Study>::Task, <S as Study>::Report>;

/// Takes a sample, or those of a block that work in turns. Never fails: whatever happens becomes a row.
pub fn take<S: Study>(study: &S, run_id: &str, samples: &[&Planned<S::Task>], attempt: u32) -> Vec<Taken<S>> {
    let mut rows: Vec<_> = samples.iter().map(|planned| Row::new(run_id, planned, attempt)).collect();
    let wanted: Vec<_> = rows.iter_mut().filter(|row| row.planned.skip.is_none()).collect();
    let Some(first) = wanted.first() else { return rows };
    let (turns, seed, count) = (first.planned.task.turns(), first.planned.invocation_seed, wanted.len());
    let watch = Watch::start();
    let job = |row: &&mut Taken<S>| study.job(&row.planned).map(|job| job.alongside(count));
    let jobs: Vec<_> = wanted.iter().map(job).collect();
    let outcomes = turns::observe_all(&jobs, turns, seed);
    let disturbance = watch.stop();
    for (row, outcome) in wanted.into_iter().zip(outcomes) {
        row.disturbance = disturbance;
        settle(study, row, outcome);
    }
    rows
}

/// Puts the end of a process into its row.
fn settle<S: Study>(study: &S, row: &mut Row<S::Task, S::Report>, outcome: Result<Ended, String>) {
    row.status = Status::Failed;
    let ended = match outcome {
        Err(reason) => return row.reason = Some(reason),
        Ok(Ended::TimedOut(had)) => {
            row.status = Status::Timeout;
            let seconds = had.as_secs_f64();
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
