//! Counters of the processor and the kernel, over the whole team of a workload. The only module that knows the library.
//!
//! They run in a pass of their own: a timing sample runs with all counters closed. A sample counts one small group, so the
//! kernel never has to share a counter out; groups take turns from sample to sample. Every thread opens the group for
//! itself behind the start barrier and reads it before it exits. A value that is missing has a status and is never 0.

pub mod probe;
pub mod vendor;

use crate::host::cpu::last_level_caches;
use perf_event::events::{Event, Hardware, Software};
use perf_event::{Builder, Counter, Group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, OnceLock};

/// Groups of the processor's own events, each counted with cycles and instructions.
pub const HARDWARE_GROUPS: &[&str] = &["branches", "caches", "transfers", "writes"];
/// The group of the kernel's events, which every host has.
pub const SOFTWARE_GROUP: &str = "software";

/// Share of the time a counter must have run for its scaled value to be shown.
pub const LEAST_RUNNING: f64 = 0.5;

/// Whether an event can be counted, and if not, why. Missing is not zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It counts.
    Ok,
    /// It counted part of the time; the value is scaled.
    Multiplexed,
    /// Opened, but never ran.
    NotScheduled,
    /// No file descriptor is left, or a counter is taken (EMFILE, EBUSY).
    Busy,
    /// This combination is not possible (EINVAL, EOPNOTSUPP).
    NotSupported,
    /// The kernel or a filter forbids it (EACCES, EPERM).
    NoPermission,
    /// There is no such hardware, or the hypervisor hides it (ENOENT).
    NoPmu,
    /// Something else.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "available",
            Status::Multiplexed => "shared with other counters, scaled",
            Status::NoPmu => "no such hardware here (ENOENT)",
            Status::NoPermission => "no permission; see perf_event_paranoid, or a seccomp filter",
            Status::NotSupported => "not supported in this combination",
            Status::Busy => "no counter or descriptor left",
            Status::NotScheduled => "opened, but the kernel never ran it",
            Status::Failed => "refused",
        })
    }
}

impl Status {
    /// The status that an error of `perf_event_open` means.
    pub fn of(error: &io::Error) -> Status {
        use nix::errno::Errno;
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENOSYS) => Status::NoPmu,
            Some(Errno::EACCES | Errno::EPERM) => Status::NoPermission,
            Some(Errno::EINVAL | Errno::EOPNOTSUPP) => Status::NotSupported,
            Some(Errno::EMFILE | Errno::EBUSY) => Status::Busy,
            _ => Status::Failed,
        }
    }
}

/// What one event came to, over all threads.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Value {
    /// Sum of the counts as they were read. Null: none was.
    pub raw: Option<u64>,
    /// Sum of the nanoseconds the group was enabled.
    pub enabled_ns: u64,
    /// Sum of the nanoseconds it ran.
    pub running_ns: u64,
    /// The count had it run all the time. Null: it ran too little to say.
    pub scaled: Option<f64>,
    /// Whether to believe it.
    pub status: Status,
    /// errno of a refusal.
    pub errno: Option<i32>,
}

impl Value {
    fn read(count: u64, enabled_ns: u64, running_ns: u64) -> Value {
        let share = running_ns as f64 / enabled_ns.max(1) as f64;
        let (raw, scaled, status) = match running_ns {
            0 => (None, None, Status::NotScheduled),
            running if running >= enabled_ns => (Some(count), Some(count as f64), Status::Ok),
            _ => (Some(count), (share >= LEAST_RUNNING).then(|| count as f64 / share), Status::Multiplexed),
        };
        Value { raw, enabled_ns, running_ns, scaled, status, errno: None }
    }

    fn refused(error: &io::Error) -> Value {
        let (status, errno) = (Status::of(error), error.raw_os_error());
        Value { raw: None, enabled_ns: 0, running_ns: 0, scaled: None, status, errno }
    }

    /// Both threads' together: the worse status, and no value if one has none.
    fn add(&mut self, other: Value) {
        self.raw = self.raw.zip(other.raw).map(|(a, b)| a + b);
        self.scaled = self.scaled.zip(other.scaled).map(|(a, b)| a + b);
        self.enabled_ns += other.enabled_ns;
        self.running_ns += other.running_ns;
        self.status = self.status.max(other.status);
        self.errno = self.errno.or(other.errno);
    }
}

