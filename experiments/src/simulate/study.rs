//! Simulated samples as a kind of run: a guest to a sample, whose counts stand in its row.

use super::emulator::{self, Files};
use super::guest::{Answer, FAILURE, Metadata, ORDER, Preloaded, REPORT, TESTS, Told};
use super::image::{self, Image};
use super::machine::Machine;
use super::packages::{self, Packages};
use super::scratch::{self, Scratch};
use crate::beside::CACHE_PLUGIN;
use crate::checksum;
use crate::experiment::{self, Question};
use crate::failure::Failure;
use crate::harness::archive::Contents;
use crate::harness::place::Planned;
use crate::harness::process::{Exited, Job};
use crate::harness::row;
use crate::harness::study::{Refusal, Study};
use crate::harness::task::Task;
use crate::subject::{BASELINE, Subject};
use crate::suite::Arm;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A row of a simulation.
pub type Row = row::Row<Guest, Report>;
/// A simulation as it was read.
pub type Run = Contents<Simulation>;

/// What is simulated: a sample of an experiment, as it is or through a preloaded allocator.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// What a sample of the experiment would be told.
    #[serde(flatten)]
    pub question: Question,
    /// The allocator that is preloaded and called through `malloc` and `free`. Null: the mode that the sample names, its fast
    /// path inlined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preloaded: Option<String>,
    /// Whether objects are marked as they come and go. Not in older rows.
    #[serde(default, skip_serializing_if = "not")]
    pub objects: bool,
}

fn not(value: &bool) -> bool {
    !value
}

impl Task for Guest {
    fn subject(&self) -> &str {
        self.preloaded.as_deref().unwrap_or_else(|| self.question.subject())
    }

    fn layout(&self) -> u64 {
        self.question.layout
    }

    /// The start of its kernel, and the instructions of the measured time, each with its accesses.
    fn estimate(&self) -> Duration {
        let percent = self.question.params.get("percent").copied().unwrap_or(0); // of a pattern, seconds
        let measured = self.question.measure() * if self.objects { 40 } else { 25 };
        Duration::from_secs(9 + 3 * percent) + measured
    }
}

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// What is simulated.
    pub machine: Machine,
    /// Versions of emulator and kernel.
    pub emulator: String,
    /// SHA-256 of what guests start from: the binary, what is preloaded, and the libraries of both. Null in older runs.
    #[serde(default)]
    pub image_sha256: Option<String>,
    /// SHA-256 of the plugin.
    pub plugin_sha256: String,
    /// The modes, in the order of the table. Empty: allocators were preloaded.
    pub modes: Vec<Subject>,
    /// The allocators that were preloaded, in the order of the table.
    #[serde(default)]
    pub preloaded: Vec<Arm>,
    /// Starts of each cell and mode.
    pub seeds: u64,
}

impl About {
    /// The names of what is compared, in the order of the table.
    pub fn subjects(&self) -> Vec<&str> {
        let modes = self.modes.iter().map(|mode| mode.name());
        modes.chain(self.preloaded.iter().map(|arm| arm.name.as_str())).collect()
    }

    /// What ratios are taken to: the per-thread mode, or the first where it is not among them.
    pub fn baseline(&self) -> &str {
        let subjects = self.subjects();
        if subjects.contains(&BASELINE.name()) {
            BASELINE.name()
        } else {
            subjects.first().copied().unwrap_or_default()
        }
    }

    /// What the ratios of these rows, of one cell, are taken to.
    pub fn baseline_of(&self, rows: &[&Row]) -> &str {
        match self.baseline() {
            baseline if baseline == BASELINE.name() => experiment::baseline(rows).name(),
            first => first,
        }
    }
}

/// Counts of one class of accesses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Class {
    /// Over all CPUs.
    pub total: BTreeMap<String, u64>,
    /// Of each CPU.
    pub cpus: Vec<BTreeMap<String, u64>>,
}

/// What the plugin was told of the allocator's metadata.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heard {
    /// What it was told.
    #[serde(flatten)]
    pub metadata: Metadata,
    /// Why it cannot be. Empty: it can.
    pub fault: String,
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
    /// Times that a measured part began and ended meanwhile: once each, or never where the workload is measured whole.
    #[serde(default)]
    pub parts: [u64; 2],
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
    /// Those of `user` by where the data lay: in a tier of the allocator's metadata, or elsewhere, which is `program`.
    /// Null: the allocator does not say where its metadata lies. From schema 1.6 on.
    #[serde(default)]
    pub tiers: Option<BTreeMap<String, BTreeMap<String, u64>>>,
    /// What was told of it.
    #[serde(default)]
    pub told: Heard,
    /// What was found of objects as they were handed out. Null: they were not marked. From schema 1.8 on.
    #[serde(default)]
    pub objects: Option<Objects>,
}

