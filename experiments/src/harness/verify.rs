//! Rows held against the plan, the run and each other.
//!
//! Samples are taken in the order of the plan, so the rows are a walk along it: a sample that is missing, doubled or out
//! of place is a step beside the path. From schema 1.2 on each row also holds the sum of the line before it, so that an
//! edited or removed line breaks the chain. The last line is held by the manifest of a finished run.

use super::place::Planned;
use super::row::{Row, Status};
use super::study::Study;
use super::task::Task;
use crate::checksum;

/// What rows must fit to.
pub struct Run<'a, T> {
    /// The plan.
    pub plan: &'a [Planned<T>],
    /// The name of the run that the rows of each planned sample bear.
    pub names: &'a [&'a str],
    /// The schema of its manifest.
    pub schema: &'a str,
    /// Whether rows are chained.
    pub chained: bool,
    /// What the first row is chained to.
    pub first: String,
}

/// How far the walk came.
pub struct Walked {
    /// The first thing that does not fit.
    pub fault: Option<String>,
    /// Samples that need no further attempt, from the start of the plan.
    pub settled: usize,
    /// The sum of the last line.
    pub last: String,
}

impl<T: Task> Run<'_, T> {
    /// Walks along the plan. `lines` is the text the rows were read from.
    pub fn walk<S: Study<Task = T>>(&self, rows: &[Row<T, S::Report>], lines: &str) -> Walked {
        let (mut settled, mut again, mut fault) = (0, false, None);
        let mut last = self.first.clone();
        for (index, (row, line)) in rows.iter().zip(lines.lines()).enumerate() {
            if fault.is_none() {
                let found = self.step::<S>(row, settled, again, &last);
                fault = found.map(|found| format!("samples.jsonl: line {}: {found}", index + 1));
            }
            (settled, again) = if row.settled() { (settled + 1, false) } else { (settled, true) };
            last = checksum::of(line.as_bytes());
        }
        Walked { fault, settled, last }
    }

    /// What is wrong with one row at a `place` of the plan, `again` after a rejection, behind a line with the sum `last`.
    fn step<S: Study<Task = T>>(
        &self,
        row: &Row<T, S::Report>,
        place: usize,
        again: bool,
        last: &str,
    ) -> Option<String> {
        let id = &row.planned.sample_id;
        if row.schema != self.schema {
            return Some(format!("schema {} in a run of schema {}", row.schema, self.schema));
        }
        let (Some(next), Some(name)) = (self.plan.get(place), self.names.get(place)) else {
            return Some(format!("{id} follows the last sample of the plan"));
        };
        if row.run_id != *name && (self.chained || !row.run_id.is_empty()) {
            return Some(format!("a row of the run `{}` in the run `{name}`", row.run_id));
        }
        if *id != next.sample_id {
            return Some(format!("{id} stands where the plan has {}", next.sample_id));
        }
        if row.planned != *next {
            return Some(format!("{id} is not what was planned"));
        }
        if !(1..=2).contains(&row.attempt) || (again && row.attempt != 2) {
            return Some(format!("attempt {} of {id} {}", row.attempt, if again { "after one" } else { "" }));
        }
        if self.chained && row.previous.as_deref() != Some(last) {
            return Some("the line before it is not the one it was written after".into());
        }
        self.claim::<S>(row).map(|fault| format!("{id} claims to be {}: {fault}", row.status.word()))
    }

    /// What contradicts the status of a row.
    fn claim<S: Study<Task = T>>(&self, row: &Row<T, S::Report>) -> Option<String> {
        match row.status {
            Status::Ok => {
                let Some(report) = &row.report else { return Some("it has no report".into()) };
                let ended = (row.exit_code != Some(0)).then(|| "its process did not end with 0".to_owned());
                ended.or_else(|| S::fault(&row.planned.task, report))
            }
            Status::Rejected if row.attempt != 1 => Some("only a first attempt can be".into()),
            _ => row.reason.is_none().then(|| "it has no reason".into()),
        }
    }
}