/// One event of a group.
#[derive(Clone, Copy)]
enum Kind {
    Generic(Hardware),
    Kernel(Software),
    Raw(u64),
}

/// Events of a group, by name, and the sentence each supports.
fn events(group: &str) -> Vec<(&'static str, Kind, &'static str)> {
    if group == SOFTWARE_GROUP {
        return vec![
            ("task-clock", Kind::Kernel(Software::TASK_CLOCK), "nanoseconds on a CPU"),
            (
                "page-faults",
                Kind::Kernel(Software::PAGE_FAULTS),
                "pages touched for the first time, or again after release",
            ),
            ("context-switches", Kind::Kernel(Software::CONTEXT_SWITCHES), "how often threads lost their CPU"),
            ("cpu-migrations", Kind::Kernel(Software::CPU_MIGRATIONS), "how often threads changed their CPU"),
        ];
    }
    let mut events = vec![
        ("cycles", Kind::Generic(Hardware::CPU_CYCLES), "time, whatever the frequency"),
        ("instructions", Kind::Generic(Hardware::INSTRUCTIONS), "length of the path"),
    ];
    if group == "branches" {
        events.push(("branch-misses", Kind::Generic(Hardware::BRANCH_MISSES), "branches that were guessed wrong"));
    }
    let raw = this_processor().map_or(&[][..], |known| known.events);
    let possible = |raw: &&vendor::Raw| raw.group == group && !(raw.beyond && one_last_level());
    events.extend(raw.iter().filter(possible).map(|raw| (raw.name, Kind::Raw(raw.config), raw.supports)));
    events
}

/// Whether all CPUs share one last-level cache, so that nothing can come from another.
fn one_last_level() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    *ONE.get_or_init(|| last_level_caches().is_ok_and(|domains| domains.len() == 1))
}

/// Why there are no transfers to be counted, where the processor counts only those from beyond a last-level cache.
const NONE_POSSIBLE: &str = "none possible: all CPUs share one last-level cache, and what another core beside it had \
                             is not told apart from what the cache had";

/// What is known of this processor, if it is in the table.
pub fn this_processor() -> Option<vendor::Known> {
    static CPUINFO: OnceLock<String> = OnceLock::new();
    vendor::known(CPUINFO.get_or_init(|| std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
}

/// Groups worth counting here: the kernel's, and those of the processor where it lets us.
pub fn groups(hardware: bool) -> Vec<String> {
    let has_more = |group: &&&str| **group == "branches" || events(group).len() > 2;
    let own = HARDWARE_GROUPS.iter().filter(|_| hardware).filter(has_more);
    own.map(|group| (*group).to_owned()).chain([SOFTWARE_GROUP.to_owned()]).collect()
}

/// An event there could be on this processor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// What its count allows to be said.
    pub supports: String,
}

/// Every event there could be on this processor, for the manifest.
pub fn catalogue() -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    for group in HARDWARE_GROUPS.iter().copied().chain([SOFTWARE_GROUP]) {
        for (name, _, supports) in events(group) {
            // Cycles and instructions are in every group of the processor's.
            if !listed.iter().any(|known| known.name == name) {
                listed.push(Listed { name: name.into(), group: group.into(), supports: supports.into() });
            }
        }
    }
    let raw = this_processor().map_or(&[][..], |known| known.events);
    let never = raw.iter().filter(|raw| raw.beyond && one_last_level());
    listed.extend(never.map(|raw| Listed {
        name: raw.name.into(),
        group: raw.group.into(),
        supports: NONE_POSSIBLE.into(),
    }));
    listed
}

/// The group of this process, if it is a sample of the counter pass.
static WANTED: OnceLock<String> = OnceLock::new();
static TOTALS: Mutex<BTreeMap<String, Value>> = Mutex::new(BTreeMap::new());

/// Makes this process count a group. Before any thread starts.
pub fn want(group: &str) {
    WANTED.get_or_init(|| group.to_owned());
}

