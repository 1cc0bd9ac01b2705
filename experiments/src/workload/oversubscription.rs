//! E02, E03 and E12: threads with a working set each and a think loop between allocating and freeing.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::team::{Member, Team, allowed, pin};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;
use std::hint::spin_loop;
use std::ptr::null_mut;

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = order.get("working_set_objects")?.max(1) as usize;
    let (spins, per_yield) = (order.get("think_spins")?, order.get("rounds_per_yield")?);
    let cpus = allowed()?;
    let threads = order.threads(cpus.len())?;
    let pinned = order.parameters.get("pinned").is_some_and(|pinned| *pinned != 0);

    let member = |member: &Member| {
        let mut slots = vec![null_mut(); objects];
        let (mut sums, mut round, mut full) = (Sums::default(), 0, true);
        let placed = if pinned { pin(cpus[member.number % cpus.len()]) } else { Ok(()) };
        member.meet();
        while member.working() && full {
            round += 1;
            let signature = signature(order.seed, member.number as u64, round);
            full = fill(allocator, &sizes, &mut slots, signature);
            if full {
                (0..spins).for_each(|_| spin_loop());
                sums.add(empty(allocator, &sizes, &mut slots, signature));
                member.count.add(objects as u64);
            }
            if per_yield != 0 && round % per_yield == 0 {
                std::thread::yield_now();
            }
        }
        member.meet();
        member.meet();
        placed?;
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team { threads, meetings: 1, measure: order.measure()?, subject: order.subject };
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let rate = measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64;
    measurement.set("pairs_per_s", rate);
    measurement.set("pairs_per_s_per_thread", rate / threads as f64);
    Ok(measurement)
}
