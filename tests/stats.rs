//! Statistics: exact when nothing else happens, and every field says something.
//!
//! What a test holds it knows, class by class, so the live bytes are computed here a second time from the
//! objects alone. The tiers' parts are then held against it: whatever left the spans is live, cached or in
//! a transfer cache.

mod kit;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use kit::object::{LARGE_SIZES, Object, SIZES, layout};
use kit::random::Random;
use kit::torture::{Plan, run};
use kit::{in_every_mode, resident_bytes};
use perseq::{COUNTS_HITS, Mode, Owner, PAGE_SIZE, Stats, drain, for_each_class, release, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// The sizes of the classes, smallest first.
fn class_sizes() -> Vec<u64> {
    let mut sizes = Vec::with_capacity(256);
    for_each_class(&mut |class| sizes.push(class.size));
    assert!(sizes.is_sorted());
    sizes
}

/// What an allocation of `size` bytes takes: the smallest class that has room, else whole pages.
fn taken(size: usize, classes: &[u64]) -> u64 {
    let class = classes.iter().copied().find(|class| *class >= size as u64);
    class.unwrap_or(size.next_multiple_of(PAGE_SIZE) as u64)
}

/// Pages that are known, counted twice: by use, and by the page heap.
fn check_pages(stats: &Stats) {
    let used = stats.live_large_bytes + stats.free_page_bytes + stats.released_bytes;
    assert!(used <= stats.committed_bytes && stats.committed_bytes <= stats.reserved_bytes, "{stats:?}");
    // What is in spans of small objects cannot be more than what is left of the committed pages.
    let small = stats.live_small_bytes + stats.cached_bytes + stats.transfer_bytes + stats.central_bytes;
    assert!(small <= stats.committed_bytes - used, "{stats:?}");
}

#[test]
fn live_bytes_are_what_is_held() {
    in_every_mode("live_bytes_are_what_is_held", || {
        let mut held: Vec<Object> = Vec::with_capacity(3000);
        let mut random = Random::stream(1);
        let classes = class_sizes();
        let largest = classes[classes.len() - 1] as usize;
        let before = stats();
        for step in 0..6000 {
            if random.once_in(3) && !held.is_empty() {
                held.swap_remove(random.below(held.len())).free();
            } else if held.len() < held.capacity() {
                let size = if random.once_in(50) { random.of(&LARGE_SIZES[..6]) } else { 1 + random.below(5000) };
                held.push(Object::new(layout(size, 1), step));
            }
            if step % 500 == 0 {
                match random.below(3) {
                    0 => drop(drain()),
                    1 => drop(release()),
                    _ => {}
                }
                let now = stats();
                let (small, large): (Vec<_>, Vec<_>) =
                    held.iter().map(|held| held.layout().size()).partition(|&size| size <= largest);
                let sum = |sizes: Vec<usize>| sizes.into_iter().map(|size| taken(size, &classes)).sum::<u64>();
                let (small, large) = (sum(small), sum(large));
                assert_eq!(now.live_large_bytes - before.live_large_bytes, large, "step {step}: {now:?}");
                assert_eq!(now.live_small_bytes - before.live_small_bytes, small, "step {step}: {now:?}");
                check_pages(&now);
            }
        }
        held.into_iter().for_each(Object::free);
    });
}

/// Objects go from tier to tier and are never in two or none.
#[test]
fn tiers_add_up() {
    in_every_mode("tiers_add_up", || {
        // On one CPU: what the cache of another keeps of a span is missing among what is held here.
        kit::run_on(&kit::allowed_cpus()[..1]);
        let tiers =
            |stats: &Stats| [stats.live_small_bytes, stats.cached_bytes, stats.transfer_bytes, stats.central_bytes];
        // So many that spans are full, and no span is returned or taken from here to the end: two are kept of each.
        let size = 256;
        let class = kit::class_of(size, 8).expect("a small size");
        let step = (class.span_size / class.size / 2).clamp(1, 16);
        let objects = (0..4000).map(|name| (name, Object::new(layout(size, 8), name)));
        let (kept, freed): (Vec<_>, Vec<_>) = objects.partition(|(name, _)| name % step == 0);
        let full = stats();
        freed.into_iter().for_each(|(_, object)| object.free());
        let cached = stats();
        drain();
        let drained = stats();
        release();
        let released = stats();
        let small_bytes: u64 = tiers(&full).iter().sum();
        assert_eq!(tiers(&cached).iter().sum::<u64>(), small_bytes, "freeing lost bytes: {full:?} {cached:?}");
        assert_eq!(tiers(&drained).iter().sum::<u64>(), small_bytes, "draining lost bytes: {full:?} {drained:?}");
        // Releasing gives empty spans of all classes back: whole ones.
        assert!(tiers(&released).iter().sum::<u64>() <= small_bytes, "{full:?} {released:?}");
        assert!(cached.live_small_bytes < full.live_small_bytes);
        if cached.mode.active != Mode::Central {
            assert!(cached.cached_bytes > 0 && cached.cached_objects > 0, "{cached:?}");
            assert!(drained.cached_bytes < cached.cached_bytes, "{drained:?}");
        }
        assert!(cached.transfer_bytes > 0, "{cached:?}");
        assert_eq!(released.transfer_bytes, 0, "{released:?}");
        assert_eq!(released.live_small_bytes, drained.live_small_bytes);
        kept.into_iter().for_each(|(_, object)| object.free());
    });
}

/// `drain` returns what it moved, and `release` what the process is smaller by.
#[test]
fn what_drain_and_release_return() {
    in_every_mode("what_drain_and_release_return", || {
        (0..2000).map(|name| Object::new(layout(500, 8), name)).collect::<Vec<_>>().into_iter().for_each(Object::free);
        let before = stats();
        let moved = drain() as u64;
        let after = stats();
        assert_eq!(before.cached_bytes - after.cached_bytes, moved, "{before:?} {after:?}");
        assert_eq!(drain(), 0, "nothing is left to drain");
        let blocks: Vec<_> = (0..30).map(|name| Object::new(layout(1 << 20, 8), name)).collect();
        blocks.into_iter().for_each(Object::free);
        let (before, resident) = (stats(), resident_bytes());
        let returned = release() as u64;
        assert_eq!(release(), 0, "nothing is left to release");
        let after = stats();
        assert!(returned >= before.free_page_bytes && after.free_page_bytes == 0, "{before:?} {after:?}");
        assert!(resident_bytes() < resident, "{returned} bytes went back");
    });
}

#[test]
fn every_field_moves() {
    in_every_mode("every_field_moves", || {
        let quiet = stats();
        let objects: Vec<_> = SIZES.iter().chain(&LARGE_SIZES).map(|&size| Object::new(layout(size, 1), 1)).collect();
        let held = stats();
        // On a busy machine an interrupted sequence may take longer to come.
        let start = std::time::Instant::now();
        let sequences = matches!(held.mode.active, Mode::PerCpu | Mode::PerCpuMmCid);
        let mut busy = held;
        while busy.uncached_allocs + busy.underflows == held.uncached_allocs + held.underflows
            || sequences && busy.restarts == held.restarts && start.elapsed().as_secs() < 60
        {
            run(Plan { forks: false, ..Plan::everything(kit::duration(0.8)) });
            busy = stats();
        }
        objects.into_iter().for_each(Object::free);
        let freed = stats();
        release();
        let end = stats();
        let caches = end.mode.active != Mode::Central;
        let indexed = matches!(end.mode.active, Mode::PerCpu | Mode::PerCpuMmCid);
        let moves = [
            ("caches", caches, quiet.caches < busy.caches || quiet.caches > 0),
            ("cached_objects", caches, freed.cached_objects > 0),
            ("cached_bytes", caches, freed.cached_bytes > end.cached_bytes),
            ("capacity_bytes", caches, freed.capacity_bytes >= freed.cached_bytes && freed.capacity_bytes > 0),
            ("transfer_bytes", true, freed.transfer_bytes > end.transfer_bytes),
            ("central_bytes", true, freed.central_bytes > 0),
            ("quarantined_bytes", false, true), // in tests/hardened.rs
            ("span_rest_bytes", true, busy.span_rest_bytes > quiet.span_rest_bytes || !classes_leave_a_rest()),
            ("small_span_bytes", true, held.small_span_bytes > quiet.small_span_bytes),
            ("live_small_bytes", true, held.live_small_bytes > quiet.live_small_bytes),
            ("live_large_bytes", true, held.live_large_bytes > quiet.live_large_bytes),
            ("free_page_bytes", true, freed.free_page_bytes > end.free_page_bytes),
            ("released_bytes", true, end.released_bytes > quiet.released_bytes),
            ("untouched_bytes", true, busy.untouched_bytes != quiet.untouched_bytes),
            ("held_bytes", true, held.held_bytes > quiet.held_bytes && end.held_bytes < freed.held_bytes),
            ("peak_held_bytes", true, end.peak_held_bytes > end.held_bytes),
            (
                "committed_bytes",
                true,
                busy.committed_bytes > quiet.committed_bytes && end.committed_bytes < busy.committed_bytes,
            ),
            (
                "reserved_bytes",
                true,
                busy.reserved_bytes > quiet.reserved_bytes && end.reserved_bytes < busy.reserved_bytes,
            ),
            ("metadata_bytes", true, busy.metadata_bytes > quiet.metadata_bytes),
            ("table_bytes", true, busy.table_bytes > quiet.table_bytes),
            ("returned_bytes", true, end.returned_bytes > freed.returned_bytes),
            ("relocated_bytes", false, true), // in tests/resizing.rs
            ("huge_pages_free", false, true), // this and the next three in tests/returning.rs
            ("huge_pages_partly_used", true, busy.huge_pages_partly_used + busy.huge_pages_fully_used > 0),
            ("huge_pages_fully_used", false, true),
            ("huge_pages_released_in_part", false, true),
            ("alloc_hits", caches && COUNTS_HITS, busy.alloc_hits > held.alloc_hits),
            ("free_hits", caches && COUNTS_HITS, busy.free_hits > held.free_hits),
            ("underflows", caches, busy.underflows > held.underflows),
            ("overflows", caches, busy.overflows > held.overflows),
            ("refilled_objects", caches, busy.refilled_objects > held.refilled_objects),
            ("flushed_objects", caches, busy.flushed_objects > held.flushed_objects),
            ("uncached_allocs", end.mode.active == Mode::Central, busy.uncached_allocs > held.uncached_allocs),
            ("uncached_frees", end.mode.active == Mode::Central, busy.uncached_frees > held.uncached_frees),
            ("central_visits", true, busy.central_visits > held.central_visits),
            ("index_changes", indexed, busy.index_changes > held.index_changes),
            ("idle_drains", false, true), // this and the next in tests/capacity.rs
            ("lendings", false, true),
            ("restarts", indexed, busy.restarts > held.restarts),
            ("slice_grants", false, true), // this and the next in tests/slices.rs
            ("holders_preempted", false, true),
        ];
        let names: Vec<_> = moves.iter().map(|(name, _, _)| *name).collect();
        assert_eq!(names, Stats::NAMES, "every field is looked at");
        for (field, applies, moved) in moves {
            assert!(moved || !applies, "{field} did not move: {held:?} {busy:?} {freed:?} {end:?}");
        }
        if !indexed {
            assert_eq!((end.restarts, end.index_changes), (0, 0), "there are no sequences: {end:?}");
        }
        if !caches {
            assert_eq!((end.caches, end.cached_bytes, end.underflows), (0, 0, 0), "there are no caches: {end:?}");
        }
    });
}

/// Whether some class's spans end in bytes that are no object.
fn classes_leave_a_rest() -> bool {
    let mut rest = false;
    for_each_class(&mut |class| rest |= class.span_size % class.size != 0);
    rest
}

/// What is counted in several places is the same in all of them.
#[test]
fn sums_agree() {
    in_every_mode("sums_agree", || {
        let mut held: Vec<Object> = Vec::with_capacity(4000);
        let mut random = Random::stream(7);
        for step in 0..8000 {
            if random.once_in(3) && !held.is_empty() {
                held.swap_remove(random.below(held.len())).free();
            } else if held.len() < held.capacity() {
                held.push(Object::new(kit::object::any_layout(&mut random), step));
            }
            if step % 1000 != 999 {
                continue;
            }
            let total = stats();
            let [mut small, mut spans, mut rest, mut cached, mut underflows, mut flushed] = [0; 6];
            for_each_class(&mut |class| {
                let objects =
                    class.live_objects + class.cached_objects + class.transfer_objects + class.central_objects;
                assert_eq!(objects, class.spans * (class.span_size / class.size), "{class:?}");
                if COUNTS_HITS {
                    let allocs = class.alloc_hits + class.underflows + class.uncached_allocs;
                    let frees = class.free_hits + class.overflows + class.uncached_frees;
                    assert_eq!(allocs - frees, class.live_objects, "{class:?}");
                }
                small += objects * class.size;
                spans += class.spans * class.span_size;
                rest += class.spans * (class.span_size % class.size);
                cached += class.cached_objects * class.size;
                underflows += class.underflows;
                flushed += class.flushed_objects;
            });
            let tiers = total.live_small_bytes + total.cached_bytes + total.transfer_bytes + total.central_bytes;
            assert_eq!((tiers, total.span_rest_bytes, total.small_span_bytes), (small, rest, spans), "{total:?}");
            // The page heap counts pages, the free lists spans.
            let used = spans + total.live_large_bytes + total.metadata_bytes;
            assert_eq!(total.held_bytes, used + total.free_page_bytes, "{total:?}");
            let pages = total.held_bytes - total.table_bytes;
            assert_eq!(total.committed_bytes, pages + total.released_bytes + total.untouched_bytes);
            assert!(total.peak_held_bytes >= total.held_bytes, "{total:?}");
            let mut by_cache = [0; 3];
            perseq::for_each_cache(&mut |cache| {
                by_cache[0] += cache.cached_bytes;
                by_cache[1] += cache.underflows;
                by_cache[2] += cache.flushed_objects;
            });
            assert_eq!((total.cached_bytes, by_cache[0]), (cached, cached), "{total:?}");
            assert_eq!((total.underflows, total.flushed_objects), (underflows, flushed), "{total:?}");
            // What ended threads did is in the total only.
            assert!(by_cache[1] <= underflows && by_cache[2] <= flushed, "{total:?}");
        }
        held.into_iter().for_each(Object::free);
    });
}

/// A fork holds the locks and does not end before another thread has allocated and freed, which then goes without them:
/// each allocation and each free is counted once all the same.
#[test]
fn what_goes_without_a_lock_is_counted_once() {
    in_every_mode("what_goes_without_a_lock_is_counted_once", || {
        let counted = COUNTS_HITS || stats().mode.active == Mode::Central;
        let beside = std::thread::spawn(|| {
            let mut held: Vec<_> =
                (0..600).map(|serial| Object::new(layout(SIZES[serial % SIZES.len()], 1), 1)).collect();
            while FORK.load(SeqCst) != HOLDS_LOCKS {
                std::thread::yield_now();
            }
            for step in 0..600 {
                let at = step * 7 % held.len();
                let layout = held[at].layout();
                std::mem::replace(&mut held[at], Object::new(layout, 2)).free();
            }
            FORK.store(MAY_END, SeqCst);
            held.into_iter().for_each(Object::free);
        });
        FORK.store(WANTED, SeqCst);
        kit::reap(kit::fork(60, || ()));
        beside.join().expect("no panic");
        drain();
        for_each_class(&mut |class| {
            let free = class.cached_objects + class.transfer_objects + class.central_objects;
            assert_eq!(class.live_objects + free, class.spans * (class.span_size / class.size), "{class:?}");
            let allocs = class.alloc_hits + class.underflows + class.uncached_allocs;
            let frees = class.free_hits + class.overflows + class.uncached_frees;
            assert!(!counted || allocs - frees == class.live_objects, "{class:?}");
        });
    });
}

/// How far the fork of [`what_goes_without_a_lock_is_counted_once`] is.
static FORK: AtomicU32 = AtomicU32::new(0);
const WANTED: u32 = 1;
const HOLDS_LOCKS: u32 = 2;
const MAY_END: u32 = 3;

/// Before the allocator asked for the same, so that it is called after the allocator took its locks.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_FORK: extern "C" fn() = {
    extern "C" fn wait() {
        if FORK.compare_exchange(WANTED, HOLDS_LOCKS, SeqCst, SeqCst).is_ok() {
            while FORK.load(SeqCst) != MAY_END {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
    extern "C" fn register() {
        // SAFETY: the function lives for ever.
        unsafe { libc::pthread_atfork(Some(wait), None, None) };
    }
    register
};

/// Text and JSON say what the numbers are, also at exit.
#[test]
fn text_and_json() {
    in_every_mode("text_and_json", || {
        let object = Object::new(layout(100, 8), 1);
        let mut json = String::with_capacity(1 << 16);
        let total = stats();
        total.write_json(&mut json).expect("a string");
        let text = total.to_string();
        for (name, value) in Stats::NAMES.iter().zip(total.values()) {
            if COUNTS_HITS || !name.ends_with("_hits") {
                assert!(json.contains(&format!("\"{name}\":{value}")), "{name}: {json}");
                let line = text.lines().find(|line| line.split(' ').next() == Some(name)).expect("a line");
                assert_eq!(line.split_whitespace().nth(1), Some(value.to_string().as_str()), "{line}");
            }
        }
        json.clear();
        perseq::write_json(&mut json).expect("a string");
        assert!(json.ends_with("]}\n") && json.contains("\"classes\":[{\"size\":"), "{json}");
        assert_eq!(json.contains("\"caches\":[]"), total.mode.active == Mode::Central, "{json}");
        object.free();
    });
}

#[test]
fn at_exit() {
    let test = "at_exit";
    if kit::role().is_some() {
        let _ = perseq::active_mode();
        return;
    }
    for mode in Mode::ALL {
        let text = kit::Child::of(test, "text").mode(mode).env("PERSEQ_STATS", "text").run().passed();
        assert!(text.stderr.contains("committed_bytes") && text.stderr.contains("\nclass "), "{text}");
        assert!(text.stderr.contains(&format!("mode                 {mode}")), "{text}");
        let path = format!("{}/stats-at-exit-{mode}", env!("CARGO_TARGET_TMPDIR"));
        drop(std::fs::remove_file(&path));
        for lines in 1..=2 {
            let json = kit::Child::of(test, "json").mode(mode).env("PERSEQ_STATS", &format!("json:{path}"));
            json.run().passed();
            let written = std::fs::read_to_string(&path).expect("it was written");
            assert_eq!(written.lines().count(), lines, "a line for each process: {written}");
            assert!(written.lines().all(|line| line.starts_with("{\"perseq\":") && line.ends_with("]}")), "{written}");
        }
    }
    let missing = kit::Child::of(test, "json").env("PERSEQ_STATS", "json:/nonexistent/file").run();
    assert!(missing.stderr.contains("PERSEQ_STATS: /nonexistent/file cannot be opened for writing"), "{missing}");
    for bad in ["xml", "json:", "text:"] {
        kit::Child::of(test, "bad").env("PERSEQ_STATS", bad).run().aborted_saying("expected text, json,");
    }
}

/// The caches one by one are the caches in total, each with its owner.
#[test]
fn caches_one_by_one() {
    in_every_mode("caches_one_by_one", || {
        let objects: Vec<_> = SIZES.iter().map(|&size| Object::new(layout(size, 1), 1)).collect();
        objects.into_iter().for_each(Object::free);
        let mut owners = [None; 64];
        let (mut count, mut objects, mut bytes, mut capacity) = (0, 0, 0, 0);
        perseq::for_each_cache(&mut |cache| {
            owners[count] = Some(cache.owner);
            count += 1;
            objects += cache.cached_objects;
            bytes += cache.cached_bytes;
            capacity += cache.capacity_bytes;
        });
        let total = stats();
        assert_eq!(
            (count as u64, objects, bytes, capacity),
            (total.caches, total.cached_objects, total.cached_bytes, total.capacity_bytes),
        );
        // SAFETY: sysconf has no preconditions.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) } as u32;
        let threads = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
        let threads: Vec<u32> =
            threads.map(|task| task.expect("an entry").file_name().to_string_lossy().parse().expect("an id")).collect();
        let owners: Vec<_> = owners.into_iter().flatten().collect();
        for (index, owner) in owners.iter().enumerate() {
            assert!(!owners[..index].contains(owner), "{owner:?} twice");
            match (total.mode.active, owner) {
                (Mode::PerCpu | Mode::PerCpuLock, Owner::Cpu(cpu)) => assert!(*cpu < cpus),
                (Mode::PerCpuMmCid, Owner::Cid(cid)) => assert!(*cid < cpus),
                (Mode::PerThread | Mode::PerThreadDrain, Owner::Thread(thread)) => {
                    assert!(threads.contains(thread), "{thread} of {threads:?}")
                }
                (Mode::Sharded, Owner::Shard(slot)) => assert!(*slot < 4 * cpus),
                (mode, owner) => panic!("{owner:?} in mode {mode}"),
            }
        }
    });
}
