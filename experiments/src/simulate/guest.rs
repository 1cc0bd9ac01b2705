//! Inside the guest: this binary is the only process, started by the kernel as `/init`.

use crate::host::cpu::last_level_caches;
use crate::live::find::allocators;
use crate::live::process::Process;
use crate::live::ranges::ranges;
use crate::marks;
use crate::peers::probe;
use crate::worker;
use crate::workload::{self, Order};
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_setaffinity, sched_yield};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Where the image has the order.
pub const ORDER: &str = "order.json";
/// What a guest is told.
#[derive(Serialize, Deserialize)]
pub struct Told {
    /// The work.
    pub order: Order,
    /// Groups of CPUs with a last-level cache each.
    pub llc_groups: usize,
    /// CPUs that the work may use, the first ones.
    pub process_cpus: usize,
    /// How long a thread may run while others wait, by the guest's clock.
    pub slice_ns: u64,
    /// Whether each object is marked as it comes and goes.
    #[serde(default)]
    pub objects: bool,
    /// The allocator that must be active. Null: the work names it.
    pub preloaded: Option<Preloaded>,
}

/// An allocator that the guest's loader preloads.
#[derive(Serialize, Deserialize)]
pub struct Preloaded {
    /// Its library in the guest. Null: the C library.
    pub library: Option<PathBuf>,
    /// The mode it must be in, if it is libperseq.
    pub mode: Option<String>,
}

/// What a guest reports.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    /// What a worker reports.
    pub worker: worker::Report,
    /// What it told of the allocator's metadata.
    pub metadata: Metadata,
}

/// Where the metadata of the allocator lies, as far as it says so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Ranges of addresses that were told.
    pub ranges: usize,
    /// Bytes of each tier. Empty: it does not say where they are.
    pub bytes: BTreeMap<String, u64>,
}

/// What the line with the report begins with.
pub const REPORT: &str = "PERSEQ-REPORT ";
/// What the line with a failure begins with.
pub const FAILURE: &str = "PERSEQ-FAILURE ";
/// Stores of the self-test on each CPU.
pub const TESTS: u64 = 64;

/// If this process is the guest's first one: does its work and switches the guest off.
pub fn if_first() {
    if std::process::id() != 1 || std::env::args().next().as_deref() != Some("/init") {
        return;
    }
    let line = match work() {
        Ok(report) => format!("{REPORT}{report}"),
        Err(reason) => format!("{FAILURE}{}", reason.replace('\n', " ")),
    };
    // The host finds no report if the console cannot be written.
    drop(writeln!(std::io::stdout(), "\n{line}"));
    drop(std::io::stdout().flush());
    // SAFETY: waits until the console has sent everything, and touches no memory.
    unsafe { nix::libc::tcdrain(1) };
    // A guest that stays on is ended by its deadline.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn work() -> Result<String, String> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>).map_err(|error| format!("{at}: {error}"))?;
    }
    let text = std::fs::read_to_string(format!("/{ORDER}")).map_err(|error| format!("/{ORDER}: {error}"))?;
    let told: Told = serde_json::from_str(&text).map_err(|error| format!("/{ORDER}: {error}"))?;
    lengthen_slices(told.slice_ns)?;
    let cpus = std::thread::available_parallelism().map_err(|error| format!("CPUs: {error}"))?.get();
    let (groups, expected) = (last_level_caches()?, groups(cpus, told.llc_groups));
    if groups != expected {
        return Err(format!("last-level caches of CPUs {groups:?}; the model has {expected:?}"));
    }
    let kept = disturb(told.order.seed);
    marks::look();
    test_attribution(cpus)?;
    stay_on(&(0..told.process_cpus).collect::<Vec<_>>())?;
    let run = if told.objects { workload::run_marked } else { workload::run };
    let mut report = worker::report(&told.order, |order| {
        marks::start();
        let measured = run(order);
        marks::stop();
        measured
    })?;
    if let Some(preloaded) = &told.preloaded {
        let active = probe::look();
        let fault = active.fault(preloaded.library.as_deref(), preloaded.mode.as_deref());
        report.fault = report.fault.or(fault);
        report.mode_active = active.perseq_mode;
    }
    // At rest, and nothing is counted any more.
    let metadata = tell()?;
    drop(kept);
    serde_json::to_string(&Answer { worker: report, metadata }).map_err(|error| error.to_string())
}

/// CPUs of each last-level cache of the model, as the kernel would write them.
fn groups(cpus: usize, groups: usize) -> Vec<String> {
    let together = cpus / groups;
    let list = |first: usize| match together {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + together - 1),
    };
    (0..groups).map(|group| list(group * together)).collect()
}

/// Tells the plugin where the metadata of this process's allocators lies.
fn tell() -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    let own = Process::new(std::process::id() as i32).map_err(|failure| failure.to_string())?;
    for allocator in allocators(&own).map_err(|failure| failure.to_string())? {
        let found = ranges(&own, &allocator).map_err(|why| format!("metadata of {}: {why}", allocator.file))?;
        for range in found.unwrap_or_default() {
            // SAFETY: metadata of an allocator is never unmapped.
            unsafe { marks::tell(range.tier, range.first, range.first + range.bytes - 1) };
            metadata.ranges += 1;
            *metadata.bytes.entry(marks::TIERS[range.tier].to_owned()).or_default() += range.bytes;
        }
    }
    Ok(metadata)
}

/// Has the scheduler let a thread run for as many instructions as it would on a processor: the guest's clock makes a usual
/// slice some hundred times shorter.
fn lengthen_slices(slice_ns: u64) -> Result<(), String> {
    const AT: &str = "/sys/kernel/debug";
    mount(Some("debugfs"), AT, Some("debugfs"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("{AT}: {error}"))?;
    let path = format!("{AT}/sched/base_slice_ns");
    std::fs::write(&path, slice_ns.to_string()).map_err(|error| format!("{path}: {error}"))
}

/// Another seed has other pages and other moments at which the kernel looks at its threads.
fn disturb(seed: u64) -> Vec<u8> {
    let pages = seed % 61;
    let instructions = seed / 61 % 100_003;
    (0..instructions).for_each(|turn| drop(std::hint::black_box(turn.to_string())));
    vec![1; 4096 * pages as usize]
}

/// Has this thread, and all that it starts, run on these CPUs only.
pub fn stay_on(cpus: &[usize]) -> Result<(), String> {
    let mut allowed = CpuSet::new();
    let set = cpus.iter().try_for_each(|cpu| allowed.set(*cpu));
    set.and_then(|()| sched_setaffinity(Pid::from_raw(0), &allowed)).map_err(|error| format!("CPUs {cpus:?}: {error}"))
}

/// A page whose lines stand for CPUs.
#[repr(align(4096))]
struct Page([u64; 512]);

/// Stores from each CPU in turn, for the plugin to compare. The thread stays on the last one.
fn test_attribution(cpus: usize) -> Result<(), String> {
    let mut page = Box::new(Page([0; 512]));
    for round in 0..TESTS {
        for cpu in 0..cpus {
            stay_on(&[cpu])?;
            marks::test(&mut page.0[8 * cpu], round);
        }
        sched_yield().map_err(|error| format!("sched_yield: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_as_the_kernel_names_them() {
        assert_eq!(groups(8, 1), ["0-7"]);
        assert_eq!(groups(16, 2), ["0-7", "8-15"]);
        assert_eq!(groups(4, 4), ["0", "1", "2", "3"]);
    }
}
