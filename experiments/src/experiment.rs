//! The experiments as a kind of run: what a sample is told, and what its worker reports.

use crate::addresses;
use crate::counters;
use crate::definition::{self, Definition, Parameters, Rule};
use crate::failure::Failure;
use crate::harness::manifest::Manifest;
use crate::harness::place::{self, Planned};
use crate::harness::process::{Exited, Job};
use crate::harness::row;
use crate::harness::study::{self, Refusal, Study};
use crate::harness::task::{Pass, Task};
use crate::harness::turns;
use crate::host::Host;
use crate::provenance::{Version, Withdrawn};
use crate::subject::{BASELINE, Subject, TWINNED};
use crate::validity::{Outcome, Validity};
use crate::worker::Report;
use crate::workload::Order;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a sample is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The definition's id.
    pub experiment: String,
    /// The workload.
    pub workload: String,
    /// What it is told.
    pub params: Parameters,
    /// The fairness rule; null where the allocator's own capacity is used.
    pub fairness: Option<Rule>,
    /// What is measured.
    pub mode_requested: Subject,
    /// Group of counters it reads: a sample of the counter pass, whose time is not used. Null: a timing sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_group: Option<String>,
    /// Which copy of the measured loop runs: dealt to each block, the same for all of it. Rows of older versions have
    /// none, which is 0: there was one copy.
    #[serde(default)]
    pub layout: u64,
    /// Links of the think loop in a millisecond on this host, as found when the run began. Null in older rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links_per_ms: Option<u64>,
    /// Percent by which known work slows this sample of the baseline down. Null: it is not planted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted_percent: Option<u64>,
    /// Turns that it works in while the others of its block wait. Null: it works alone, without a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// What was drawn for the addresses of all samples of its block. Null: the kernel drew them for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u64>,
}

/// A planned sample of an experiment.
pub type Sample = Planned<Question>;
/// A row of an experiment.
pub type Row = row::Row<Question, Report>;

impl Task for Question {
    fn subject(&self) -> &str {
        self.mode_requested.name()
    }

    fn arm(&self) -> String {
        let subject = self.subject();
        self.planted_percent.map_or(subject.into(), |percent| format!("{subject}-planted-{percent}"))
    }

    fn layout(&self) -> u64 {
        self.layout
    }

    fn turns(&self) -> Option<u64> {
        self.turns
    }

    /// Measured part, warm-up, start and end of a process, and the lead of each turn.
    fn estimate(&self) -> Duration {
        let lead = self.turns.map_or(0.0, |_| 1.0 / f64::from(turns::LEAD));
        self.measure().mul_f64(1.15 + lead) + Duration::from_millis(40)
    }

    /// Each host finds out for itself how long a link takes.
    fn portable(&self) -> Question {
        Question { links_per_ms: None, ..self.clone() }
    }

    fn pass(&self) -> Option<Pass> {
        let (pass, counters_status) = match &self.counter_group {
            Some(group) => ("counter", format!("group {group}, see `counted`")),
            None => ("time", "closed in timing samples".into()),
        };
        Some(Pass { pass: pass.into(), counters_status })
    }
}

impl Question {
    /// Whether the sample is of the comparison of modes: timed, and with nothing planted.
    pub fn plain(&self) -> bool {
        self.counter_group.is_none() && self.planted_percent.is_none()
    }

    /// What asks the launcher for addresses that the kernel does not draw, where they are dealt.
    pub fn undrawn(&self) -> Option<(&'static str, &'static str)> {
        self.addresses.map(|_| (addresses::VARIABLE, "undrawn"))
    }

    /// The measured time asked for.
    pub fn measure(&self) -> Duration {
        Duration::from_millis(self.params.get("measure_ms").copied().unwrap_or(0))
    }

    /// Variables of the worker: mode and capacity.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        if let Subject::Perseq(mode) = self.mode_requested {
            variables.push(("PERSEQ_MODE".to_owned(), mode.name().to_owned()));
        }
        let mut set = |variable: &str, name: &str| {
            variables.extend(self.params.get(name).map(|value| (variable.to_owned(), value.to_string())));
        };
        // The same in every mode; not all of them empty idle caches.
        set("PERSEQ_IDLE_DRAIN", "idle_drain_ms");
        match self.fairness {
            Some(Rule::A) => set("PERSEQ_CACHE_BYTES", "cache_bytes"),
            Some(Rule::B | Rule::C) => set("PERSEQ_TOTAL_BYTES", "total_bytes"),
            None => {}
        }
        if self.fairness == Some(Rule::C) {
            variables.push(("PERSEQ_LENDING".to_owned(), "0".to_owned()));
        }
        variables
    }
}

