//! Workloads whose right answer is known beforehand. `perseq selftest` runs them, and a test of simulated machines one.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::team::{Member, Team, allowed, pin};
use super::windows::{self, Window};
use crate::marks;
use crate::measurement::{Cache, Measurement};
use crate::subject::Subject;
use std::alloc::GlobalAlloc;
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// Sleeps for `measure_ms` through the path that times everything else.
pub fn sleep<A: GlobalAlloc>(_: &'static A, order: &Order) -> Result<Measurement, String> {
    let start = Instant::now();
    std::thread::sleep(order.measure()?);
    let mut measurement = Measurement { threads: 1, ..Measurement::default() };
    windows::record(&mut measurement, &[Window { pairs: 0, wall: start.elapsed() }]);
    Ok(measurement)
}

/// One pinned thread frees a known number of objects of one size into its cache and then does nothing.
///
/// What its caches gained, plus what they gave back on the way, must be those objects exactly. The metrics
/// are the two sides of that equation.
pub fn objects<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let size = order.get("size_bytes")?;
    let sizes = Sizes::powers(size, size)?;
    let count = order.get("objects")?;
    let Subject::Perseq(_) = order.subject else {
        return Err("libc does not report its caches".into());
    };
    let cpu = allowed()?[0];
    let mut measurement = Measurement { threads: 1, ops_alloc: count, ops_free: count, ..Measurement::default() };
    let ((held, freed), (sums, caches)) = std::thread::scope(|scope| {
        let body = move || -> Result<_, String> {
            pin(cpu)?;
            let mut slots = vec![null_mut(); count as usize];
            let tag = signature(order.seed, 0, 0);
            if !fill(allocator, &sizes, &mut slots, tag) {
                return Err("the allocator returned null".into());
            }
            let held = perseq::stats();
            let sums = empty(allocator, &sizes, &mut slots, tag);
            // Read while this thread is alive: a per-thread cache is flushed when its thread exits.
            Ok(((held, perseq::stats()), (sums, Cache::all(order.subject))))
        };
        scope.spawn(body).join().map_err(|_| "the thread panicked".to_owned())?
    })?;
    (measurement.checksum, measurement.checksum_expected) = (sums.found, sums.expected);
    let sum: u64 = caches.iter().map(|cache| cache.cached_bytes).sum();
    measurement.caches = caches;
    let gained = freed.cached_objects as f64 - held.cached_objects as f64;
    measurement.set("gained_objects", gained);
    measurement.set("flushed_objects", freed.flushed_objects as f64 - held.flushed_objects as f64);
    measurement.set("refilled_objects", freed.refilled_objects as f64 - held.refilled_objects as f64);
    measurement.set("freed_objects", count as f64);
    measurement.set("gained_bytes", freed.cached_bytes as f64 - held.cached_bytes as f64);
    measurement.set("cached_bytes_by_cache", sum as f64);
    measurement.set("cached_bytes_by_total", freed.cached_bytes as f64);
    measurement.set("live_bytes_while_held", held.live_small_bytes as f64);
    Ok(measurement)
}

/// Objects of its own, marked as if an allocator handed them out: what `perseq simulate --objects` must find of them.
///
/// By `pattern`: 0, the one that came back last, after a working set of `objects` lines; 1, the one of `objects` that came back
/// first; 2, one that two threads on two CPUs hand each other, each of which looks at it before it is handed it.
pub fn reuse<A: GlobalAlloc>(_: &'static A, order: &Order) -> Result<Measurement, String> {
    let (pattern, count, turns) = (order.get("pattern")?, order.get("objects")? as usize, order.get("turns")?);
    let (threads, cpus) = (if pattern == 2 { 2 } else { 1 }, allowed()?);
    let lines: Vec<_> = (0..count + 1).map(|_| Line(AtomicU64::new(0), UnsafeCell::new(0))).collect();
    let turn = AtomicU64::new(0);
    let work = |number: u64| -> Result<(), String> {
        pin(cpus[number as usize % cpus.len()])?;
        match pattern {
            0 => (0..turns).for_each(|_| {
                lines[count].marked(|| lines[..count].iter().for_each(Line::write));
            }),
            1 => (0..turns).for_each(|_| lines[..count].iter().for_each(|line| line.marked(|| ()))),
            _ => (0..turns).filter(|at| at % threads == number).for_each(|at| {
                while turn.load(Acquire) != at {
                    std::thread::yield_now();
                }
                lines[0].write();
                lines[0].marked(|| ());
                turn.store(at + 1, Release); // pairs with the load of the other thread
            }),
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        ended.collect::<Result<(), String>>()
    })?;
    let pairs = if pattern == 1 { turns * count as u64 } else { turns };
    let written = lines.iter().map(|line| line.0.load(Relaxed)).sum();
    let more = [turns * count as u64, 0, turns].get(pattern as usize).copied().unwrap_or(0);
    let (checksum, checksum_expected) = (written, pairs + more);
    Ok(Measurement {
        threads,
        pairs,
        ops_alloc: pairs,
        ops_free: pairs,
        checksum,
        checksum_expected,
        ..Measurement::default()
    })
}

/// A line of its own: a count, and a byte to mark.
#[repr(align(64))]
struct Line(AtomicU64, UnsafeCell<u8>);

// SAFETY: the byte is stored to and loaded by marks alone, by one thread at a time.
unsafe impl Sync for Line {}

impl Line {
    fn write(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed); // one thread at a time
    }

    /// Is handed out, written, and given back when something else was done.
    fn marked(&self, then: impl Fn()) {
        // SAFETY: the byte is there for that.
        unsafe { marks::hand_out(self.1.get()) };
        self.write();
        then();
        // SAFETY: as above.
        unsafe { marks::give_back(self.1.get()) };
    }
}

/// Many threads on one CPU, and others that keep waking up there, so that the kernel preempts at any instruction.
///
/// The sums show an object handed out twice; the allocator's own totals show one that was lost.
pub fn preemption<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(64, 64)?;
    let (threads, disturbers) = (order.get("threads")? as usize, order.get("disturbers")? as usize);
    let cpu = allowed()?[0];
    let member = |member: &Member| {
        let pinned = pin(cpu);
        let (mut slots, mut sums, mut round, mut full) = ([null_mut(); 8], Sums::default(), 0, true);
        member.meet();
        if member.number < disturbers {
            while member.working() {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        while member.number >= disturbers && member.working() && full {
            round += 1;
            let tag = signature(order.seed, member.number as u64, round);
            full = fill(allocator, &sizes, &mut slots, tag);
            if full {
                sums.add(empty(allocator, &sizes, &mut slots, tag));
                member.count.add(slots.len() as u64);
            }
        }
        member.meet();
        member.meet();
        pinned?;
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team::new(order, threads + disturbers, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let stats = perseq::stats();
    measurement.set("restarts", stats.restarts as f64);
    measurement.set("live_small_bytes", stats.live_small_bytes as f64);
    Ok(measurement)
}
