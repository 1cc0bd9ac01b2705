//! E07: threads that are moved to the next CPU at a fixed rate, all at once, so that each CPU always has one.

use super::objects::Sizes;
use super::order::Order;
use super::team::thread_ns;
use super::team::{Member, Team, allowed, pin};
use super::working_set::{Shares, WorkingSet, floor_length};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(64, 64)?;
    let lines = order.get("lines")?.max(1) as usize;
    let period = match order.get("moves_per_s")? {
        0 => None,
        rate => Some(Duration::from_secs_f64(1.0 / rate as f64)),
    };
    let cpus = allowed()?;
    let (moves, shares) = (AtomicU64::new(0), Shares::default());
    let length = floor_length(order.measure()?, cpus.len(), cpus.len());

    let member = |member: &Member| {
        let mut set = WorkingSet::new(allocator, order, &sizes, lines, member.number);
        let (mut moved, mut place) = (0u64, member.number);
        let mut pinned = pin(cpus[place]);
        member.meet();
        let floor = set.floor(length, 1, || _ = black_box(Instant::now()));
        member.meet();
        let start = thread_ns();
        let mut due = period.map(|period| Instant::now() + period);
        while member.working() && set.run(1) {
            member.count.add(lines as u64);
            // Read in every arm, so that it costs every arm the same.
            let now = Instant::now();
            if let (Some(at), Some(period)) = (due, period)
                && now >= at
            {
                place = (place + 1) % cpus.len();
                pinned = pinned.and(pin(cpus[place]));
                moved += 1;
                due = Some((at + period).max(now));
            }
        }
        let end = thread_ns();
        moves.fetch_add(moved, Relaxed);
        member.meet();
        member.meet();
        pinned?;
        shares.add(set.made() * lines as u64, end? - start?, floor?);
        set.sums()
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team::new(order, cpus.len(), 2)?;
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let threads = cpus.len() as f64;
    measurement.set("ns_per_pair", measurement.wall_ns as f64 * threads / measurement.pairs as f64);
    shares.describe(&mut measurement);
    let life = (measurement.wall_ns + measurement.warmup_ns) as f64 / 1e9;
    measurement.set("moves_per_s_per_thread", moves.into_inner() as f64 / life / threads);
    Ok(measurement)
}
