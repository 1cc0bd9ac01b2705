//! Simulated samples as a kind of run: a guest to a sample, whose counts stand in its row.

use super::emulator::{self, Files};
use super::guest::{FAILURE, ORDER, REPORT, TESTS};
use super::image::Image;
use super::machine::Machine;
use super::packages::{self, Packages};
use super::scratch::{self, Scratch};
use crate::beside::CACHE_PLUGIN;
use crate::checksum;
use crate::experiment::{self, Question};
use crate::failure::Failure;
use crate::harness::place::Planned;
use crate::harness::process::{Exited, Job};
use crate::harness::row;
use crate::harness::study::{Refusal, Study};
use crate::harness::task::Task;
use crate::subject::{BASELINE, Subject};
use crate::worker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A row of a simulation.
pub type Row = row::Row<Guest, Report>;

/// What a guest is told: what a sample of the experiment would be told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guest(pub Question);

impl Task for Guest {
    fn subject(&self) -> &str {
        self.0.subject()
    }

    /// The start of its kernel, and the instructions of the measured time, each with its accesses.
    fn estimate(&self) -> Duration {
        Duration::from_secs(9) + self.0.measure() * 30
    }
}

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// What is simulated.
    pub machine: Machine,
    /// Versions of emulator and kernel.
    pub emulator: String,
    /// SHA-256 of the plugin.
    pub plugin_sha256: String,
    /// The modes, in the order of the table.
    pub modes: Vec<Subject>,
    /// Starts of each cell and mode.
    pub seeds: u64,
}

/// Counts of one class of accesses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Class {
    /// Over all CPUs.
    pub total: BTreeMap<String, u64>,
    /// Of each CPU.
    pub cpus: Vec<BTreeMap<String, u64>>,
}

/// What the plugin wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// The geometry it simulated.
    pub geometry: String,
    /// CPUs it simulated.
    pub cpus: usize,
    /// Times that counting began: once.
    pub started: u64,
    /// Times that it ended: once.
    pub stopped: u64,
    /// System calls while counting.
    pub system_calls: u64,
    /// Stores of the self-test that were seen, by CPU.
    pub tested: Vec<u64>,
    /// Those that the emulator named another CPU for.
    pub wrong: u64,
    /// The law of the model that does not hold. Empty: all hold.
    pub law_broken: String,
    /// Counts by who accessed: `kernel` and `user`.
    pub classes: BTreeMap<String, Class>,
}

impl Counted {
    /// Why no figure may be made of it, if that is so.
    fn fault(&self) -> Option<String> {
        if self.wrong > 0 || self.tested.iter().any(|tested| *tested != TESTS) {
            return Some(format!(
                "attribution: {} of {TESTS} stores from each CPU were seen as another's; seen of each: {:?}",
                self.wrong, self.tested
            ));
        }
        if (self.started, self.stopped) != (1, 1) {
            return Some(format!("counting began {} times and ended {} times", self.started, self.stopped));
        }
        (!self.law_broken.is_empty()).then(|| format!("the model of caches is broken: {}", self.law_broken))
    }
}

/// What a guest reports. Nothing in it is a time: a guest's clock counts instructions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Always: no value is that of hardware.
    pub simulated: bool,
    /// The mode the allocator says it ran in.
    pub mode_active: Option<String>,
    /// Why it ran in that mode.
    pub mode_reason: Option<String>,
    /// Whether all objects came back as they were signed.
    pub verified: bool,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
    /// Threads that allocated.
    pub threads: u64,
    /// Allocations while counting, each with its free.
    pub pairs: u64,
    /// Counts per pair, over all classes and for each.
    pub metrics: BTreeMap<String, f64>,
    /// The counts themselves.
    pub counted: Counted,
}

impl Report {
    fn new(report: worker::Report, counted: Counted) -> Report {
        let pairs = report.measurement.ops_alloc;
        let mut metrics = BTreeMap::new();
        let mut total: BTreeMap<&str, u64> = BTreeMap::new();
        let per_pair = |count: u64| count as f64 / pairs.max(1) as f64;
        for (class, counts) in &counted.classes {
            for (name, count) in &counts.total {
                metrics.insert(format!("{class}_{name}_per_pair"), per_pair(*count));
                *total.entry(name).or_default() += count;
            }
        }
        metrics.extend(total.iter().map(|(name, count)| (format!("{name}_per_pair"), per_pair(*count))));
        metrics.insert("system_calls_per_pair".into(), per_pair(counted.system_calls));
        Report {
            simulated: true,
            mode_active: report.mode_active,
            mode_reason: report.mode_reason,
            verified: report.verified,
            fault: report.fault,
            threads: report.measurement.threads,
            pairs,
            metrics,
            counted,
        }
    }
}

/// The value of a metric, if the sample counts.
pub fn value(row: &Row, metric: &str) -> Option<f64> {
    row.counts()?.metrics.get(metric).copied()
}

/// The plugin that holds the model of caches.
pub struct Plugin {
    path: PathBuf,
    /// SHA-256 of it.
    pub sum: String,
}

