//! The suite as a kind of run: what a sample is told, and what the manifest says of it.

use super::arm::Arm;
use super::plan::{self, Amount};
use super::work::Work;
use super::worker::{Order, Report};
use crate::harness::archive::Contents;
use crate::harness::manifest::Manifest;
use crate::harness::place::Planned;
use crate::harness::process::{Exited, Job};
use crate::harness::row;
use crate::harness::study::{self, Refusal, Study};
use crate::pattern;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A row of the suite.
pub type Row = row::Row<Work, Report>;

/// What the report compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Wall time of the pattern.
    Time,
    /// Largest resident set from the start of the pattern.
    Memory,
}

/// The value of a metric, if the sample counts.
pub fn value(row: &Row, metric: Metric) -> Option<f64> {
    let report = row.counts()?;
    Some(match metric {
        Metric::Time => report.wall_ns as f64,
        Metric::Memory => report.rss_peak_bytes as f64,
    })
}

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Profile.
    pub profile: String,
    /// Blocks to a pattern.
    pub blocks: u64,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// The allocator every ratio is taken to.
    pub baseline: String,
    /// Patterns, in the order of the report.
    pub patterns: Vec<String>,
    /// Allocators, in the order of the report.
    pub allocators: Vec<Arm>,
    /// Samples planned.
    pub planned: usize,
}

/// The command that takes the same samples in the same order.
pub fn command(manifest: &Manifest<About>) -> String {
    let about = &manifest.about;
    let patterns = about.patterns.join("|");
    let names: Vec<_> = about.allocators.iter().map(|arm| arm.name.as_str()).collect();
    format!(
        "perseq suite --profile {} --blocks {} --percent {} --threads {} --seed {} --baseline {} --only {} --filter '^({patterns})$'",
        about.profile,
        about.blocks,
        about.percent,
        about.threads,
        manifest.seed,
        about.baseline,
        names.join(",")
    )
}

/// A run of the suite as it was read.
pub type Run = Contents<Suite>;

/// The suite on these allocators.
pub struct Suite {
    /// The allocators, with their libraries.
    pub arms: Vec<Arm>,
}

impl Study for Suite {
    const KIND: &'static str = "suite";
    type Task = Work;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Planned<Work>) -> Result<Job, String> {
        let arm = Arm::find(&self.arms, &planned.task.allocator)?;
        let order = Order {
            pattern: planned.cell_id.clone(),
            threads: planned.task.threads,
            percent: planned.task.percent,
            seed: planned.invocation_seed,
            library: arm.library.clone(),
            mode: arm.mode.clone(),
        };
        let deadline = planned.estimate() * 20 + Duration::from_secs(30);
        let job = Job::own("suite-worker", &order, deadline)?;
        Ok(job.environment([planned.padding()]).environment(arm.environment()))
    }

    fn read(&self, _: &Planned<Work>, ended: &Exited) -> Result<Report, Refusal> {
        study::json(ended)
    }

    fn fault(work: &Work, report: &Report) -> Option<String> {
        if let Some(fault) = &report.fault {
            return Some(fault.clone());
        }
        if !report.verified || report.checksum != report.checksum_expected {
            return Some("it is not verified".into());
        }
        // An allocator that is called like a mode is libperseq in that mode.
        let asked = perseq::Mode::from_name(&work.allocator)?;
        let active = report.mode_active.as_deref();
        (active != Some(asked.name()))
            .then(|| format!("mode: {asked} was asked for, {} is active", active.unwrap_or("none")))
    }

    fn plan_of(about: &About, seed: u64) -> Option<Vec<Planned<Work>>> {
        let amount = Amount { blocks: about.blocks, threads: about.threads, percent: about.percent, seed };
        let patterns: Option<Vec<_>> = about.patterns.iter().map(|name| pattern::find(name)).collect();
        Some(plan::make(&patterns?, &about.allocators, &about.baseline, &amount))
    }

    fn baseline(about: &About) -> &str {
        &about.baseline
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::harness::row::Status;

    /// A row that counts, with this time and this growth.
    pub fn row(planned: &Planned<Work>, wall_ns: u64, growth: u64) -> Row {
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
        let mut row = Row::new("run", planned, 1);
        (row.status, row.exit_code, row.report) = (Status::Ok, Some(0), Some(report));
        row
    }

    #[test]
    fn a_sample_that_failed_has_no_value() {
        let patterns: Vec<_> = pattern::PATTERNS.iter().collect();
        let amount = Amount { blocks: 1, threads: 1, percent: 1, seed: 1 };
        let plan = plan::make(&patterns, &[Arm::bare("system")], "system", &amount);
        let mut row = row(&plan[0], 7, 4096);
        let values = |row: &Row| (value(row, Metric::Time), value(row, Metric::Memory));
        assert_eq!(values(&row), (Some(7.0), Some(f64::from((1 << 20) + 4096))));
        row.status = Status::Rejected;
        assert_eq!(values(&row), (None, None));
    }
}
