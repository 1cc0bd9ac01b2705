//! How far a run is: a bar with the time left on a terminal, plain lines elsewhere. Never a colour.

use super::place::Planned;
use super::row::{Row, Status};
use super::task::Task;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

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
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(samples as u64), ProgressDrawTarget::stderr());
        let template = "{bar:32} {pos}/{len}  {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let left: Duration = remaining.iter().map(|planned| planned.estimate()).sum();
        let done = samples - remaining.len();
        bar.set_position(done as u64);
        let progress =
            Progress { bar, plain, samples, done: Cell::new(done), left: Cell::new(left), said: Cell::new(0) };
        progress.show("");
        if plain {
            eprintln!("{} of {samples} samples to take, about {:.0} s", remaining.len(), left.as_secs_f64());
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
        if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
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
            eprintln!(
                "{}/{} samples, about {:.0} s left",
                self.done.get(),
                self.samples,
                self.left.get().as_secs_f64()
            );
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