/// What the worker of a sample is told.
pub fn order(question: &Question, seed: u64, trace: Option<PathBuf>) -> Order {
    Order {
        workload: question.workload.clone(),
        parameters: question.params.clone(),
        subject: question.mode_requested,
        seed,
        layout: question.layout,
        planted_percent: question.planted_percent,
        turns: question.turns,
        addresses: question.addresses,
        links_per_ms: question.links_per_ms,
        timed: true,
        counters: question.counter_group.clone(),
        trace_file: trace,
    }
}

/// The process of a sample, which replays `trace` if its workload replays one.
pub fn job(planned: &Sample, trace: Option<PathBuf>) -> Result<Job, String> {
    let question = &planned.task;
    let order = order(question, planned.invocation_seed, trace);
    let deadline = question.estimate() * 10 + Duration::from_secs(20);
    let job = Job::own("worker", &order, deadline)?;
    Ok(job.environment(environment(planned)).environment(question.undrawn()))
}

/// All variables of a sample, padded so that its stack starts where that of any other of its block does.
fn environment(planned: &Sample) -> Vec<(String, String)> {
    padded(planned.task.environment(), planned.padding(), STACK_BYTES)
}

/// Variables, with a padding made longer by what they take less than so many bytes at the start of the stack.
pub fn padded(
    mut variables: Vec<(String, String)>,
    (name, mut padding): (String, String),
    bytes: usize,
) -> Vec<(String, String)> {
    padding += &"x".repeat(bytes.saturating_sub(on_the_stack(&variables)));
    variables.push((name, padding));
    variables
}

/// Bytes that the variables of a sample take at the start of its stack, padding for those of shorter names included.
const STACK_BYTES: usize = 256;

/// Bytes that the kernel puts there for variables: each with `=` and an end, and a pointer to it.
pub fn on_the_stack(variables: &[(String, String)]) -> usize {
    variables.iter().map(|(name, value)| name.len() + value.len() + 2 + size_of::<usize>()).sum()
}

/// What contradicts the claim that the mode asked for was measured, and that every object came back.
pub fn fault(question: &Question, report: &Report) -> Option<String> {
    if let Some(fault) = &report.fault {
        return Some(fault.clone());
    }
    if !report.verified || report.measurement.checksum != report.measurement.checksum_expected {
        return Some("it is not verified".into());
    }
    let asked = match question.mode_requested {
        Subject::Perseq(mode) => Some(mode.name()),
        _ => None,
    };
    let active = report.mode_active.as_deref();
    let word = |mode: Option<&str>| mode.unwrap_or("none").to_owned();
    (active != asked).then(|| format!("mode: {} was asked for, {} is active", word(asked), word(active)))
}

/// What a reader should know of a sample.
pub fn remarks(report: &Report) -> Vec<String> {
    let trend = report.measurement.steady == Some(false);
    let trend = trend.then(|| "nonsteady: the windows have a trend".to_owned());
    trend.into_iter().chain(report.drawn.clone()).collect()
}

/// The value of a metric, if the sample is one of the comparison of modes, counts and has it.
pub fn value(row: &Row, metric: &str) -> Option<f64> {
    row.planned.task.plain().then(|| measured(row, metric)).flatten()
}

/// The value of a metric in a sample with so much planted in it, if it counts and has it.
pub fn planted_value(row: &Row, percent: u64, metric: &str) -> Option<f64> {
    (row.planned.task.planted_percent == Some(percent)).then(|| measured(row, metric)).flatten()
}

/// The value of a metric in a sample that counts, whatever pass it is of.
pub fn measured(row: &Row, metric: &str) -> Option<f64> {
    row.counts()?.measurement.metrics.get(metric).copied()
}

/// Values by block, each with the copy of the loop that ran.
pub type Series = BTreeMap<u64, (u64, f64)>;

/// The values of a subject or of its twin, of the blocks in which `value` has one.
pub fn series<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    subject: Subject,
    twin: bool,
    value: impl Fn(&Row) -> Option<f64>,
) -> Series {
    let own = rows.into_iter().filter(|row| row.planned.task.mode_requested == subject && row.planned.twin == twin);
    own.filter_map(|row| Some((row.planned.block, (row.planned.task.layout, value(row)?)))).collect()
}

