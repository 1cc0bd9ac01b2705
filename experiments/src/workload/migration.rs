//! E07: threads that are moved to the next CPU at a fixed rate, all at once, so that each CPU always has one.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::team::{Member, Team, allowed, pin};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;
use std::ptr::null_mut;
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
    let moves = AtomicU64::new(0);

    let member = |member: &Member| {
        let mut slots = vec![null_mut(); lines];
        let (mut sums, mut round, mut full, mut moved) = (Sums::default(), 0, true, 0u64);
        let mut place = member.number;
        let mut pinned = pin(cpus[place]);
        member.meet();
        let mut due = period.map(|period| Instant::now() + period);
        while member.working() && full {
            round += 1;
            let tag = signature(order.seed, member.number as u64, round);
            full = fill(allocator, &sizes, &mut slots, tag);
            if full {
                sums.add(empty(allocator, &sizes, &mut slots, tag));
                member.count.add(lines as u64);
            }
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
        moves.fetch_add(moved, Relaxed);
        member.meet();
        member.meet();
        pinned?;
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team { threads: cpus.len(), meetings: 1, measure: order.measure()?, subject: order.subject };
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let threads = cpus.len() as f64;
    measurement.set("ns_per_pair", measurement.wall_ns as f64 * threads / measurement.pairs as f64);
    let life = (measurement.wall_ns + measurement.warmup_ns) as f64 / 1e9;
    measurement.set("moves_per_s_per_thread", moves.into_inner() as f64 / life / threads);
    Ok(measurement)
}
