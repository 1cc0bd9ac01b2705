//! The child process of the suite: one pattern on whatever is preloaded, one line of JSON.

use crate::failure::Failure;
use crate::harness::answer::answer;
use crate::pattern::{self, Setting};
use crate::peers::probe;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// What a worker is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Name of the pattern.
    pub pattern: String,
    /// Threads of a pattern that has several.
    pub threads: usize,
    /// How many of them share a CPU.
    pub per_cpu: u64,
    /// Amount of work, 100 in the standard profile.
    pub percent: u64,
    /// Seed of every size and choice.
    pub seed: u64,
    /// The library that must be active. Null: the C library.
    pub library: Option<PathBuf>,
    /// The mode libperseq must be in.
    pub mode: Option<String>,
}

/// What it reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What contradicts the claim that the allocator asked for was measured, or that its work was right.
    pub fault: Option<String>,
    /// Whether every object came back as it was written.
    pub verified: bool,
    /// Sum of the words read back.
    pub checksum: u64,
    /// Sum of the words written.
    pub checksum_expected: u64,
    /// Blocks allocated or resized.
    pub operations: u64,
    /// The pattern, from before its first thread to after its last.
    pub wall_ns: u64,
    /// User time of the pattern.
    pub cpu_user_ns: u64,
    /// System time of the pattern.
    pub cpu_sys_ns: u64,
    /// Page faults of the pattern that needed no disk.
    pub minor_faults: i64,
    /// Resident set before the pattern: the program itself and what the allocator takes at its start.
    pub rss_before_bytes: u64,
    /// Largest resident set from then on.
    pub rss_peak_bytes: u64,
    /// What libperseq says of its mode.
    pub mode_active: Option<String>,
}

/// `perseq suite-worker`.
pub fn main() -> Result<(), Failure> {
    answer(work)
}

fn work(order: &Order) -> Result<Report, String> {
    let pattern = pattern::find(&order.pattern).ok_or_else(|| format!("no pattern `{}`", order.pattern))?;
    let active = probe::look();
    if let Some(fault) = active.fault(order.library.as_deref(), order.mode.as_deref()) {
        return Err(fault);
    }
    let setting =
        Setting { threads: order.threads.max(1), per_cpu: order.per_cpu, percent: order.percent, seed: order.seed };
    // From here on the kernel's high-water mark counts anew, so that start-up does not hide a small pattern.
    // Where this is not allowed, the mark before the pattern is its floor.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    let rss_before_bytes = memory("VmHWM:")?;
    let usage = || getrusage(UsageWho::RUSAGE_SELF).map_err(|error| format!("getrusage: {error}"));
    let (before, start) = (usage()?, Instant::now());
    let outcome = pattern.run(&setting);
    let (wall, after) = (start.elapsed(), usage()?);
    let verified = outcome.found == outcome.expected;
    Ok(Report {
        fault: (!verified).then(|| "checksum differs: an object was lost or had two owners".into()),
        verified,
        checksum: outcome.found,
        checksum_expected: outcome.expected,
        operations: outcome.operations,
        wall_ns: wall.as_nanos() as u64,
        cpu_user_ns: (after.user_time() - before.user_time()).num_nanoseconds() as u64,
        cpu_sys_ns: (after.system_time() - before.system_time()).num_nanoseconds() as u64,
        minor_faults: after.minor_page_faults() - before.minor_page_faults(),
        rss_before_bytes,
        rss_peak_bytes: memory("VmHWM:")?,
        mode_active: active.perseq_mode,
    })
}

/// A size from `/proc/self/status`.
fn memory(field: &str) -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| format!("/proc/self/status has no {field}"))
}