/// Objects that were handed out while counting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Objects {
    /// All of them.
    pub handed_out: u64,
    /// Those whose first line their CPU had never touched. All others have a reuse distance: the number of different lines
    /// that it touched since it last touched that one.
    pub never: u64,
    /// Those with a distance of the lines of a first level or more.
    pub beyond_l1: u64,
    /// Those with a distance of the lines of a second level or more.
    pub beyond_l2: u64,
    /// The quartiles of the distances. Empty: there are none.
    pub quartiles: Vec<u64>,
    /// Distances by their number of binary digits.
    pub digits: Vec<u64>,
    /// Objects that had an owner before.
    pub passed: u64,
    /// CPUs that touched their first lines between the two owners, over all of these.
    pub touchers: u64,
}

impl Objects {
    /// The metrics of rows. What there was nothing to divide by has no value.
    fn metrics(&self) -> impl Iterator<Item = (String, f64)> {
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        let [first, middle, last] = [0, 1, 2].map(|at| self.quartiles.get(at).map(|lines| *lines as f64));
        let beyond = |part| share(part, self.handed_out);
        let values = [
            first,
            middle,
            last,
            beyond(self.beyond_l1),
            beyond(self.beyond_l2),
            beyond(self.never),
            share(self.touchers, self.passed),
        ];
        OF_OBJECTS.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
    }
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
        if !matches!(self.parts, [0, 0] | [1, 1]) {
            return Some(format!("measured parts began and ended {:?} times", self.parts));
        }
        if !self.law_broken.is_empty() {
            return Some(format!("the model of caches is broken: {}", self.law_broken));
        }
        (!self.told.fault.is_empty()).then(|| format!("where metadata lies was told wrongly: {}", self.told.fault))
    }

    /// Why tiers may not be told apart, if that is so: the plugin heard something else than the guest says it told, or
    /// perseq ran and told nothing.
    fn misheard(&self, told: &Metadata, is_perseq: bool) -> Option<String> {
        let heard = &self.told.metadata;
        let bytes = |metadata: &Metadata| -> BTreeMap<String, u64> {
            metadata.bytes.iter().filter(|(_, bytes)| **bytes > 0).map(|(name, bytes)| (name.clone(), *bytes)).collect()
        };
        if is_perseq && self.tiers.is_none() {
            return Some("perseq did not say where its metadata lies".into());
        }
        if heard.ranges != told.ranges || bytes(heard) != bytes(told) {
            return Some(format!("where metadata lies was told as {told:?} and heard as {heard:?}"));
        }
        None
    }
}

/// The counts of tiers that are metrics of rows: the others stand in `counted`.
pub const TIER_COUNTS: [&str; 6] =
    ["accesses", "l1_misses", "l2_misses", "modified_transfers", "upgrades", "dtlb_misses"];

