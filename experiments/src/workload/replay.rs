//! E15: threads that repeat a trace, each its own part, as fast as they can, again and again.

use super::objects::{Sums, create, destroy, words};
use super::order::Order;
use super::team::{Member, Team};
use crate::measurement::{Cache, Measurement};
use crate::trace::{self, Event, Trace, recorded, synthetic};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Largest object that perseq keeps in caches; larger ones are runs of pages in every mode.
const LARGEST_CACHED: u64 = 32 << 10;

/// One object of a trace while it lives.
struct Slot {
    object: AtomicPtr<u8>,
    size: AtomicU64,
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let trace = match &order.trace_file {
        Some(path) => trace::read(path)?,
        None => {
            let threads = order.threads(super::team::allowed()?.len())?;
            // The first are made up, the others recorded.
            match order.get("trace")? {
                made_up @ ..=3 => {
                    synthetic::make(synthetic::Kind::of(made_up)?, threads, order.get("events_per_thread")? as usize)
                }
                recorded => recorded::get(recorded as usize - 4, threads)?,
            }
        }
    };
    let trace = fold(&trace, order.parameters.get("fold").copied().unwrap_or(u64::MAX));
    let threads = trace.threads.len();
    if threads == 0 || trace.events() == 0 {
        return Err("the trace has no events".into());
    }
    let slots: Vec<_> =
        (0..trace.objects).map(|_| Slot { object: AtomicPtr::new(null_mut()), size: AtomicU64::new(0) }).collect();
    // A thread that stops half way would leave others waiting: all decide together, between two passes.
    let (turn, again) = (Barrier::new(threads), AtomicBool::new(true));
    let (ops, large, exhausted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let left_over = left_over(&trace);
    let layout = |size: u64| Layout::from_size_align((size as usize).next_multiple_of(8), 8);

    let release = |object: u64, sums: &mut Sums| {
        let slot = &slots[object as usize];
        let mut pointer = slot.object.load(Acquire); // pairs with the store of its allocation
        while pointer.is_null() {
            if exhausted.load(Relaxed) {
                return;
            }
            std::thread::yield_now();
            pointer = slot.object.load(Acquire);
        }
        slot.object.store(null_mut(), Relaxed);
        if let Ok(layout) = layout(slot.size.load(Relaxed)) {
            // SAFETY: its allocation put it there with this size, and a valid trace releases it once.
            sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, pointer) });
        }
    };
    let member = |member: &Member| {
        let events = &trace.threads[member.number];
        let (mut sums, mut born, mut big) = (Sums::default(), 0, 0);
        member.meet();
        loop {
            for event in events {
                match *event {
                    Event::Allocate(object, size) => {
                        let made = layout(size).ok().and_then(|layout| create(allocator, layout, object ^ order.seed));
                        let Some(made) = made else {
                            exhausted.store(true, Relaxed);
                            break;
                        };
                        let slot = &slots[object as usize];
                        slot.size.store(size, Relaxed);
                        slot.object.store(made, Release);
                        sums.expected = sums.expected.wrapping_add(words(object ^ order.seed));
                        born += 1;
                        big += u64::from(size > LARGEST_CACHED);
                        member.count.add(1);
                    }
                    Event::Free(object) => release(object, &mut sums),
                }
            }
            for object in &left_over[member.number] {
                release(*object, &mut sums);
            }
            turn.wait(); // every object is released: the numbers may be used again
            if member.number == 0 {
                again.store(member.working() && !exhausted.load(Relaxed), Relaxed);
            }
            turn.wait();
            if !again.load(Relaxed) {
                break;
            }
        }
        ops.fetch_add(born, Relaxed);
        large.fetch_add(2 * big, Relaxed);
        member.meet();
        member.meet();
        if exhausted.load(Relaxed) { Err("the allocator returned null".into()) } else { Ok(sums) }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team::new(order, threads, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free, measurement.large_ops) = (ops, ops, large.into_inner());
    measurement.set("pairs_per_s", measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64);
    Ok(measurement)
}

/// The trace on at most so many threads: those of one worker follow one another, event by event in turn.
fn fold(trace: &Trace, workers: u64) -> Trace {
    let workers = (workers.max(1) as usize).min(trace.threads.len().max(1));
    if workers == trace.threads.len() {
        return trace.clone();
    }
    let mut folded = Trace { threads: vec![Vec::new(); workers], ..trace.clone() };
    // Replayed once in a possible order, so that no worker waits for an object that it allocates itself later.
    for (thread, event) in trace.in_order() {
        folded.threads[thread % workers].push(event);
    }
    folded
}

/// What each thread allocates and nobody releases.
fn left_over(trace: &Trace) -> Vec<Vec<u64>> {
    let mut released = vec![false; trace.objects as usize];
    for event in trace.threads.iter().flatten() {
        if let Event::Free(object) = event {
            released[*object as usize] = true;
        }
    }
    let kept = |event: &Event| match *event {
        Event::Allocate(object, _) if !released[object as usize] => Some(object),
        _ => None,
    };
    trace.threads.iter().map(|thread| thread.iter().filter_map(kept).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_trace_is_as_valid_as_the_whole() {
        let whole = synthetic::make(synthetic::Kind::Pipeline, 5, 500);
        for workers in [1, 2, 4] {
            let folded = fold(&whole, workers);
            assert_eq!(folded.threads.len(), workers as usize);
            assert_eq!((folded.check(), folded.events()), (Ok(()), whole.events()));
        }
    }
}
