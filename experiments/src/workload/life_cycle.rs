//! E16: the first allocation of a process, of a thread and of a forked child, and memory at rest.

use super::objects::{Sizes, Sums, create, destroy, words};
use super::order::Order;
use crate::measurement::{Cache, Measurement};
use crate::memory::statm_bytes;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use perseq_statistics::median;
use std::alloc::{GlobalAlloc, Layout};
use std::io::{Read, Write};
use std::time::Instant;

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let begin = Instant::now();
    let (threads, forks) = (order.get("lives")?.max(1), order.get("forks")?.max(1));
    let sizes = Sizes::powers(16, 8192)?;
    let mut all = Sums::default();
    let mut pairs = 0;
    let mut pair = |layout: Layout, word: u64| -> Result<f64, String> {
        let (ns, sums) = timed_pair(allocator, layout, word).ok_or("the allocator returned null")?;
        all.add(sums);
        pairs += 1;
        Ok(ns)
    };
    // The very first one of this process: nothing before it allocated through the subject.
    let first = pair(sizes.layout(2), order.seed)?;
    let of_class: Vec<_> = (3..9).map(|class| pair(sizes.layout(class), class as u64)).collect::<Result<_, _>>()?;
    let warm: Vec<_> = (0..1000).map(|word| pair(sizes.layout(2), word)).collect::<Result<_, _>>()?;

    let (mut lives, mut thread_firsts) = (Vec::new(), Vec::new());
    for word in 0..threads {
        let start = Instant::now();
        let body = || timed_pair(allocator, sizes.layout(2), word);
        let result = std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, body);
            spawned.map_err(|error| format!("a thread: {error}"))?.join().map_err(|_| "a thread panicked".to_owned())
        })?;
        lives.push(start.elapsed().as_nanos() as f64 / 1000.0);
        let (ns, sums) = result.ok_or("the allocator returned null")?;
        thread_firsts.push(ns);
        all.add(sums);
        pairs += 1;
    }
    let children: Vec<_> = (0..forks).map(|word| child(allocator, sizes.layout(2), word)).collect::<Result<_, _>>()?;

    let mut measurement = Measurement { threads: 1, ops_alloc: pairs, ops_free: pairs, ..Measurement::default() };
    (measurement.checksum, measurement.checksum_expected) = (all.found, all.expected);
    (measurement.pairs, measurement.wall_ns) = (pairs, begin.elapsed().as_nanos() as u64);
    measurement.caches = Cache::all(order.subject);
    measurement.set("first_pair_ns", first);
    for (name, mut values) in [
        ("class_first_pair_ns", of_class),
        ("warm_pair_ns", warm),
        ("thread_life_us", lives),
        ("thread_first_pair_ns", thread_firsts),
        ("fork_child_first_pair_ns", children),
    ] {
        measurement.set(name, median(&mut values));
    }
    let (mapped, resident) = statm_bytes()?;
    measurement.set("mapped_bytes", mapped as f64);
    measurement.set("rss_bytes", resident as f64);
    Ok(measurement)
}

/// Nanoseconds of allocating, signing, checking and freeing one object.
fn timed_pair<A: GlobalAlloc>(allocator: &A, layout: Layout, word: u64) -> Option<(f64, Sums)> {
    let start = Instant::now();
    let object = create(allocator, layout, word)?;
    // SAFETY: just created, and ours.
    let found = unsafe { destroy(allocator, layout, object) };
    Some((start.elapsed().as_nanos() as f64, Sums { found, expected: words(word) }))
}

/// The same in a forked child, which says how long it took or dies.
fn child<A: GlobalAlloc>(allocator: &A, layout: Layout, word: u64) -> Result<f64, String> {
    let (mut reader, mut writer) = std::io::pipe().map_err(|error| format!("pipe: {error}"))?;
    // SAFETY: this process has one thread now; the child writes to a pipe and leaves without destructors.
    match unsafe { fork() }.map_err(|error| format!("fork: {error}"))? {
        ForkResult::Child => {
            let good = timed_pair(allocator, layout, word).filter(|(_, sums)| sums.found == sums.expected);
            let written = good.is_some_and(|(ns, _)| writer.write_all(&ns.to_ne_bytes()).is_ok());
            // SAFETY: ends the child at once; its parent's destructors are not its own.
            unsafe { nix::libc::_exit(i32::from(!written)) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut bytes = [0; 8];
            let read = reader.read_exact(&mut bytes);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) if read.is_ok() => Ok(f64::from_ne_bytes(bytes)),
                Ok(status) => Err(format!("a forked child could not allocate: {status:?}")),
                Err(error) => Err(format!("waitpid: {error}")),
            }
        }
    }
}
