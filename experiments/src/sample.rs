//! One row of `samples.jsonl`, and the process behind it.

use crate::gate::{Disturbance, Watch};
use crate::plan::Planned;
use crate::worker::Report;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wait_timeout::ChildExt;

/// Version of the rows and of the manifest. A reader refuses another major version.
pub const SCHEMA: &str = "1.1.0";

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

/// One attempt at one planned sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run it belongs to.
    pub run_id: String,
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// 1, or 2 for the one repetition after a rejection.
    pub attempt: u32,
    /// `time`: counters were closed. `counter`: one group was read.
    pub pass: String,
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
    /// What was counted, or why nothing was.
    pub counters_status: String,
    /// What went on beside it.
    #[serde(flatten)]
    pub disturbance: Disturbance,
    /// What the worker reported.
    #[serde(flatten)]
    pub report: Option<Report>,
}

impl Row {
    /// The value of a metric, if the sample counts and has it.
    pub fn value(&self, metric: &str) -> Option<f64> {
        if self.planned.counter_group.is_some() {
            return None;
        }
        let report = self.report.as_ref().filter(|_| self.status == Status::Ok)?;
        report.measurement.metrics.get(metric).copied()
    }

    /// Whether the sample needs no further attempt.
    pub fn settled(&self) -> bool {
        self.status != Status::Rejected
    }

    fn new(run_id: &str, planned: &Planned, attempt: u32) -> Row {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Row {
            schema: SCHEMA.into(),
            run_id: run_id.into(),
            planned: planned.clone(),
            attempt,
            pass: if planned.counter_group.is_some() { "counter" } else { "time" }.into(),
            started_ns: since.as_nanos() as u64,
            status: Status::Skipped,
            reason: planned.skip.clone(),
            exit_code: None,
            signal: None,
            warnings: Vec::new(),
            counters_status: match &planned.counter_group {
                Some(group) => format!("group {group}, see `counted`"),
                None => "closed in timing samples".into(),
            },
            disturbance: Disturbance::default(),
            report: None,
        }
    }
}

/// Takes the sample in a fresh process. Never fails: whatever happens becomes a row.
pub fn take(run_id: &str, planned: &Planned, attempt: u32) -> Row {
    let mut row = Row::new(run_id, planned, attempt);
    if planned.skip.is_some() {
        return row;
    }
    let watch = Watch::start();
    let order = serde_json::to_vec(&planned.order()).map_err(|error| error.to_string());
    let outcome = order.and_then(|order| observe(worker(planned), &order, deadline(planned)));
    row.disturbance = watch.stop();
    settle(&mut row, outcome, deadline(planned));
    row
}

/// Starts a worker and waits for its end.
pub fn observe(command: Command, order: &[u8], deadline: Duration) -> Result<Ended, String> {
    finish(spawn(command, order)?, deadline)
}

/// Puts the end of a worker into its row.
fn settle(row: &mut Row, outcome: Result<Ended, String>, deadline: Duration) {
    match outcome {
        Err(reason) => (row.status, row.reason) = (Status::Failed, Some(reason)),
        Ok(Ended::TimedOut) => {
            let reason = format!("the worker did not end within {:.1} s and was killed", deadline.as_secs_f64());
            (row.status, row.reason) = (Status::Timeout, Some(reason));
        }
        Ok(Ended::Exited { status, stdout, stderr }) => {
            (row.exit_code, row.signal) = (status.code(), status.signal());
            judge(row, &stdout, &stderr);
        }
    }
}

/// Decides what an ended worker's output means.
fn judge(row: &mut Row, stdout: &str, stderr: &str) {
    let last_line = || stderr.lines().last().unwrap_or("no message").to_owned();
    row.status = Status::Failed;
    if let Some(signal) = row.signal {
        row.reason = Some(format!("the worker died of signal {signal}: {}", last_line()));
        return;
    }
    if row.exit_code != Some(0) {
        row.reason = Some(last_line());
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
            if report.measurement.steady == Some(false) {
                row.warnings.push("nonsteady: the windows have a trend".into());
            }
            row.report = Some(report);
        }
    }
}

/// How long a worker may take before it counts as hung.
fn deadline(planned: &Planned) -> Duration {
    planned.estimate() * 10 + Duration::from_secs(20)
}

/// How a worker ended.
pub enum Ended {
    /// By itself, or by a signal of its own.
    Exited { status: std::process::ExitStatus, stdout: String, stderr: String },
    /// It was killed.
    TimedOut,
}

fn worker(planned: &Planned) -> Command {
    // This very binary, even if its file was replaced by another build meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg("worker").env_clear().envs(planned.environment());
    command
}

fn spawn(mut command: Command, order: &[u8]) -> Result<Child, String> {
    // A group of its own, so that Ctrl-C reaches the run and not the sample.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start a worker: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("the worker has no standard input")?;
    // A worker that died at once closes the pipe; its exit says why.
    drop(stdin.write_all(order));
    Ok(child)
}

fn finish(mut child: Child, deadline: Duration) -> Result<Ended, String> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let read = |pipe: Option<&mut dyn Read>| {
        let mut bytes = Vec::new();
        // What could be read before the worker died is still worth showing.
        drop(pipe.map(|pipe| pipe.read_to_end(&mut bytes)));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read(out.as_mut().map(|pipe| pipe as &mut dyn Read)));
        let stderr = scope.spawn(|| read(err.as_mut().map(|pipe| pipe as &mut dyn Read)));
        let status = child.wait_timeout(deadline).map_err(|error| format!("cannot wait for a worker: {error}"))?;
        let Some(status) = status else {
            child
                .kill()
                .and_then(|()| child.wait().map(drop))
                .map_err(|error| format!("cannot end a worker: {error}"))?;
            return Ok(Ended::TimedOut);
        };
        let text = |handle: std::thread::ScopedJoinHandle<String>| handle.join().unwrap_or_default();
        Ok(Ended::Exited { status, stdout: text(stdout), stderr: text(stderr) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::limits::Limits;
    use crate::plan::{Choice, make};

    /// The row of a worker that behaves like this shell script.
    fn row_of(script: &str) -> Row {
        let choice = Choice {
            profile: "quick".into(),
            filter: None,
            modes: None,
            blocks: None,
            measure_ms: None,
            seed: 1,
            counters: Vec::new(),
        };
        let plan = make(&crate::definition::all(), &choice, &Limits::none()).unwrap();
        let mut row = Row::new("test", &plan[0], 1);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let deadline = Duration::from_millis(500);
        settle(&mut row, observe(command, b"{}", deadline), deadline);
        row
    }

    #[test]
    fn a_worker_that_crashes_gets_a_row_with_its_signal() {
        let row = row_of("kill -SEGV $$");
        assert_eq!((row.status, row.signal), (Status::Failed, Some(11)));
        assert!(row.reason.unwrap().contains("signal 11"));
    }

    #[test]
    fn a_worker_that_hangs_is_killed_and_gets_a_row() {
        let row = row_of("exec sleep 60");
        assert_eq!(row.status, Status::Timeout);
        assert!(row.reason.unwrap().contains("0.5 s"));
    }

    #[test]
    fn a_worker_that_gives_up_is_quoted() {
        let row = row_of("echo first >&2; echo the reason >&2; exit 3");
        assert_eq!((row.status, row.exit_code), (Status::Failed, Some(3)));
        assert_eq!(row.reason.as_deref(), Some("the reason"));
        assert_eq!(row_of("echo nonsense").status, Status::Failed);
    }
}