/// The layout and both values of every block that has both.
pub fn pairs(base: &Series, other: &Series) -> Vec<(u64, f64, f64)> {
    let pair = |(block, (layout, base)): (&u64, &(u64, f64))| Some((*layout, *base, other.get(block)?.1));
    base.iter().filter_map(pair).collect()
}

/// What the modes of a cell are held against: the per-thread mode that they have in it. A rule that asks for caches that lend
/// keeps the plain one out, and then it is the next in the list that is one of that kind.
pub fn baseline<T: Task, R>(rows: &[&row::Row<T, R>]) -> Subject {
    let present = |subject: &Subject| rows.iter().any(|row| row.planned.task.subject() == subject.name());
    let of_its_kind = |subject: &Subject| subject.name().starts_with(BASELINE.name()) && present(subject);
    if present(&BASELINE) { BASELINE } else { Subject::all().find(of_its_kind).unwrap_or(BASELINE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::process::{Ended, observe};
    use std::collections::BTreeSet;

    /// In the kernel's words: the 28th field of /proc/self/stat.
    #[test]
    fn stacks_of_a_block_start_at_one_place() {
        let start = |subject, env_pad| {
            let sample = Planned { env_pad, ..single("test", "fast-path", subject, Parameters::new()) };
            let task = Question { addresses: Some(1), ..sample.task.clone() };
            let sample = Planned { task, ..sample };
            let job = Job::new("/bin/cat", Duration::from_secs(120)).argument("/proc/self/stat");
            let job = job.environment(environment(&sample)).environment(sample.task.undrawn());
            let Ok(Ended::Exited(exited)) = observe(&job) else { panic!("it ends") };
            String::from_utf8(exited.stdout).unwrap().split(' ').nth(27).map(str::to_owned).unwrap()
        };
        let places: BTreeSet<_> = Subject::all().map(|subject| start(subject, 100)).collect();
        assert_eq!(places.len(), 1, "{places:?}");
        assert!(!places.contains("0") && !places.contains(&start(BASELINE, 2000)), "{places:?}");
    }

    /// Padding makes up for every variable that a sample may have.
    #[test]
    fn variables_of_every_mode_fit_where_stacks_leave_them_room() {
        let params = ["idle_drain_ms", "cache_bytes", "total_bytes"].map(|name| (name.to_owned(), u64::MAX >> 4));
        for subject in Subject::all() {
            for rule in [Rule::A, Rule::B, Rule::C] {
                let sample = single("test", "fast-path", subject, params.clone().into());
                let question = Question { fairness: Some(rule), ..sample.task };
                let bytes = on_the_stack(&question.environment());
                assert!(bytes <= STACK_BYTES, "{subject:?} {rule:?}: {bytes} bytes");
            }
        }
    }
}

/// The row of a sample that counts and reported one value.
#[cfg(test)]
pub fn row(planned: &Sample, metric: &str, value: f64) -> Row {
    let mut measurement = crate::measurement::Measurement::default();
    measurement.set(metric, value);
    let report = Report {
        mode_active: None,
        mode_reason: None,
        mode_proof: None,
        verified: true,
        fault: None,
        cpu_user_ns: None,
        cpu_sys_ns: None,
        rss_peak_bytes: None,
        allocator: None,
        drawn: None,
        measurement,
    };
    Row { status: row::Status::Ok, report: Some(report), ..Row::new("run", planned, 1) }
}

/// The only sample of a run of its own, for checks with known answers.
pub fn single(run: &str, workload: &str, subject: Subject, params: Parameters) -> Sample {
    let cell = format!("{run}/{workload}");
    let question = Question {
        experiment: run.into(),
        workload: workload.into(),
        params,
        fairness: None,
        mode_requested: subject,
        counter_group: None,
        layout: 0,
        links_per_ms: None,
        planted_percent: None,
        turns: None,
        addresses: None,
    };
    Planned {
        sample_id: place::name(&cell, 0, subject.name(), false),
        cell_id: cell,
        twin: false,
        block: 0,
        order_index: 0,
        invocation_seed: 0x5eed,
        env_pad: 0,
        skip: None,
        task: question,
    }
}

/// What the manifest of a run says beyond host, binary and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Profile.
    pub profile: String,
    /// What the checks before the first sample found: E00. Empty: they were not made.
    #[serde(default)]
    pub validity: Vec<Validity>,
    /// What the command line changed.
    pub options: Options,
    /// Links of the think loop in a millisecond: what time outside the allocator is made of.
    #[serde(default)]
    pub links_per_ms: Option<u64>,
    /// CPUs allowed: L.
    pub cpus: u64,
    /// Whether the processor's counters work here.
    pub hardware_counters: bool,
    /// Every event that this processor's table knows.
    #[serde(default)]
    pub counter_catalogue: Vec<counters::Listed>,
    /// Name of the host, only if it was asked for.
    #[serde(default)]
    pub host_name: Option<String>,
    /// How many of the caller's variables no sample got to see. Their names are not recorded.
    #[serde(default)]
    pub excluded_variables: usize,
    /// The definitions as they were when the run began.
    pub definitions: Vec<Definition>,
    /// Every text that each of their predictions had, by the commits in which they first appeared.
    #[serde(default)]
    pub provenance: BTreeMap<String, Vec<Vec<Version>>>,
    /// The predictions that were made once and are made no longer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withdrawn: BTreeMap<String, Vec<Withdrawn>>,
}

/// What the command line changed in the profile.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Only cells that match.
    pub filter: Option<String>,
    /// Other subjects.
    pub modes: Option<Vec<Subject>>,
    /// Another number of blocks.
    pub blocks: Option<u64>,
    /// Another measured time.
    pub measure_ms: Option<u64>,
    /// Fewer threads.
    pub max_threads: Option<u64>,
    /// Fewer mebibytes.
    pub max_mem_mib: Option<u64>,
}

