//! What the statistics promise: some of it at every moment, while everything moves; the rest when nothing does. Then the
//! laws of all structures hold, too.

mod kit;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use kit::Child;
use kit::object::{Object, any_layout};
use kit::random::Random;
use perseq::{COUNTERS, COUNTS_HITS, CacheStats, ClassStats, Mode, Stats, for_each_cache, for_each_class, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// What each cache may hold: so little that its lists take each other's arrays all the time.
const CACHE_BYTES: u64 = 48 << 10;

/// No difference of two numbers was taken the wrong way round.
const ABSURD: u64 = 1 << 56;

#[test]
fn at_every_moment() {
    const TEST: &str = "at_every_moment";
    if kit::role().is_none() {
        let cache_bytes = CACHE_BYTES.to_string();
        for mode in Mode::ALL {
            Child::of(TEST, "moving").mode(mode).env("PERSEQ_CACHE_BYTES", &cache_bytes).run().passed();
        }
        // Budget moves from cache to cache, and idle ones are emptied.
        for mode in Mode::ALL {
            let shared = Child::of(TEST, "moving").mode(mode).env("PERSEQ_TOTAL_BYTES", &cache_bytes);
            shared.env("PERSEQ_IDLE_DRAIN", "1").env("PERSEQ_TRANSFER_SHARDS", "2").run().passed();
        }
        Child::of(TEST, "moving").env("PERSEQ_MODE", "central").env("PERSEQ_HARDENED", "1").run().passed();
        return;
    }
    let hardened = std::env::var_os("PERSEQ_HARDENED").is_some();
    if !hardened && !kit::as_requested() {
        return;
    }
    let (stop, operations) = (AtomicBool::new(false), AtomicU64::new(0));
    let pause = Barrier::new(WORKERS + 1);
    let looks = std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let (stop, operations, pause) = (&stop, &operations, &pause);
            scope.spawn(move || {
                let (mut held, mut random) = (Vec::with_capacity(200), Random::stream(number as u64));
                while !stop.load(Relaxed) {
                    churn(&mut held, &mut random, 500);
                    operations.fetch_add(500, Relaxed);
                }
                pause.wait(); // everybody has stopped
                pause.wait(); // all has been looked at
                held.into_iter().for_each(Object::free);
            });
        }
        let looked = std::panic::catch_unwind(|| look_on(kit::duration(1.0)));
        // The workers would go on for ever.
        let looks = looked.unwrap_or_else(|_| std::process::exit(101));
        stop.store(true, Relaxed);
        pause.wait();
        check_at_rest();
        pause.wait();
        looks
    });
    println!("{}: {looks} looks, {} operations", perseq::active_mode(), operations.load(Relaxed));
    assert!(looks > 20 && operations.load(Relaxed) > 1000, "{looks} looks at {operations:?} operations");
}

const WORKERS: usize = 4;