/// A count, where modified lines are counted from wherever they came.
pub fn of_tier(counts: &BTreeMap<String, u64>, count: &str) -> u64 {
    let of = |name: &str| counts.get(name).copied().unwrap_or_default();
    match count {
        "modified_transfers" => {
            ["in_group", "in_node", "between_nodes"].map(|at| of(&format!("{count}_{at}"))).iter().sum()
        }
        _ => of(count),
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
    /// Allocations while counting, each with its free: of the measured part, or of all where there is none.
    pub pairs: u64,
    /// Counts per pair, over all classes and for each.
    pub metrics: BTreeMap<String, f64>,
    /// What has no value, and why.
    #[serde(default)]
    pub unavailable: BTreeMap<String, String>,
    /// The counts themselves.
    pub counted: Counted,
}

/// Metrics of objects as they are handed out, where these are marked: quartiles of their reuse distances in lines, shares of
/// all of them, and CPUs that touched one between two owners. Rows have them as they are, and not for each pair.
pub const OF_OBJECTS: [&str; 7] = [
    "reuse_distance_p25_lines",
    "reuse_distance_p50_lines",
    "reuse_distance_p75_lines",
    "reuse_beyond_l1_share",
    "reuse_beyond_l2_share",
    "reuse_never_share",
    "touchers_per_object",
];

/// How equally threads got on: Jain's index of their pairs.
pub const FAIRNESS: &str = "jain_fairness";
/// What a worker tells that no clock has a part in. Rows have it as it is, and not for each pair.
pub const AS_TOLD: [&str; 5] =
    [FAIRNESS, "rss_after_release_bytes", "cached_bytes", "stranded_bytes", "caches_touched"];

impl Report {
    fn new(answer: Answer, counted: Counted) -> Report {
        let Answer { worker: report, metadata } = answer;
        let all = counted.parts == [0, 0];
        let pairs = if all { report.measurement.ops_alloc } else { report.measurement.pairs };
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
        for (tier, counts) in counted.tiers.iter().flatten() {
            let named = TIER_COUNTS.map(|name| (format!("{tier}_{name}_per_pair"), per_pair(of_tier(counts, name))));
            metrics.extend(named);
        }
        metrics.extend(counted.objects.iter().flat_map(Objects::metrics));
        let unsaid = "the allocator does not say where its metadata lies";
        let unavailable =
            counted.tiers.is_none().then(|| ("tiers".to_owned(), unsaid.to_owned())).into_iter().collect();
        let as_told = |name: &&str| Some(((*name).to_owned(), *report.measurement.metrics.get(*name)?));
        metrics.extend(AS_TOLD.iter().filter_map(as_told));
        let misheard = || counted.misheard(&metadata, report.mode_active.is_some());
        let still = || (!all).then(|| stood_still(pairs, report.measurement.threads)).flatten();
        let fault = report.fault.or_else(misheard).or_else(still);
        Report {
            simulated: true,
            mode_active: report.mode_active,
            mode_reason: report.mode_reason,
            verified: report.verified,
            fault,
            threads: report.measurement.threads,
            pairs,
            metrics,
            unavailable,
            counted,
        }
    }
}

/// Why no count for each pair is worth anything: one thread that gets no turn may hold up all others, and then they wait
/// for as long as is counted.
fn stood_still(pairs: u64, threads: u64) -> Option<String> {
    (pairs < threads).then(|| {
        format!("{pairs} pairs of {threads} threads in what was counted: they stood still; a larger --measure-ms has more turns")
    })
}

/// The cells that rows are of.
pub fn cells(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().map(|row| row.planned.cell_id.as_str()).collect()
}

/// The rows of one cell.
pub fn of_cell<'a>(rows: &'a [Row], cell: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.planned.cell_id == cell).collect()
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
    /// Allocators to preload.
    arms: Vec<Arm>,
    /// Files of the guest that runs now.
    scratch: Scratch,
}

impl Simulation {
    /// The kind, in manifests.
    pub const NAME: &'static str = "simulation";

    /// Fetches what is missing, and removes what simulations left that were killed.
    pub fn prepare(machine: Machine, plugin: Plugin, arms: Vec<Arm>) -> Result<Simulation, Failure> {
        let folder = packages::folder()?;
        // One at a time: two that fetch would remove what the other unpacks.
        let gate = scratch::gate(&folder)?;
        let packages = Packages::find(folder)?;
        let scratch = Scratch::create(packages.folder())?;
        drop(gate);
        let image = Image::of_this_binary().map_err(Failure::host)?;
        Ok(Simulation { machine, packages, plugin, image, arms, scratch })
    }

    /// Versions of emulator and kernel.
    pub fn versions(&self) -> String {
        self.packages.versions()
    }

    /// SHA-256 of what every guest starts from.
    pub fn image_sum(&self) -> Result<String, Failure> {
        let mut image = self.image.clone();
        let mut loaded = self.arms.iter().flat_map(|arm| &arm.loaded);
        loaded.try_for_each(|file| image.library(file)).map_err(Failure::host)?;
        Ok(checksum::of(&image.finish()))
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
        let Guest { question, preloaded, objects } = &planned.task;
        let objects = *objects;
        let mut image = self.image.clone();
        let mut environment = question.environment();
        let mut order = experiment::order(question, planned.invocation_seed, None);
        order.timed = false;
        let preloaded = match preloaded {
            None => None,
            Some(name) => {
                let arm = Arm::find(&self.arms, name)?;
                order.subject = Subject::System;
                let library = arm.library.as_deref().map(image::place);
                environment.extend(arm.environment.iter().filter(|(name, _)| name != "PERSEQ_MODE").cloned());
                arm.loaded.iter().try_for_each(|file| image.library(file))?;
                environment.extend(library.clone().map(|library| ("LD_PRELOAD".to_owned(), library)));
                Some(Preloaded { library: library.map(PathBuf::from), mode: arm.mode.clone() })
            }
        };
        let Machine { cpus, llc_groups, .. } = self.machine;
        let (process_cpus, slice_ns) = (self.machine.allowed_cpus(), emulator::slice_ns(cpus));
        let told = Told { order, llc_groups, process_cpus, slice_ns, objects, preloaded };
        let told = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
        image.file(ORDER, &told);
        let path = self.scratch.folder().join("image.cpio");
        fs::write(&path, image.finish()).map_err(|error| format!("{}: {error}", path.display()))?;
        // The counts of another guest are no counts of this one.
        drop(fs::remove_file(self.counts()));
        let files = Files { image: &path, plugin: &self.plugin.path, out: &self.counts(), objects };
        Ok(emulator::job(&self.packages, &self.machine, &files, &environment))
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
        let asked = match guest.question.mode_requested {
            Subject::Perseq(mode) => Some(mode.name()),
            _ => None,
        };
        let marked = report.counted.objects.as_ref().map(|objects| objects.handed_out);
        if guest.objects && marked.unwrap_or(0) == 0 {
            return Some("no object that was handed out was seen".into());
        }
        if report.mode_active.as_deref() != asked {
            return Some(format!("mode: {:?} was asked for, {:?} is active", asked, report.mode_active));
        }
        (!report.verified || report.pairs == 0).then(|| "it is not verified".into())
    }

