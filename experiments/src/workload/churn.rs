//! E06: threads that live for a number of operations and leave their objects to a successor.

use super::objects::{Sizes, Sums, create, destroy, next, signature, words};
use super::order::Order;
use super::team::{Member, Pace, Team, allowed};
use crate::measurement::{Cache, Measurement};
use std::alloc::GlobalAlloc;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Operations between two looks at the clock of the team.
const STRIDE: u64 = 64;

/// Objects that one generation leaves to the next.
struct Estate {
    objects: Vec<(*mut u8, u64)>,
    random: u64,
    born: u64,
}

// SAFETY: one generation has it at a time; the spawn and the join hand it over.
unsafe impl Send for Estate {}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let objects = order.get("working_set_objects")?.max(1) as usize;
    let per_life = order.get("pairs_per_life")?.max(1);
    let chains = order.threads(allowed()?.len())?;
    let (lives, ops) = (AtomicU64::new(0), AtomicU64::new(0));

    // One life: free an object, allocate another in its place. None: no memory is left.
    let life = |number: usize, pace: Pace, estate: &mut Estate, sums: &mut Sums| -> Option<()> {
        for pair in 1..=per_life {
            let place = next(&mut estate.random) as usize % objects;
            let (object, word) = estate.objects[place];
            if !object.is_null() {
                // SAFETY: `create` made it for this place, and this generation alone has it.
                sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, sizes.layout(place), object) });
                sums.expected = sums.expected.wrapping_add(words(word));
            }
            estate.born += 1;
            let word = signature(order.seed, number as u64, estate.born);
            estate.objects[place] = (null_mut(), 0);
            estate.objects[place] = (create(allocator, sizes.layout(place), word)?, word);
            if pair % STRIDE == 0 || pair == per_life {
                pace.count.add(if pair % STRIDE == 0 { STRIDE } else { pair % STRIDE });
                if !pace.working() {
                    return Some(());
                }
            }
        }
        Some(())
    };
    let member = |member: &Member| {
        let random = signature(order.seed, member.number as u64, 0) | 1;
        let mut estate = Estate { objects: vec![(null_mut(), 0); objects], random, born: 0 };
        let mut sums = Sums::default();
        let mut trouble = None;
        member.meet();
        while member.working() && trouble.is_none() {
            let (number, pace) = (member.number, member.pace());
            let mut body = || life(number, pace, &mut estate, &mut sums).is_some();
            match in_a_thread(&mut body) {
                Ok(true) => drop(lives.fetch_add(1, Relaxed)),
                Ok(false) => trouble = Some("the allocator returned null".to_owned()),
                Err(error) => trouble = Some(error),
            }
        }
        let end = |estate: &mut Estate, sums: &mut Sums| {
            for (place, (object, word)) in estate.objects.drain(..).enumerate().filter(|(_, held)| !held.0.is_null()) {
                // SAFETY: as in `life`; nobody comes after us.
                sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, sizes.layout(place), object) });
                sums.expected = sums.expected.wrapping_add(words(word));
            }
        };
        let mut last = || end(&mut estate, &mut sums);
        let cleared = in_a_thread(&mut last);
        ops.fetch_add(estate.born, Relaxed);
        member.meet();
        member.meet();
        match trouble.or(cleared.err()) {
            None => Ok(sums),
            Some(trouble) => Err(trouble),
        }
    };
    let look = |measurement: &mut Measurement| {
        measurement.caches = Cache::all(order.subject);
        measurement.set_cached(order.subject);
    };
    let team = Team::new(order, chains, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let (lives, all) = (lives.into_inner().max(1) as f64, ops.max(1) as f64);
    let rate = measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64;
    measurement.set("pairs_per_s", rate);
    measurement.set("lives_per_s", rate * lives / all);
    // Of one chain: its threads follow one another.
    measurement.set("us_per_life", chains as f64 * 1e6 * all / (rate * lives));
    Ok(measurement)
}

/// Runs `body` on a thread of its own and waits for its end.
fn in_a_thread<T: Send>(body: &mut (dyn FnMut() -> T + Send)) -> Result<T, String> {
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, body);
        spawned.map_err(|error| format!("a thread: {error}"))?.join().map_err(|_| "a thread panicked".to_owned())
    })
}