/// Looks at everything again and again; how often.
fn look_on(time: std::time::Duration) -> u64 {
    let start = Instant::now();
    let (mut before, mut looks) = (stats(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..20 {
            for_each_cache(&mut check_cache);
        }
        for_each_class(&mut check_class);
        let now = stats();
        check_totals(&now, &before);
        before = now;
        looks += 1;
        if looks.is_multiple_of(50) {
            perseq::drain();
        }
    }
    looks
}

fn churn(held: &mut Vec<Object>, random: &mut Random, operations: usize) {
    for name in 0..operations {
        if random.once_in(2) && !held.is_empty() {
            held.swap_remove(random.below(held.len())).free();
        } else if held.len() < held.capacity() {
            held.push(Object::new(any_layout(random), name as u64));
        }
    }
}

fn check_cache(cache: &CacheStats) {
    assert!(cache.cached_bytes <= cache.capacity_bytes, "a cache holds more than it has room for: {cache:?}");
    assert!(cache.capacity_bytes <= CACHE_BYTES, "a cache has room for more than it may hold: {cache:?}");
    assert!(cache.cached_objects <= cache.cached_bytes, "objects of no bytes: {cache:?}");
    assert!(cache.values().iter().all(|value| *value < ABSURD), "{cache:?}");
}

fn check_class(class: &ClassStats) {
    let objects = class.spans * (class.span_size / class.size);
    assert!(class.central_objects <= objects, "more free than there are: {class:?}");
    assert!(class.values().iter().all(|value| *value < ABSURD), "{class:?}");
}

/// What was counted under one lock adds up at any moment, and no counter falls.
fn check_totals(now: &Stats, before: &Stats) {
    assert!(now.values().iter().all(|value| *value < ABSURD), "{now:?}");
    assert!(now.cached_bytes <= now.capacity_bytes, "caches hold more than they have room for: {now:?}");
    assert!(now.cached_objects <= now.cached_bytes, "objects of no bytes: {now:?}");
    assert!(now.peak_held_bytes >= now.held_bytes, "more is held than ever was: {now:?}");
    assert!(now.metadata_bytes >= now.table_bytes && now.held_bytes >= now.metadata_bytes, "{now:?}");
    let pages = now.held_bytes - now.table_bytes + now.released_bytes + now.untouched_bytes;
    assert_eq!(now.committed_bytes, pages, "committed = held + released + untouched: {now:?}");
    assert!(now.committed_bytes <= now.reserved_bytes, "{now:?}");
    for ((name, now), before) in Stats::NAMES.iter().zip(now.values()).zip(before.values()) {
        let never_falls = COUNTERS.contains(name) || *name == "peak_held_bytes";
        assert!(now >= before || !never_falls, "{name} fell from {before} to {now}");
    }
}

/// While nobody allocates, what is said of tiers, caches and classes is one and the same. Whatever is printed may
/// allocate, so what was wrong is printed last.
fn check_at_rest() {
    perseq::check();
    let total = stats();
    static WRONG: Mutex<Option<(ClassStats, &str)>> = Mutex::new(None);
    let [mut objects_bytes, mut live, mut cached, mut spans] = [0; 4];
    for_each_class(&mut |class| {
        let free = class.cached_objects + class.transfer_objects + class.central_objects + class.quarantined_objects;
        let wrong = |what| *WRONG.lock().expect("no panic under it") = Some((*class, what));
        if class.live_objects + free != class.spans * (class.span_size / class.size) {
            wrong("small spans = live + cached + transfer + central + quarantined + rest");
        }
        let allocs = class.alloc_hits + class.underflows + class.uncached_allocs;
        let frees = class.free_hits + class.overflows + class.uncached_frees;
        if COUNTS_HITS && allocs - frees != class.live_objects {
            wrong("allocations - frees = live");
        }
        objects_bytes += (class.live_objects + free) * class.size;
        live += class.live_objects * class.size;
        cached += class.cached_objects * class.size;
        spans += class.spans * class.span_size;
    });
    let (mut by_cache, mut caches, mut capacity) = (0, 0, 0);
    for_each_cache(&mut |cache| {
        by_cache += cache.cached_bytes;
        capacity += cache.capacity_bytes;
        caches += 1;
    });
    let after = stats();
    let wrong = WRONG.lock().expect("no panic under it").take();
    assert!(wrong.is_none(), "{wrong:?}");
    assert_eq!(total.values(), after.values(), "looking changes nothing");
    assert_eq!(
        (total.live_small_bytes, total.cached_bytes, total.small_span_bytes),
        (live, cached, spans),
        "{total:?}"
    );
    assert_eq!((by_cache, capacity, caches), (cached, total.capacity_bytes, total.caches), "{total:?}");
    assert_eq!(total.small_span_bytes, objects_bytes + total.span_rest_bytes, "{total:?}");
    let large = total.live_large_bytes + (total.quarantined_bytes - quarantined_small());
    let used = total.small_span_bytes + large + total.metadata_bytes;
    assert_eq!(total.held_bytes, used + total.free_page_bytes, "held = small spans + large + free pages: {total:?}");
}

fn quarantined_small() -> u64 {
    let mut bytes = 0;
    for_each_class(&mut |class| bytes += class.quarantined_objects * class.size);
    bytes
}

/// The test above, on a report that is wrong.
#[test]
#[should_panic(expected = "a cache holds more than it has room for")]
fn a_wrong_report_is_seen() {
    Object::new(any_layout(&mut Random::stream(1)), 1).free(); // so that there is a cache
    let mut found: Option<CacheStats> = None;
    for_each_cache(&mut |cache| found = Some(*cache));
    let mut cache = found.unwrap_or_else(|| panic!("a cache holds more than it has room for: none, in central"));
    cache.cached_bytes = cache.capacity_bytes + 1;
    check_cache(&cache);
}
