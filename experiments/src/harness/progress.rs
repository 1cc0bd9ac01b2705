//! How far a run is: a bar with the time left on a terminal, plain lines elsewhere. Never a colour.

use super::place::Planned;
use super::row::{Row, Status};
use super::task::Task;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Whether progress is shown.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Shows no progress from here on. What went wrong is still said.
pub fn silence() {
    QUIET.store(true, Relaxed);
}

/// Says on standard error what is done now.
pub fn say(line: &str) {
    if !QUIET.load(Relaxed) {
        eprintln!("{line}");
    }
}

/// Progress through a plan, on standard error.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    samples: usize,
    done: Cell<usize>,
    left: Cell<Duration>,
    said: Cell<usize>,
}

impl Progress {
    /// Progress through `remaining` of a plan of `samples`.
    pub fn new<T: Task>(samples: usize, remaining: &[&Planned<T>]) -> Progress {
        let plain = QUIET.load(Relaxed) || !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(samples as u64), target);
        let template = "{bar:32} {pos}/{len}  {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let left: Duration = remaining.iter().map(|planned| planned.estimate()).sum();
        let done = samples - remaining.len();
        bar.set_position(done as u64);
        let progress =
            Progress { bar, plain, samples, done: Cell::new(done), left: Cell::new(left), said: Cell::new(0) };
        progress.show("");
        if plain {
            say(&format!("{} of {samples} samples to take, about {:.0} s", remaining.len(), left.as_secs_f64()));
        }
        progress
    }

    /// A row was written. Says so if it does not count.
    pub fn line<T, R>(&self, row: &Row<T, R>) {
        if matches!(row.status, Status::Ok | Status::Skipped) {
            return;
        }
        let word = row.status.word();
        let line = format!("{word}: {}: {}", row.planned.sample_id, row.reason.as_deref().unwrap_or("no reason"));
        match row.status {
            Status::Rejected if self.plain => say(&line), // it is taken again
            _ if self.plain => eprintln!("{line}"),
            _ => self.bar.println(line),
        }
    }

    /// A planned sample is settled.
    pub fn step<T: Task>(&self, planned: &Planned<T>) {
        self.left.set(self.left.get().saturating_sub(planned.estimate()));
        self.done.set(self.done.get() + 1);
        self.bar.inc(1);
        self.show(&planned.cell_id);
        let tenth = self.done.get() * 10 / self.samples.max(1);
        if self.plain && tenth > self.said.get() {
            self.said.set(tenth);
            let (done, left) = (self.done.get(), self.left.get().as_secs_f64());
            say(&format!("{done}/{} samples, about {left:.0} s left", self.samples));
        }
    }

    /// No more samples.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self, what: &str) {
        self.bar.set_message(format!("about {:.0} s left  {what}", self.left.get().as_secs_f64()));
    }
}
