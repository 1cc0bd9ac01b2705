//! The work a sample does. Each workload verifies what it did, and counts every allocation it makes.
//!
//! A workload is generic over the allocator, so that the fast path is inlined into it; the harness's own
//! allocations go to the system allocator and never disturb the caches that are measured.

mod churn;
mod control;
mod false_sharing;
mod fast_path;
mod known_answer;
mod latency;
mod life_cycle;
mod marked;
mod migration;
mod objects;
mod order;
mod oversubscription;
mod pattern;
mod phases;
mod plant;
mod remote;
mod replay;
mod signals;
mod stranded_memory;
mod structures;
mod team;
pub mod think;
mod unfavourable;
mod windows;
mod working_set;

pub use order::Order;
pub use pattern::name as of_pattern;
pub use team::allowed;

use crate::harness::turns;
use crate::measurement::Measurement;
use crate::subject::Subject;
use marked::Marked;
use perseq::Perseq;
use std::alloc::{GlobalAlloc, System};
use std::time::Duration;

static PERSEQ: Perseq = Perseq::new();
static SYSTEM: System = System;
static CONTROL: control::Private = control::Private;
static MARKED_PERSEQ: Marked<Perseq> = Marked(&PERSEQ);
static MARKED_SYSTEM: Marked<System> = Marked(&SYSTEM);

/// Copies of the measured loop of the workload called `name`.
pub fn copies(name: &str) -> u64 {
    match name {
        "fast-path" | "migration" | "oversubscription" | "signals" | "unfavourable" => working_set::COPIES,
        _ => 1,
    }
}

/// The turns in which the workload called `name` does what takes so long, if it can work in turns.
pub fn turns(name: &str, measure: Duration) -> Option<u64> {
    matches!(name, "fast-path" | "oversubscription").then(|| turns::count(measure, windows::COUNT))
}

/// Whether there is a workload called `name`.
pub fn exists(name: &str) -> bool {
    find::<Perseq>(name).is_some()
}

/// Runs the workload in this process. An error says what went wrong, for the sample's row.
pub fn run(order: &Order) -> Result<Measurement, String> {
    let unknown = || format!("no workload `{}`", order.workload);
    match order.subject {
        Subject::Perseq(_) => find(&order.workload).ok_or_else(unknown)?(&PERSEQ, order),
        Subject::System => find(&order.workload).ok_or_else(unknown)?(&SYSTEM, order),
        Subject::Control => find(&order.workload).ok_or_else(unknown)?(&CONTROL, order),
    }
}

/// The same with a mark on each object that comes or goes, for the plugin of a simulated machine.
pub fn run_marked(order: &Order) -> Result<Measurement, String> {
    let unknown = || format!("no workload `{}`", order.workload);
    match order.subject {
        Subject::Perseq(_) => find(&order.workload).ok_or_else(unknown)?(&MARKED_PERSEQ, order),
        Subject::System => find(&order.workload).ok_or_else(unknown)?(&MARKED_SYSTEM, order),
        Subject::Control => Err("the objects of the control have no marks".into()),
    }
}

type Workload<A> = fn(&'static A, &Order) -> Result<Measurement, String>;

fn find<A: GlobalAlloc + Sync>(name: &str) -> Option<Workload<A>> {
    match name {
        "churn" => Some(churn::run),
        "false-sharing" => Some(false_sharing::run),
        "fast-path" => Some(fast_path::run),
        "latency" => Some(latency::run),
        "life-cycle" => Some(life_cycle::run),
        "migration" => Some(migration::run),
        "phases" => Some(phases::run),
        "remote" => Some(remote::run),
        "replay" => Some(replay::run),
        "signals" => Some(signals::run),
        "structures" => Some(structures::run),
        "unfavourable" => Some(unfavourable::run),
        "oversubscription" => Some(oversubscription::run),
        "stranded-memory" => Some(stranded_memory::run),
        "known-sleep" => Some(known_answer::sleep),
        "known-objects" => Some(known_answer::objects),
        "known-reuse" => Some(known_answer::reuse),
        "preemption" => Some(known_answer::preemption),
        name => pattern::find(name).map(|_| pattern::run as Workload<A>),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An order with these parameters.
    pub fn order(parameters: &[(&str, u64)]) -> Order {
        Order {
            workload: "a test".into(),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            subject: Subject::System,
            seed: 7,
            layout: 0,
            planted_percent: None,
            turns: None,
            addresses: None,
            links_per_ms: None,
            timed: true,
            counters: None,
            trace_file: None,
        }
    }
}