impl Plugin {
    /// The one that is named, or the one beside this program.
    pub fn find(named: Option<&Path>) -> Result<Plugin, Failure> {
        let path = CACHE_PLUGIN.find(named)?;
        let sum = checksum::of_file(&path).map_err(|error| Failure::file(&path, "read", error))?;
        Ok(Plugin { path, sum })
    }
}

/// What all guests of a run share.
pub struct Simulation {
    machine: Machine,
    packages: Packages,
    plugin: Plugin,
    image: Image,
    /// Files of the guest that runs now.
    scratch: Scratch,
}

impl Simulation {
    /// The kind, in manifests.
    pub const NAME: &'static str = "simulation";

    /// Fetches what is missing, and removes what simulations left that were killed.
    pub fn prepare(machine: Machine, plugin: Plugin) -> Result<Simulation, Failure> {
        let folder = packages::folder()?;
        // One at a time: two that fetch would remove what the other unpacks.
        let gate = scratch::gate(&folder)?;
        let packages = Packages::find(folder)?;
        let scratch = Scratch::create(packages.folder())?;
        drop(gate);
        let image = Image::of_this_binary().map_err(Failure::host)?;
        Ok(Simulation { machine, packages, plugin, image, scratch })
    }

    /// Versions of emulator and kernel.
    pub fn versions(&self) -> String {
        self.packages.versions()
    }

    fn counts(&self) -> PathBuf {
        self.scratch.folder().join("counts.json")
    }
}

impl Study for Simulation {
    const KIND: &'static str = Simulation::NAME;
    const PROCESS: &'static str = "the guest";
    // Counts do not depend on what else the host does.
    const GATED: bool = false;
    type Task = Guest;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Planned<Guest>) -> Result<Job, String> {
        let mut order = experiment::order(&planned.task.0, planned.invocation_seed, None);
        order.timed = false;
        let order = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
        let mut image = self.image.clone();
        image.file(ORDER, &order);
        let path = self.scratch.folder().join("image.cpio");
        fs::write(&path, image.finish()).map_err(|error| format!("{}: {error}", path.display()))?;
        // The counts of another guest are no counts of this one.
        drop(fs::remove_file(self.counts()));
        let files = Files { image: &path, plugin: &self.plugin.path, out: &self.counts() };
        Ok(emulator::job(&self.packages, &self.machine, &files, &planned.task.0.environment()))
    }

    fn read(&self, _: &Planned<Guest>, ended: &Exited) -> Result<Report, Refusal> {
        let failed = |reason: String| Refusal::Failed(reason);
        let console = String::from_utf8_lossy(&ended.stdout);
        let line = |start: &str| console.lines().find_map(|line| line.trim().strip_prefix(start));
        if let Some(reason) = line(FAILURE) {
            return Err(failed(reason.to_owned()));
        }
        let Some(report) = line(REPORT) else {
            let last = console.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
            let emulator = ended.stderr.lines().last().unwrap_or("nothing");
            return Err(failed(format!("no report: the guest said `{last}`, the emulator {emulator}")));
        };
        let report = serde_json::from_str(report).map_err(|error| failed(format!("the guest's report: {error}")))?;
        let path = self.counts();
        let counted = fs::read(&path).map_err(|error| failed(format!("what the plugin counted: {error}")))?;
        let counted =
            serde_json::from_slice(&counted).map_err(|error| failed(format!("the plugin's counts: {error}")))?;
        Ok(Report::new(report, counted))
    }

    fn fault(guest: &Guest, report: &Report) -> Option<String> {
        if let Some(fault) = report.counted.fault().or_else(|| report.fault.clone()) {
            return Some(fault);
        }
        let asked = match guest.0.mode_requested {
            Subject::Perseq(mode) => Some(mode.name()),
            _ => None,
        };
        if report.mode_active.as_deref() != asked {
            return Some(format!("mode: {:?} was asked for, {:?} is active", asked, report.mode_active));
        }
        (!report.verified || report.pairs == 0).then(|| "it is not verified".into())
    }

    fn baseline(_: &About) -> &str {
        BASELINE.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> Counted {
        Counted {
            geometry: "zen3".into(),
            cpus: 2,
            started: 1,
            stopped: 1,
            system_calls: 3,
            tested: vec![TESTS; 2],
            wrong: 0,
            law_broken: String::new(),
            classes: BTreeMap::new(),
        }
    }

    #[test]
    fn figures_are_refused_where_the_self_test_fails() {
        assert_eq!(counted().fault(), None);
        let faulty = [
            Counted { wrong: 1, ..counted() },
            Counted { tested: vec![TESTS, TESTS - 1], ..counted() },
            Counted { tested: vec![TESTS, 0], ..counted() },
            Counted { started: 0, ..counted() },
            Counted { stopped: 0, ..counted() },
            Counted { law_broken: "single writer".into(), ..counted() },
        ];
        for counted in faulty {
            assert!(counted.fault().is_some(), "{counted:?}");
        }
    }
}
