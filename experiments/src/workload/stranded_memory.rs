//! E04: threads fill their caches; all but one per CPU go to sleep; the caches are read.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::team::{Member, Team, allowed, pin};
use crate::measurement::{Cache, Measurement};
use crate::memory;
use crate::subject::Subject;
use perseq::Owner;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeSet;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = sizes.objects_for(order.get("fill_bytes")?);
    let fill_rounds = order.get("fill_rounds")?.max(1);
    let working_set = (order.get("working_set_objects")? as usize).clamp(1, objects);
    let rounds_per_fill = order.get("rounds_per_fill")?.max(1);
    let cpus = allowed()?;
    let threads = cpus.len() * order.get("threads_per_cpu")? as usize;
    let active_threads = Mutex::new(BTreeSet::new());
    let ops = AtomicU64::new(0);

    let member = |member: &Member| {
        let mut slots = vec![null_mut(); objects];
        let mut sums = Sums::default();
        // One object each, so that every thread has its cache, and its share of the total, before any fills it.
        let tag = signature(order.seed, member.number as u64, u64::MAX);
        let mut filled = fill(allocator, &sizes, &mut slots[..1], tag);
        let (mut done, mut round) = (0, 0);
        if filled {
            sums.add(empty(allocator, &sizes, &mut slots[..1], tag));
            done += 1;
        }
        member.meet();
        while filled && round < fill_rounds {
            let tag = signature(order.seed, member.number as u64, round);
            round += 1;
            filled = fill(allocator, &sizes, &mut slots, tag);
            if round == fill_rounds || !filled {
                member.meet(); // all threads hold all their objects
            }
            if filled {
                sums.add(empty(allocator, &sizes, &mut slots, tag));
                done += objects as u64;
            }
        }
        let active = member.number < cpus.len();
        let pinned = if active { pin(cpus[member.number]) } else { Ok(()) };
        if active && let Ok(mut threads) = active_threads.lock() {
            threads.insert(nix::unistd::gettid().as_raw() as u32);
        }
        member.meet(); // all caches are full; the sleepers' next meeting is the end
        let mut full = filled;
        while active && full && member.working() {
            round += 1;
            let tag = signature(order.seed, member.number as u64, round);
            // Now and then as much as at first, so that it misses: what is done about idle caches is done at a miss.
            let held = if round % rounds_per_fill == 0 { objects } else { working_set };
            full = fill(allocator, &sizes, &mut slots[..held], tag);
            if full {
                sums.add(empty(allocator, &sizes, &mut slots[..held], tag));
                member.count.add(held as u64);
                done += held as u64;
            }
        }
        ops.fetch_add(done, Relaxed);
        member.meet();
        member.meet();
        pinned?;
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        let active = active_threads.lock().map(|set| set.clone()).unwrap_or_default();
        describe(measurement, order.subject, &cpus, &active);
        release(allocator, order.subject, measurement);
    };
    let team = Team::new(order, threads, 3)?;
    let mut measurement = team.run(member, look)?;
    let (ops, released) = (ops.into_inner(), measurement.large_ops / 2);
    (measurement.ops_alloc, measurement.ops_free) = (ops + released, ops + released);
    Ok(measurement)
}

/// Reads the resident set again after free pages went back to the kernel. Caches keep what they hold.
fn release<A: GlobalAlloc>(allocator: &A, subject: Subject, measurement: &mut Measurement) {
    const METRIC: &str = "rss_after_release_bytes";
    match subject {
        Subject::Perseq(_) => {
            perseq::set_release(perseq::ReleasePolicy::Now);
            // A large block that is freed has the page heap look at what is due.
            let block = Layout::new::<[u8; 1 << 20]>();
            // SAFETY: the layout has a size.
            let large = unsafe { allocator.alloc(block) };
            if large.is_null() {
                return measurement.lack(METRIC, "no memory for a large block");
            }
            // SAFETY: just allocated, with this layout.
            unsafe { allocator.dealloc(large, block) };
            measurement.large_ops += 2;
        }
        Subject::System => {
            // SAFETY: touches free memory of the C library only.
            unsafe { nix::libc::malloc_trim(0) };
        }
        Subject::Control => return measurement.lack(METRIC, UNREPORTED),
    }
    match memory::resident_bytes() {
        Ok((rss, _)) => measurement.set(METRIC, rss as f64),
        Err(reason) => measurement.lack(METRIC, &reason),
    }
}

const UNREPORTED: &str = "only perseq reports its caches";

/// Who holds what, and what the kernel says of the process, at one quiet moment.
fn describe(measurement: &mut Measurement, subject: Subject, cpus: &[usize], active: &BTreeSet<u32>) {
    let caches = measurement.caches.clone();
    let sum = |chosen: &dyn Fn(&Cache) -> bool| -> f64 {
        caches.iter().filter(|cache| chosen(cache)).map(|cache| cache.cached_bytes).sum::<u64>() as f64
    };
    measurement.set("cached_bytes", sum(&|_| true));
    if let Subject::Perseq(_) = subject {
        measurement.set("cached_bytes_by_total", perseq::stats().cached_bytes as f64);
    }
    measurement.set("caches_touched", caches.iter().filter(|cache| cache.touched()).count() as f64);
    match subject {
        Subject::Perseq(mode) => match mode.owner(0) {
            // Active thread number i is pinned to the i-th allowed CPU, so these are the CPUs it can reach.
            Some(Owner::Cpu(_)) => {
                measurement.set("stranded_bytes", sum(&|cache| !cpus.contains(&(cache.id as usize))));
            }
            Some(Owner::Thread(_)) => measurement.set("stranded_bytes", sum(&|cache| !active.contains(&cache.id))),
            None => measurement.set("stranded_bytes", sum(&|_| true)),
            Some(Owner::Cid(_)) => measurement.lack("stranded_bytes", "a concurrency id has no lasting owner"),
            Some(_) => measurement.lack("stranded_bytes", "which threads share a slot is not reported"),
        },
        Subject::System | Subject::Control => measurement.lack("stranded_bytes", UNREPORTED),
    }
    if !matches!(subject, Subject::Perseq(_)) {
        for metric in ["cached_bytes", "caches_touched"] {
            measurement.metrics.remove(metric);
            measurement.lack(metric, UNREPORTED);
        }
    }
    measurement.set_resident();
}
