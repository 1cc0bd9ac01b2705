//! E03: threads with a working set each and a think loop between allocating and freeing.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::team::{Member, Team, allowed};
use super::{Cache, Measurement, Order};
use std::alloc::GlobalAlloc;
use std::hint::spin_loop;
use std::ptr::null_mut;

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = order.get("working_set_objects")?.max(1) as usize;
    let (spins, per_yield) = (order.get("think_spins")?, order.get("rounds_per_yield")?.max(1));
    let threads = allowed()?.len() * order.get("threads_per_cpu")? as usize;

    let member = |member: &Member| {
        let mut slots = vec![null_mut(); objects];
        let (mut sums, mut round, mut full) = (Sums::default(), 0, true);
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
            if round % per_yield == 0 {
                std::thread::yield_now();
            }
        }
        member.meet();
        member.meet();
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all();
        let cached: u64 = measurement.caches.iter().map(|cache| cache.cached_bytes).sum();
        measurement.set("cached_bytes", cached as f64);
    };
    let team = Team { threads, meetings: 1, measure: order.measure()?, subject: order.subject };
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    measurement.set("pairs_per_s", measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64);
    Ok(measurement)
}