/// Counters of the calling thread, running.
pub struct Running {
    group: Option<Group>,
    counters: Vec<(&'static str, io::Result<Counter>)>,
    enabled: io::Result<()>,
}

/// Opens and enables the wanted group for the calling thread. None: this is a timing sample.
pub fn start() -> Option<Running> {
    let events: Vec<_> = events(WANTED.get()?).into_iter().map(|(name, kind, _)| (name, kind)).collect();
    Some(Running::open(&events))
}

fn open(group: &mut Group, kind: Kind) -> io::Result<Counter> {
    let mut builder = Builder::new().group(group);
    match kind {
        Kind::Generic(event) => builder = builder.kind(event),
        Kind::Kernel(event) => {
            builder = builder.kind(Event::Software(event));
            // Faults, switches and migrations happen in the kernel, which an ordinary user may not be allowed to count.
            if event != Software::TASK_CLOCK {
                builder.include_kernel();
            }
        }
        Kind::Raw(config) => {
            const PERF_TYPE_RAW: u32 = 4;
            let attributes = builder.attrs_mut();
            (attributes.type_, attributes.config) = (PERF_TYPE_RAW, config);
        }
    }
    builder.build()
}

fn clone(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

impl Running {
    /// A group of the events that the kernel does not refuse. A refused member would leave the library's group with a
    /// wrong size, on which its reading ends the process: so such a group is closed, and opened again without the member.
    fn open(events: &[(&'static str, Kind)]) -> Running {
        let mut refused: Vec<(&'static str, io::Error)> = Vec::new();
        loop {
            let accepted = || events.iter().filter(|(name, _)| refused.iter().all(|(other, _)| other != name));
            let mut counters = Vec::new();
            let attempt = Group::new().map_err(|error| {
                let all = accepted().map(|(name, _)| (*name, clone(&error)));
                all.collect::<Vec<_>>()
            });
            let mut group = match attempt {
                Ok(group) => group,
                Err(all) => {
                    let counters = refused.into_iter().chain(all).map(|(name, error)| (name, Err(error))).collect();
                    return Running { group: None, counters, enabled: Ok(()) };
                }
            };
            let mut failed = None;
            for (name, kind) in accepted() {
                match open(&mut group, *kind) {
                    Ok(counter) => counters.push((*name, Ok(counter))),
                    Err(error) => {
                        failed = Some((*name, error));
                        break;
                    }
                }
            }
            if let Some(failed) = failed {
                refused.push(failed);
                continue;
            }
            let enabled = if counters.is_empty() { Ok(()) } else { group.enable() };
            let group = Some(group).filter(|_| !counters.is_empty());
            counters.extend(refused.into_iter().map(|(name, error)| (name, Err(error))));
            return Running { group, counters, enabled };
        }
    }

    /// Reads the group and adds it to the totals of the process.
    pub fn stop(mut self) {
        let counts = match (&mut self.group, &self.enabled) {
            (Some(group), Ok(())) => group.disable().and_then(|()| group.read()),
            (_, Err(error)) => Err(clone(error)),
            (None, Ok(())) => Err(io::Error::other("not opened")),
        };
        let Ok(mut totals) = TOTALS.lock() else { return };
        for (name, counter) in &self.counters {
            let value = match (counter, &counts) {
                (Err(error), _) | (_, Err(error)) => Value::refused(error),
                (Ok(counter), Ok(counts)) => {
                    Value::read(counts.get(counter).copied().unwrap_or(0), counts.time_enabled(), counts.time_running())
                }
            };
            totals.entry((*name).to_owned()).and_modify(|total| total.add(value)).or_insert(value);
        }
    }
}

/// The name of an event's count per pair, among the metrics of a sample of the counter pass.
pub fn metric(event: &str) -> String {
    format!("{event} per pair")
}

/// What all threads counted.
pub fn totals() -> BTreeMap<String, Value> {
    TOTALS.lock().map(|totals| totals.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_name() {
        let status = |errno| Status::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(status(nix::libc::ENOENT), Status::NoPmu);
        assert_eq!(status(nix::libc::EACCES), Status::NoPermission);
        assert_eq!(status(nix::libc::EPERM), Status::NoPermission);
        assert_eq!(status(nix::libc::EINVAL), Status::NotSupported);
    }

    #[test]
    fn a_counter_that_never_ran_has_no_value_and_one_that_ran_half_is_scaled() {
        assert_eq!(Value::read(0, 1000, 0).raw, None);
        assert_eq!(Value::read(0, 1000, 0).status, Status::NotScheduled);
        assert_eq!(Value::read(10, 1000, 1000).scaled, Some(10.0));
        assert_eq!(Value::read(10, 1000, 500).scaled, Some(20.0));
        let little = Value::read(10, 1000, 400);
        assert_eq!((little.raw, little.scaled, little.status), (Some(10), None, Status::Multiplexed));
    }

    #[test]
    fn the_sum_of_threads_is_no_better_than_its_worst() {
        let mut sum = Value::read(10, 1000, 1000);
        sum.add(Value::read(10, 1000, 500));
        assert_eq!((sum.raw, sum.scaled, sum.status), (Some(20), Some(30.0), Status::Multiplexed));
        sum.add(Value::refused(&io::Error::from_raw_os_error(nix::libc::ENOENT)));
        assert_eq!((sum.raw, sum.scaled, sum.status), (None, None, Status::NoPmu));
    }

    /// The kernel refuses the event in the middle, whoever asks; the others are read.
    #[test]
    fn a_refused_member_has_the_kernels_reason_and_the_others_are_read() {
        let events = [
            ("task-clock", Kind::Kernel(Software::TASK_CLOCK)),
            ("no such event", Kind::Raw(u64::MAX)),
            ("page-faults", Kind::Kernel(Software::PAGE_FAULTS)),
        ];
        let running = Running::open(&events);
        let opened: Vec<_> =
            running.counters.iter().filter(|(_, counter)| counter.is_ok()).map(|(name, _)| *name).collect();
        std::hint::black_box((0..1_000_000u64).map(std::hint::black_box).sum::<u64>());
        running.stop();
        let totals = totals();
        let refused = &totals["no such event"];
        assert!(refused.raw.is_none() && refused.errno.is_some(), "{refused:?}");
        for name in ["task-clock", "page-faults"] {
            let value = &totals[name];
            let errno = value.errno;
            // A host may forbid even these.
            assert_eq!(value.raw.is_some(), opened.contains(&name), "{name}: {value:?}");
            assert_eq!(errno.is_some(), value.raw.is_none(), "{name}: {value:?}");
        }
    }

    /// A group as the counter pass opens it, and one of more events than any processor counts at once, of which the kernel
    /// refuses those that have no counter left. Whatever was counted is a loop of known length.
    #[test]
    fn a_group_of_the_processor_counts_a_loop_of_known_length() {
        let loop_alone = probe::known_loop();
        let Some(share) = loop_alone.value else {
            let why = loop_alone.reason.unwrap_or_default();
            return crate::absence::not_tested("hardware-counters", "counting a loop of known length", why);
        };
        assert!((0.99..=1.01).contains(&share), "{share}");
        let count = |events: &[(&'static str, Kind)]| {
            let running = Running::open(events);
            let per_iteration = probe::spin(probe::ITERATIONS).expect("there is a loop, and it was counted");
            running.stop();
            (probe::ITERATIONS * per_iteration) as f64
        };
        let branches: Vec<_> = events("branches").into_iter().map(|(name, kind, _)| (name, kind)).collect();
        let length = count(&branches);
        let counted = totals()["instructions"];
        let share = counted.scaled.map(|instructions| instructions / length);
        assert!(share.is_some_and(|share| (0.99..=1.01).contains(&share)), "{share:?}: {counted:?}");

        let many = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
        count(&many.map(|name| (name, Kind::Generic(Hardware::INSTRUCTIONS))));
        let totals = totals();
        let (refused, opened): (Vec<_>, Vec<_>) =
            many.map(|name| totals[name]).into_iter().partition(|value| value.errno.is_some());
        assert!(!refused.is_empty() && !opened.is_empty(), "{} refused, {} opened", refused.len(), opened.len());
        for value in opened.iter().filter(|value| value.status == Status::Ok) {
            let share = value.scaled.map(|instructions| instructions / length);
            assert!(share.is_some_and(|share| (0.99..=1.01).contains(&share)), "{share:?}: {value:?}");
        }
        assert!(refused.iter().all(|value| value.raw.is_none()), "{refused:?}");
    }

    #[test]
    fn cycles_and_instructions_are_in_every_group_of_the_processor() {
        for group in HARDWARE_GROUPS {
            let names: Vec<_> = events(group).into_iter().map(|event| event.0).collect();
            assert_eq!(names[..2], ["cycles", "instructions"], "{group}");
        }
        assert_eq!(groups(false), [SOFTWARE_GROUP]);
    }
}