    fn baseline(about: &About) -> &str {
        about.baseline()
    }

    /// The same emulator with the same model runs the same files: unless the model is that of the host.
    fn same_anywhere(about: &About) -> bool {
        about.image_sha256.is_some() && !about.machine.is_this_host()
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
            parts: [1, 1],
            system_calls: 3,
            tested: vec![TESTS; 2],
            wrong: 0,
            law_broken: String::new(),
            classes: BTreeMap::new(),
            tiers: None,
            told: Heard::default(),
            objects: None,
        }
    }

    #[test]
    fn figures_are_refused_where_the_self_test_fails() {
        assert_eq!(counted().fault(), None);
        assert_eq!(Counted { parts: [0, 0], ..counted() }.fault(), None);
        let faulty = [
            Counted { wrong: 1, ..counted() },
            Counted { tested: vec![TESTS, TESTS - 1], ..counted() },
            Counted { tested: vec![TESTS, 0], ..counted() },
            Counted { started: 0, ..counted() },
            Counted { stopped: 0, ..counted() },
            Counted { parts: [2, 2], ..counted() },
            Counted { parts: [1, 0], ..counted() },
            Counted { law_broken: "single writer".into(), ..counted() },
            Counted { told: Heard { fault: "in common".into(), ..Heard::default() }, ..counted() },
        ];
        for counted in faulty {
            assert!(counted.fault().is_some(), "{counted:?}");
        }
    }

    #[test]
    fn who_stood_still_has_no_figures() {
        assert_eq!(stood_still(16, 16), None);
        assert!(stood_still(8, 16).is_some_and(|why| why.starts_with("8 pairs of 16 threads")));
    }

    #[test]
    fn tiers_are_refused_where_the_plugin_heard_something_else() {
        let told = |ranges, bytes: &[(&str, u64)]| Metadata {
            ranges,
            bytes: bytes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
        };
        let tiers = Some(BTreeMap::new());
        let hears =
            |metadata| Counted { tiers: tiers.clone(), told: Heard { metadata, fault: String::new() }, ..counted() };
        let all = told(3, &[("caches", 640), ("spans", 64)]);
        // The plugin knows of all tiers.
        let heard = hears(told(3, &[("caches", 640), ("spans", 64), ("page_map", 0)]));
        assert_eq!(heard.misheard(&all, true), None);
        assert_eq!(counted().misheard(&Metadata::default(), false), None);
        assert!(counted().misheard(&Metadata::default(), true).is_some(), "perseq says where it is");
        for other in [told(2, &[("caches", 640), ("spans", 64)]), told(3, &[("caches", 704)]), Metadata::default()] {
            assert!(heard.misheard(&other, true).is_some_and(|fault| fault.contains("heard as")), "{other:?}");
        }
    }

    #[test]
    fn objects_without_a_distance_have_no_quartiles() {
        let metrics = |objects: Objects| objects.metrics().collect::<BTreeMap<_, _>>();
        let new = metrics(Objects { handed_out: 4, never: 4, ..Objects::default() });
        assert_eq!(new.get("reuse_never_share"), Some(&1.0));
        assert_eq!(new.len(), 3, "neither quartiles nor owners before: {new:?}");
        let quartiles = vec![1, 2, 600];
        let some = Objects {
            handed_out: 8,
            never: 2,
            beyond_l1: 4,
            beyond_l2: 0,
            quartiles,
            passed: 6,
            touchers: 9,
            ..Objects::default()
        };
        let some = metrics(some);
        assert_eq!(OF_OBJECTS.map(|name| some[name]), [1.0, 2.0, 600.0, 0.5, 0.0, 0.25, 1.5]);
    }

    #[test]
    fn modified_lines_of_a_tier_are_those_from_anywhere() {
        let names = ["modified_transfers_in_group", "modified_transfers_in_node", "modified_transfers_between_nodes"];
        let counts = names.into_iter().zip([1, 20, 300]).chain([("l2_misses", 4000)]);
        let counts = counts.map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!([of_tier(&counts, "modified_transfers"), of_tier(&counts, "l2_misses")], [321, 4000]);
        assert_eq!(of_tier(&counts, "upgrades"), 0);
    }
}
