//! E10: threads that write to small objects, and whose lines hold objects of two threads.
//!
//! The census needs no counter: it looks at the addresses. A line with two owners is one that two CPUs may both write.

use super::objects::{Sums, create, destroy, signature, words};
use super::order::Order;
use super::team::thread_ns;
use super::team::{Member, Team, allowed};
use crate::measurement::{Cache, Measurement};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that a processor moves at a time.
const LINE: usize = 64;

/// Objects a thread exchanges at a time: not a multiple of those on a line, so that neighbours are parted.
const EXCHANGED: usize = 5;

/// Objects one thread hands to another.
struct Handed(Vec<*mut u8>);

// SAFETY: whoever takes the vector has its objects alone.
unsafe impl Send for Handed {}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let size = order.get("size_bytes")?.max(8).next_multiple_of(8);
    let layout = Layout::from_size_align(size as usize, 8).map_err(|error| format!("size {size}: {error}"))?;
    let objects = order.get("objects_per_thread")?.max(1) as usize;
    let writes = order.get("writes_per_life")?.max(1);
    let passive = order.get("passive")? != 0;
    let threads = order.threads(allowed()?.len())?;
    // Passive: one thread allocates everything, and neighbours go to different threads.
    let mut dealt: Vec<_> = (0..threads).map(|_| Handed(Vec::with_capacity(objects))).collect();
    if passive {
        for _ in 0..objects {
            for hand in &mut dealt {
                hand.0.push(create(allocator, layout, 0).ok_or("the allocator returned null")?);
            }
        }
    }
    let dealt: Vec<_> = dealt.into_iter().map(Mutex::new).collect();
    let census: Mutex<BTreeMap<usize, Owners>> = Mutex::new(BTreeMap::new());
    let [ops, written, writing_ns, busy_ns] = [const { AtomicU64::new(0) }; 4];
    thread_ns()?;
    let clock = || thread_ns().unwrap_or_default(); // it cannot fail once it has worked

    let member = |member: &Member| {
        let mut held = dealt[member.number].lock().map(|mut hand| std::mem::take(&mut hand.0)).unwrap_or_default();
        held.resize(objects, null_mut());
        let (mut tags, mut sums) = (vec![0; objects], Sums::default());
        let (mut born, mut full) = (0u64, true);
        let (mut wrote, mut writing) = (0, 0);
        member.meet();
        let begin = clock();
        loop {
            // A few at a time, with the CPU given away in between: whoever runs next may take what we freed.
            for (objects, tags) in held.chunks_mut(EXCHANGED).zip(tags.chunks_mut(EXCHANGED)) {
                for (object, tag) in objects.iter().zip(tags.iter()).filter(|(object, _)| !object.is_null()) {
                    // SAFETY: created with this layout by us, or dealt to us alone.
                    sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, *object) });
                    sums.expected = sums.expected.wrapping_add(words(*tag));
                }
                std::thread::yield_now();
                for (object, tag) in objects.iter_mut().zip(tags.iter_mut()) {
                    born += 1;
                    *tag = signature(order.seed, member.number as u64, born);
                    *object = create(allocator, layout, *tag).unwrap_or(null_mut());
                    full &= !object.is_null();
                }
            }
            if !member.working() || !full {
                break; // holding objects, for the census
            }
            let start = clock();
            for _ in 0..writes {
                for (object, tag) in held.iter().zip(&tags) {
                    // The same word again: what is written costs the same as anything else.
                    // SAFETY: the last word of an object we hold.
                    unsafe { object.add(layout.size() - 8).cast::<u64>().write_volatile(last(*tag)) };
                }
                black_box(&held);
            }
            (wrote, writing) = (wrote + objects as u64 * writes, writing + (clock() - start));
            member.count.add(objects as u64 * writes);
        }
        let busy = clock() - begin;
        for (sum, part) in [(&written, wrote), (&writing_ns, writing), (&busy_ns, busy)] {
            sum.fetch_add(part, Relaxed);
        }
        if let Ok(mut census) = census.lock() {
            for object in held.iter().filter(|object| !object.is_null()) {
                census.entry(*object as usize / LINE).or_default().add(member.number);
            }
        }
        member.meet();
        for (object, tag) in held.iter().zip(&tags).filter(|(object, _)| !object.is_null()) {
            // SAFETY: as above.
            sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, *object) });
            sums.expected = sums.expected.wrapping_add(words(*tag));
        }
        ops.fetch_add(born, Relaxed);
        member.meet();
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team::new(order, threads, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner() + if passive { (threads * objects) as u64 } else { 0 };
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let census = census.into_inner().map_err(|_| "a thread panicked")?;
    let shared = census.values().filter(|owners| owners.many).count();
    measurement.set("writes_per_s", measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64);
    let [written, writing, busy] = [written, writing_ns, busy_ns].map(|sum| sum.into_inner() as f64);
    measurement.set("ns_per_write", writing / written);
    measurement.set("writing_percent", 100.0 * writing / busy);
    measurement.set("lines", census.len() as f64);
    measurement.set("shared_lines_percent", 100.0 * shared as f64 / census.len().max(1) as f64);
    Ok(measurement)
}

/// The last word of an object signed with `tag`.
fn last(tag: u64) -> u64 {
    words(tag).wrapping_sub(tag)
}

/// Threads that hold an object on a line.
#[derive(Default)]
struct Owners {
    first: Option<usize>,
    many: bool,
}

impl Owners {
    fn add(&mut self, thread: usize) {
        self.many |= self.first.is_some_and(|first| first != thread);
        self.first.get_or_insert(thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shared_from_its_second_thread_on() {
        let mut owners = Owners::default();
        owners.add(3);
        owners.add(3);
        assert!(!owners.many);
        owners.add(4);
        assert!(owners.many);
    }
}
