//! The child process: one sample, one process, one line of JSON.
//!
//! The order comes on standard input and not as an argument, so that the command line, and with it the
//! start of the stack, is the same for every sample.

use crate::addresses;
use crate::counters;
use crate::failure::Failure;
use crate::harness::answer::answer;
use crate::measurement::Measurement;
use crate::proof::{self, ModeProof};
use crate::subject::Subject;
use crate::totals::Totals;
use crate::workload::{self, Order};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// What a worker reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The mode the allocator says it runs in. Null for the system's malloc.
    pub mode_active: Option<String>,
    /// Why it runs in that mode.
    pub mode_reason: Option<String>,
    /// The counts that prove it.
    pub mode_proof: Option<ModeProof>,
    /// Whether all objects came back as they were signed, and none was left over.
    pub verified: bool,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
    /// User time of the whole process.
    pub cpu_user_ns: Option<u64>,
    /// System time of the whole process.
    pub cpu_sys_ns: Option<u64>,
    /// Largest resident set.
    pub rss_peak_bytes: Option<u64>,
    /// The allocator's totals at the end.
    pub allocator: Option<Totals>,
    /// Why its addresses are not those of its block, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<String>,
    /// What the workload measured.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// Reads an order, does the work and prints the report.
pub fn main() -> Result<(), Failure> {
    answer(work)
}

fn work(order: &Order) -> Result<Report, String> {
    report(order, workload::run)
}

/// Has the work done by `run`, which may do something before it and after it, and reports.
pub fn report(order: &Order, run: impl FnOnce(&Order) -> Result<Measurement, String>) -> Result<Report, String> {
    if let Some(group) = &order.counters {
        counters::want(group);
    }
    let drawn = order.addresses.map(addresses::deal).transpose()?.flatten();
    let mut measurement = run(order)?;
    measurement.counted = counters::totals();
    per_pair(&mut measurement);
    measurement.drop_infinite();
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let mut report = Report {
        mode_active: None,
        mode_reason: None,
        mode_proof: None,
        verified: measurement.checksum == measurement.checksum_expected,
        fault: None,
        cpu_user_ns: usage.map(|usage| usage.user_time().num_nanoseconds() as u64),
        cpu_sys_ns: usage.map(|usage| usage.system_time().num_nanoseconds() as u64),
        rss_peak_bytes: usage.map(|usage| (usage.max_rss() as u64) << 10),
        allocator: None,
        drawn,
        measurement,
    };
    if !report.verified {
        report.fault = Some("checksum differs: an object was lost or had two owners".into());
    }
    if let Subject::Perseq(mode) = order.subject {
        let active = perseq::active_mode();
        report.mode_active = Some(active.active.name().into());
        report.mode_reason = Some(active.reason.to_string());
        let totals = Totals::now();
        let proof = ModeProof::new(mode, &report.measurement, &totals);
        report.fault = report.fault.or_else(|| proof::fault(mode, active, &proof, &report.measurement, &totals));
        report.mode_proof = Some(proof);
        report.allocator = Some(totals);
    }
    Ok(report)
}

/// The counts as metrics like all others, for each object that was allocated. One that has no value is none.
fn per_pair(measurement: &mut Measurement) {
    let pairs = measurement.ops_alloc.max(1) as f64;
    let counts: Vec<_> =
        measurement.counted.iter().filter_map(|(name, value)| Some((name.clone(), value.scaled?))).collect();
    for (name, count) in counts {
        measurement.set(&counters::metric(&name), count / pairs);
    }
}
