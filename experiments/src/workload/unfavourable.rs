//! E13: circumstances in which caches of CPUs have little to offer, or should lose.

use super::objects::Sizes;
use super::order::Order;
use super::team::{Member, Team, allowed, pin, thread_ns};
use super::working_set::{Shares, WorkingSet, floor_length};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What is unfavourable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// One thread that may run anywhere.
    One,
    /// Half as many threads as CPUs, which rest often and wake up elsewhere.
    Few,
    /// Four threads for each CPU, all on the first.
    Narrow,
    /// Two threads for each CPU, each busy for 1 ms in 200.
    Intermittent,
}

impl Arm {
    fn of(number: u64) -> Result<Arm, String> {
        match number {
            1 => Ok(Arm::One),
            2 => Ok(Arm::Few),
            3 => Ok(Arm::Narrow),
            4 => Ok(Arm::Intermittent),
            _ => Err(format!("arm {number}: expected 1 to 4")),
        }
    }

    fn threads(self, cpus: usize) -> usize {
        match self {
            Arm::One => 1,
            Arm::Few => (cpus / 2).max(1),
            Arm::Narrow => cpus * 4,
            Arm::Intermittent => cpus * 2,
        }
    }

    /// Work and rest, in turn.
    fn rhythm(self) -> Option<(Duration, Duration)> {
        match self {
            Arm::One | Arm::Narrow => None,
            Arm::Few => Some((Duration::from_millis(1), Duration::from_micros(100))),
            Arm::Intermittent => Some((Duration::from_millis(1), Duration::from_millis(199))),
        }
    }
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let arm = Arm::of(order.get("arm")?)?;
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = order.get("working_set_objects")?.max(1) as usize;
    let cpus = allowed()?;
    let threads = arm.threads(cpus.len());
    let busy_ns = AtomicU64::new(0);
    let (length, shares) = (floor_length(order.measure()?, threads, cpus.len()), Shares::default());
    thread_ns()?;
    let clock = || thread_ns().unwrap_or_default(); // it cannot fail once it has worked

    let member = |member: &Member| {
        let placed = if arm == Arm::Narrow { pin(cpus[0]) } else { Ok(()) };
        let mut set = WorkingSet::new(allocator, order, &sizes, objects, member.number);
        member.meet();
        let floor = set.floor(length, 1, || _ = black_box(Instant::now()));
        member.meet();
        let before = clock();
        let mut since = Instant::now();
        while member.working() && set.run(1) {
            member.count.add(objects as u64);
            let now = Instant::now();
            if let Some((work, rest)) = arm.rhythm()
                && now - since >= work
            {
                std::thread::sleep(rest);
                since = Instant::now();
            }
        }
        let busy = clock() - before;
        busy_ns.fetch_add(busy, Relaxed);
        member.meet();
        member.meet();
        placed?;
        shares.add(set.made() * objects as u64, busy, floor?);
        set.sums()
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team::new(order, threads, 2)?;
    let mut measurement = team.run(member, look)?;
    let ops: u64 = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    measurement.set("cpu_ns_per_pair", busy_ns.into_inner() as f64 / ops.max(1) as f64);
    shares.describe(&mut measurement);
    if arm == Arm::Intermittent {
        measurement.steady = None; // windows are shorter than the rhythm
    }
    Ok(measurement)
}
