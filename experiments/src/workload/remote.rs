//! E05: producers allocate messages, consumers check and free them; bounded rings hold the producers back.

use super::objects::{Sums, create, destroy, next, signature, words};
use super::order::Order;
use super::team::{Member, Team, allowed, pin};
use crate::measurement::{Cache, Measurement};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// One message in so many, drawn at random, carries the CPU it was made on: whether two threads share a CPU comes and goes
/// in a rhythm, and so do messages of any fixed distance.
const LOOK: u64 = 64;

/// A ring from one producer to one consumer. Null is an empty place.
struct Ring {
    places: Vec<AtomicPtr<u8>>,
}

impl Ring {
    fn new(depth: usize) -> Ring {
        Ring { places: (0..depth).map(|_| AtomicPtr::new(null_mut())).collect() }
    }

    /// False: it is full. Only the producer calls this.
    fn send(&self, tail: &mut usize, object: *mut u8) -> bool {
        let place = &self.places[*tail];
        // Acquire: the consumer's reads of what was here come before its null.
        if !place.load(Acquire).is_null() {
            return false;
        }
        place.store(object, Release); // the object's words come before it
        *tail = (*tail + 1) % self.places.len();
        true
    }

    /// None: it is empty. Only the consumer calls this.
    fn receive(&self, head: &mut usize) -> Option<*mut u8> {
        let place = &self.places[*head];
        let object = place.load(Acquire); // pairs with `send`
        if object.is_null() {
            return None;
        }
        place.store(null_mut(), Release);
        *head = (*head + 1) % self.places.len();
        Some(object)
    }
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let size = order.get("size_bytes")?.max(24).next_multiple_of(8);
    let layout = Layout::from_size_align(size as usize, 8).map_err(|error| format!("size {size}: {error}"))?;
    let depth = order.get("ring_depth")?.max(1) as usize;
    let remote = order.get("remote_percent")?;
    let apart = order.get("pinned_apart")? != 0;
    let cpus = allowed()?;
    let threads = order.threads(cpus.len())?.max(2);
    let producers = (threads * order.get("producers_percent")? as usize / 100).clamp(1, threads - 1);
    let consumers = threads - producers;
    let rings: Vec<_> = (0..producers * consumers).map(|_| Ring::new(depth)).collect();
    let (working, ops) = (AtomicUsize::new(producers), AtomicU64::new(0));
    let (looked, together) = (AtomicU64::new(0), AtomicU64::new(0));

    let produce = |member: &Member| -> Result<Sums, String> {
        let mine = &rings[member.number * consumers..(member.number + 1) * consumers];
        let mut tails = vec![0; consumers];
        let (mut sums, mut sent, mut whom) = (Sums::default(), 0u64, member.number);
        let mut random = signature(order.seed, member.number as u64, 0) | 1;
        let mut draw = signature(order.seed, member.number as u64, u64::MAX) | 1;
        let mut full = true;
        while member.working() && full {
            sent += 1;
            let word = signature(order.seed, member.number as u64, sent);
            let Some(object) = create(allocator, layout, word) else {
                full = false;
                break;
            };
            sums.expected = sums.expected.wrapping_add(words(word));
            if next(&mut random) % 100 >= remote {
                // SAFETY: just created, and nobody else has seen it.
                sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, object) });
            } else {
                let note = if looks(&mut draw) { cpu() } else { u64::MAX };
                // SAFETY: a message has 24 bytes; the middle word carries no signature.
                unsafe { object.cast::<u64>().add(1).write(note) };
                whom = (whom + 1) % consumers;
                while !mine[whom].send(&mut tails[whom], object) {
                    std::thread::yield_now();
                }
            }
            member.count.add(1);
        }
        ops.fetch_add(sent, Relaxed);
        working.fetch_sub(1, Release); // after the last message
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let consume = |number: usize| -> Result<Sums, String> {
        let mut heads = vec![0; producers];
        let (mut sums, mut seen, mut same) = (Sums::default(), 0, 0);
        loop {
            let done = working.load(Acquire) == 0; // before the look: then an empty ring stays empty
            let mut idle = true;
            for (producer, head) in heads.iter_mut().enumerate() {
                while let Some(object) = rings[producer * consumers + number].receive(head) {
                    idle = false;
                    // SAFETY: the producer wrote this word before it sent the message.
                    let note = unsafe { object.cast::<u64>().add(1).read() };
                    if note != u64::MAX {
                        (seen, same) = (seen + 1, same + u64::from(note == cpu()));
                    }
                    // SAFETY: the producer created it and gave it up.
                    sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, object) });
                }
            }
            if idle && done {
                break;
            }
            if idle {
                std::thread::yield_now();
            }
        }
        looked.fetch_add(seen, Relaxed);
        together.fetch_add(same, Relaxed);
        Ok(sums)
    };
    let member = |member: &Member| {
        // Roles alternate over the CPUs when they are pinned: a producer is never where its consumers are.
        let half = cpus.len().div_ceil(2);
        let producer = member.number < producers;
        let place = if producer { member.number % half } else { half + member.number % (cpus.len() - half).max(1) };
        let placed = if apart { pin(cpus[place % cpus.len()]) } else { Ok(()) };
        member.meet();
        let sums = if producer { produce(member) } else { consume(member.number - producers) };
        member.meet();
        member.meet();
        placed.and(sums)
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
        measurement.set_resident();
    };
    let team = Team::new(order, threads, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    measurement.set("pairs_per_s", measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64);
    match looked.into_inner() {
        0 => measurement.lack("same_cpu_percent", "no message was looked at"),
        looked => measurement.set("same_cpu_percent", 100.0 * together.into_inner() as f64 / looked as f64),
    }
    Ok(measurement)
}

/// Whether the next message carries a CPU.
fn looks(draw: &mut u64) -> bool {
    next(draw) >> 32 < (1 << 32) / LOOK
}

/// The CPU this thread runs on, or a number no CPU has.
fn cpu() -> u64 {
    nix::sched::sched_getcpu().map_or(u64::MAX - 1, |cpu| cpu as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in `LOOK`, at every place of a ring of any size that divides it.
    #[test]
    fn messages_are_looked_at_at_random() {
        let mut draw = signature(3, 1, u64::MAX) | 1;
        let mut places = [0_u64; 64];
        (0..64 * 64 * 200).filter(|_| looks(&mut draw)).for_each(|number| places[number % 64] += 1);
        assert!(places.iter().all(|seen| (130..270).contains(seen)), "{places:?}");
    }
}
