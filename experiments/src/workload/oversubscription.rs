//! E02, E03 and E12: threads with a working set each and a think loop between allocating and freeing.

use super::objects::Sizes;
use super::order::Order;
use super::team::thread_ns;
use super::team::{Member, Team, allowed, pin};
use super::working_set::{Shares, WorkingSet, floor_length};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;

/// Rounds between two looks at whether to stop, where nothing is yielded.
const BATCH: u64 = 8;

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = order.get("working_set_objects")?.max(1) as usize;
    let per_yield = order.get("rounds_per_yield")?;
    let batch = if per_yield == 0 { BATCH } else { per_yield };
    let cpus = allowed()?;
    let threads = order.threads(cpus.len())?;
    let pinned = order.parameters.get("pinned").is_some_and(|pinned| *pinned != 0);
    let length = floor_length(order.measure()?, threads, cpus.len());
    let shares = Shares::default();

    let member = |member: &Member| {
        let mut set = WorkingSet::new(allocator, order, &sizes, objects, member.number);
        let placed = if pinned { pin(cpus[member.number % cpus.len()]) } else { Ok(()) };
        let give_way = || {
            if per_yield != 0 {
                std::thread::yield_now();
            }
        };
        member.meet();
        let floor = set.floor(length, batch, give_way);
        member.meet();
        let start = thread_ns();
        while member.working() && set.run(batch) {
            member.count.add(batch * objects as u64);
            give_way();
        }
        let end = thread_ns();
        member.meet();
        member.meet();
        placed?;
        shares.add(set.made() * objects as u64, end? - start?, floor?);
        set.sums()
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team::new(order, threads, 2)?;
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let rate = measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64;
    measurement.set("pairs_per_s", rate);
    measurement.set("pairs_per_s_per_thread", rate / threads as f64);
    shares.describe(&mut measurement);
    Ok(measurement)
}