impl About {
    /// Whether no check of E00 failed.
    pub fn valid(&self) -> bool {
        self.validity.iter().all(|validity| validity.status != Outcome::Failed)
    }
}

/// The manifest of a run that begins now.
pub fn manifest(
    run_id: String,
    profile: &str,
    seed: u64,
    options: Options,
    definitions: Vec<Definition>,
) -> Result<Manifest<About>, Failure> {
    let host = Host::read();
    let mut provenance = definition::provenance();
    for definition in &definitions {
        // One of the user's own has no history here.
        let none = || vec![Vec::new(); definition.predictions.len()];
        provenance.entry(definition.id.clone()).or_insert_with(none);
    }
    let about = About {
        profile: profile.into(),
        validity: Vec::new(),
        options,
        links_per_ms: None,
        cpus: host.limits.cpus,
        hardware_counters: host.pmu.hardware(),
        counter_catalogue: counters::catalogue(),
        host_name: None,
        excluded_variables: std::env::vars_os().count(),
        provenance,
        withdrawn: definition::withdrawn(),
        definitions,
    };
    Manifest::new(Experiments::KIND, run_id, seed, &host, about)
}

/// The experiments.
pub struct Experiments;

impl Study for Experiments {
    const KIND: &'static str = "run";
    const FOUND: &'static [&'static str] =
        &["validity", "links_per_ms", "hardware_counters", "counter_catalogue", "host_name", "excluded_variables"];
    type Task = Question;
    type Report = Report;
    type About = About;

    fn job(&self, planned: &Sample) -> Result<Job, String> {
        job(planned, None)
    }

    fn read(&self, _: &Sample, ended: &Exited) -> Result<Report, Refusal> {
        study::json(ended)
    }

    fn fault(question: &Question, report: &Report) -> Option<String> {
        fault(question, report)
    }

    fn remarks(report: &Report) -> Vec<String> {
        remarks(report)
    }

    fn baseline(_: &About) -> &str {
        BASELINE.name()
    }

    fn twinned(_: &About) -> &str {
        TWINNED.name()
    }

    /// A check that failed in one part failed in the whole.
    fn join(about: &mut About, part: &About) {
        for validity in &part.validity {
            match about.validity.iter_mut().find(|known| known.check == validity.check) {
                Some(known) if known.status != Outcome::Failed && validity.status == Outcome::Failed => {
                    known.clone_from(validity);
                }
                Some(_) => {}
                None => about.validity.push(validity.clone()),
            }
        }
        about.links_per_ms = about.links_per_ms.filter(|links| part.links_per_ms == Some(*links));
        about.hardware_counters &= part.hardware_counters;
        about.excluded_variables = about.excluded_variables.max(part.excluded_variables);
        about.host_name = about.host_name.take().filter(|name| part.host_name.as_ref() == Some(name));
    }
}
