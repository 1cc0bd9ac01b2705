//! The suite as a kind of run: what a sample is told, and what the manifest says of it.

use super::arm::Arm;
use super::plan::{self, Amount, Cell};
use super::work::Work;
use super::worker::{Order, Report};
use crate::harness::archive::Contents;
use crate::harness::manifest::Manifest;
use crate::harness::place::Planned;
use crate::harness::process::{Exited, Job};
use crate::harness::row;
use crate::harness::study::{self, Refusal, Study};
use serde::{Deserialize, Deserializer, Serialize};
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
    /// Numbers of threads of a pattern that has several; before schema 1.2 one number.
    #[serde(deserialize_with = "one_or_several")]
    pub threads: Vec<usize>,
    /// CPUs that the threads share. 0 in runs of older versions, whose threads did all the same.
    #[serde(default)]
    pub cpus: usize,
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

impl About {
    /// Patterns on their threads, in the order of the report.
    pub fn cells(&self) -> Vec<Cell> {
        plan::cells(&self.patterns, &self.threads, self.cpus).unwrap_or_default()
    }

    /// The numbers of threads, in words.
    pub fn threads_text(&self) -> String {
        self.threads.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Threads {
        One(usize),
        Several(Vec<usize>),
    }
    Ok(match Threads::deserialize(deserializer)? {
        Threads::One(threads) => vec![threads],
        Threads::Several(threads) => threads,
    })
}

/// How long a sample may take before it is ended.
pub fn deadline(planned: &Planned<Work>) -> Duration {
    planned.estimate() * 20 + Duration::from_secs(30)
}

/// The command that takes the same samples in the same order.
pub fn command(manifest: &Manifest<About>) -> String {
    let about = &manifest.about;
    let patterns = about.patterns.join("|");
    let shard = manifest.part.as_ref().map_or_else(String::new, |part| format!(" --shard {}", part.shard));
    let names: Vec<_> = about.allocators.iter().map(|arm| arm.name.as_str()).collect();
    format!(
        "perseq suite --profile {} --blocks {} --percent {} --threads {} --seed {} --baseline {} --only {} --filter '^({patterns})$'{shard}",
        about.profile,
        about.blocks,
        about.percent,
        about.threads_text().replace(' ', ""),
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
    const FOUND: &'static [&'static str] = &["planned"];
    type Task = Work;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Planned<Work>) -> Result<Job, String> {
        let arm = Arm::find(&self.arms, &planned.task.allocator)?;
        let order = Order {
            pattern: planned.cell_id.split('/').next().unwrap_or_default().to_owned(),
            threads: planned.task.threads,
            per_cpu: planned.task.per_cpu,
            percent: planned.task.percent,
            seed: planned.invocation_seed,
            library: arm.library.clone(),
            mode: arm.mode.clone(),
        };
        let job = Job::own("suite-worker", &order, deadline(planned))?;
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
        let cells = plan::cells(&about.patterns, &about.threads, about.cpus)?;
        let (threads, cpus) = (about.threads.clone(), about.cpus);
        let amount = Amount { blocks: about.blocks, threads, cpus, percent: about.percent, seed };
        Some(plan::make(&cells, &about.allocators, &about.baseline, &amount))
    }

    fn baseline(about: &About) -> &str {
        &about.baseline
    }

    fn join(about: &mut About, part: &About) {
        about.planned += part.planned;
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

    /// An allocator that is called like a mode is that mode: a row that says otherwise is refused.
    #[test]
    fn a_row_of_another_mode_is_none_of_the_allocator() {
        let amount = Amount { blocks: 1, threads: vec![1], cpus: 1, percent: 1, seed: 1 };
        let cells = plan::cells(&["churn".into()], &amount.threads, 1).unwrap();
        let plan = plan::make(&cells, &[Arm::bare("percpu")], "percpu", &amount);
        let mut report = row(&plan[0], 7, 4096).report.unwrap();
        let fault = |report: &Report| Suite::fault(&plan[0].task, report);
        assert!(fault(&report).is_some_and(|fault| fault.contains("none is active")), "{:?}", fault(&report));
        report.mode_active = Some("perthread".into());
        assert!(fault(&report).is_some_and(|fault| fault.contains("percpu was asked for, perthread is active")));
        report.mode_active = Some("percpu".into());
        assert_eq!(fault(&report), None);
        report.verified = false;
        assert!(fault(&report).is_some());
    }

    #[test]
    fn an_older_manifest_has_one_number_of_threads() {
        let text = r#"{"profile":"quick","blocks":5,"threads":2,"percent":100,"baseline":"system",
            "patterns":["larson","shbench"],"allocators":[],"planned":0}"#;
        let about: About = serde_json::from_str(text).unwrap();
        let cells: Vec<_> = about.cells().into_iter().map(|cell| (cell.id, cell.threads, cell.per_cpu)).collect();
        assert_eq!(cells, [("larson".to_owned(), 2, 1), ("shbench".to_owned(), 2, 1)]);
    }

    #[test]
    fn a_sample_that_failed_has_no_value() {
        let amount = Amount { blocks: 1, threads: vec![1], cpus: 1, percent: 1, seed: 1 };
        let cells = plan::cells(&["churn".into()], &amount.threads, 1).unwrap();
        let plan = plan::make(&cells, &[Arm::bare("system")], "system", &amount);
        let mut row = row(&plan[0], 7, 4096);
        let values = |row: &Row| (value(row, Metric::Time), value(row, Metric::Memory));
        assert_eq!(values(&row), (Some(7.0), Some(f64::from((1 << 20) + 4096))));
        row.status = Status::Rejected;
        assert_eq!(values(&row), (None, None));
    }
}
