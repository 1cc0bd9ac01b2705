//! Memory itself: its alignment, its contents, its exhaustion and its return.

mod kit;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::collections::HashSet;

use kit::object::{LARGE_SIZES, Object, SIZES, layout};
use kit::random::Random;
use kit::{Child, in_every_mode};
use perseq::{Mode, PAGE_SIZE};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

#[test]
fn alignment() {
    in_every_mode("alignment", || {
        let primes = [1, 3, 7, 13, 61, 127, 509, 1021, 4093, 8191, 16381, 32749, 65521, 1_048_573];
        for align in (0..=26).map(|bits| 1 << bits) {
            let sizes =
                primes.iter().copied().chain([align / 2 + 1, align, align + 1].into_iter().filter(|_| align > 1));
            // Two of each, so that the second does not profit from the first's place.
            let mut held = Vec::new();
            for (name, size) in sizes.enumerate() {
                let layout = layout(size, align);
                held.push(Object::new(layout, name as u64));
                held.push(Object::new_zeroed(layout, name as u64));
                let mut resized = Object::new(layout, name as u64);
                resized.try_resize(size + size / 3 + 1, 99).expect("memory");
                held.push(resized);
            }
            held.iter().for_each(Object::check);
            held.into_iter().for_each(Object::free);
        }
    });
}

/// Objects of 24 bytes aligned to 16 lie 32 bytes apart, and those aligned to 8, 24.
#[test]
fn objects_pack() {
    in_every_mode("objects_pack", || {
        for (size, align, by_default) in [(24, 16, 32), (24, 8, 24), (8, 8, 8), (1, 1, 8), (100, 4, 112), (64, 64, 64)]
        {
            let class = kit::class_of(size, align).expect("a class of that size and alignment");
            let stride = class.size;
            assert!(stride == by_default || perseq::BUILD_CONFIG != "default", "({size},{align}) in {stride}");
            let before = perseq::stats().live_small_bytes;
            let mut objects = Vec::with_capacity(8000);
            let vector = perseq::stats().live_small_bytes - before;
            objects.extend((0..8000).map(|name| Object::new(layout(size, align), name)));
            let bytes = perseq::stats().live_small_bytes - before - vector;
            assert_eq!(bytes, 8000 * stride, "({size},{align})");
            let pages: HashSet<_> = objects.iter().map(|object| object.address() / PAGE_SIZE).collect();
            let least = 8000u64.div_ceil(class.span_size / stride) as usize * (class.span_size as usize / PAGE_SIZE);
            // Spans with objects that were cached before.
            assert!(pages.len() <= least + least / 8 + 8, "({size},{align}) on {} pages, {least} suffice", pages.len());
            objects.into_iter().for_each(Object::free);
        }
    });
}

#[test]
fn zeroed_after_use() {
    in_every_mode("zeroed_after_use", || {
        for &size in SIZES.iter().chain(&LARGE_SIZES) {
            for round in 0..4 {
                let dirty: Vec<_> = (0..8).map(|name| Object::new(layout(size, 1), name)).collect();
                // In both orders, so that runs of pages are joined from both sides.
                let (odd, even): (Vec<_>, Vec<_>) =
                    dirty.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
                let (first, second) = if round % 2 == 0 { (odd, even) } else { (even, odd) };
                first.into_iter().chain(second).for_each(|(_, object)| object.free());
                if round == 2 {
                    perseq::release(); // some of what follows comes back from the kernel
                }
                let zeroed: Vec<_> = (0..4).map(|name| Object::new_zeroed(layout(size, 1), name)).collect();
                zeroed.into_iter().for_each(Object::free);
            }
        }
    });
}

#[test]
fn realloc_keeps_contents() {
    in_every_mode("realloc_keeps_contents", || {
        let mut random = Random::stream(3);
        let all: Vec<_> = SIZES.iter().chain(&LARGE_SIZES).copied().collect();
        for &from in &all {
            for _ in 0..12 {
                let mut object = Object::new(layout(from, 1 << random.below(8)), 1);
                for name in 2..4 {
                    object.try_resize(random.of(&all), name).expect("memory");
                }
                object.free();
            }
        }
        // Byte by byte over the limit between small and large, every byte compared.
        for (from, to) in
            [(32760, 32780), (32780, 32760), (100, 70_000), (70_000, 100), (8192, 8193), (1 << 20, 3 << 20)]
        {
            let bytes: Vec<u8> = (0..from).map(|place| (place * 7) as u8).collect();
            let mut other = bytes.clone();
            other.resize(to, 0xee);
            other.shrink_to_fit();
            let kept = from.min(to);
            assert!(other[..kept] == bytes[..kept] && other[kept..].iter().all(|byte| *byte == 0xee), "{from} to {to}");
        }
    });
}

/// Growth and shrinking that need no other memory keep the place.
#[test]
fn realloc_in_place() {
    in_every_mode("realloc_in_place", || {
        for (from, to) in [(33, 40), (40, 33), (129, 160), (33_000, 40_000), (40_960, 40_000)] {
            // SAFETY: sizes are not 0; freed with the last layout.
            unsafe {
                let old = alloc(layout(from, 8));
                let new = realloc(old, layout(from, 8), to);
                assert_eq!(old, new, "{from} to {to}");
                dealloc(new, layout(to, 8));
            }
        }
    });
}

/// Blocks come and go without the heap growing.
#[test]
fn large_blocks_are_reused() {
    in_every_mode("large_blocks_are_reused", || {
        let patterns: [&dyn Fn(&mut Random); 3] = [
            &|_| (0..50).for_each(|_| Object::new(layout(5 << 20, 8), 1).free()),
            &|_| {
                // Neighbours freed in a comb, then used as one.
                let comb: Vec<_> = (0..64).map(|name| Object::new(layout(256 << 10, 8), name)).collect();
                let (odd, even): (Vec<_>, Vec<_>) = comb.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
                odd.into_iter().chain(even).for_each(|(_, object)| object.free());
                Object::new(layout(15 << 20, 8), 1).free();
            },
            &|random| {
                let mut held = Vec::new();
                for name in 0..400 {
                    held.push(Object::new(layout(random.of(&LARGE_SIZES), 8), name));
                    if held.len() > 12 {
                        held.swap_remove(random.below(12)).free();
                    }
                }
                held.into_iter().for_each(Object::free);
            },
        ];
        let mut random = Random::stream(4);
        patterns.iter().for_each(|pattern| pattern(&mut random));
        let warm = perseq::stats();
        for _ in 0..4 {
            // The same random choices, so that the same memory suffices.
            let mut random = Random::stream(4);
            patterns.iter().for_each(|pattern| pattern(&mut random));
        }
        let end = perseq::stats();
        assert_eq!(end.live_large_bytes, warm.live_large_bytes);
        let grown = end.committed_bytes - warm.committed_bytes;
        assert!(grown <= 16 << 20, "the same work took {grown} bytes more: {warm:?} {end:?}");
    });
}

#[test]
fn memory_goes_back() {
    in_every_mode("memory_goes_back", || {
        const BYTES: u64 = 100 << 20;
        let hold = |size: usize| -> Vec<_> {
            (0..BYTES as usize / size).map(|name| Object::new(layout(size, 8), name as u64)).collect()
        };
        for size in [2000, 20_000, 200_000, 5 << 20] {
            perseq::release();
            let before = kit::resident_bytes();
            let objects = hold(size);
            let full = kit::resident_bytes();
            assert!(full > before + BYTES / 2, "{size}: writing made memory resident");
            objects.into_iter().for_each(Object::free);
            let returned = perseq::release();
            let stats = perseq::stats();
            assert!(returned > BYTES as usize / 2, "{size}: {stats:?}");
            assert_eq!(stats.free_page_bytes, 0, "{size}: {stats:?}");
            let after = kit::resident_bytes();
            // Tables stay, and caches hold a span each of a few sizes.
            assert!(after < before + (6 << 20), "{size}: {before} bytes before, {full} full, {after} after");
        }
    });
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().expect("an errno")
}

fn set_errno(value: i32) {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = value };
}

/// An allocator that succeeds leaves errno alone; one that fails sets it.
#[test]
fn errno_of_success_and_failure() {
    in_every_mode("errno_of_success_and_failure", || {
        set_errno(libc::EXDEV);
        let objects: Vec<_> = SIZES.iter().chain(&LARGE_SIZES).map(|&size| Object::new(layout(size, 1), 1)).collect();
        objects.into_iter().for_each(Object::free);
        perseq::drain();
        assert_eq!(errno(), libc::EXDEV);
        for layout in
            [layout(1 << 46, 8), layout(isize::MAX as usize - 64, 1), layout(64, 1 << 46), layout(1 << 43, 1 << 44)]
        {
            for allocate in [alloc, alloc_zeroed] {
                set_errno(0);
                // SAFETY: the size is not 0.
                let pointer = unsafe { allocate(layout) };
                assert!(pointer.is_null() && errno() == libc::ENOMEM, "{layout:?}: {pointer:?}, errno {}", errno());
            }
        }
        let mut object = Object::new(layout(100, 8), 5);
        assert!(object.try_resize(1 << 46, 6).is_none());
        assert_eq!(errno(), libc::ENOMEM);
        object.free();
    });
}

/// Fills memory with objects of `layout`; returns them. Their list is a chain through the objects, because
/// there is no memory for another.
fn fill(layout: Layout) -> (*mut *mut u8, usize) {
    let (mut head, mut count) = (std::ptr::null_mut::<*mut u8>(), 0);
    loop {
        // SAFETY: the size is 8 or more.
        let object = unsafe { alloc(layout) }.cast::<*mut u8>();
        if object.is_null() {
            assert_eq!(errno(), libc::ENOMEM);
            return (head, count);
        }
        // SAFETY: ours, of 8 bytes or more, aligned to 8.
        unsafe { object.write(head.cast()) };
        (head, count) = (object, count + 1);
    }
}

fn empty((mut head, count): (*mut *mut u8, usize), layout: Layout) {
    let mut freed = 0;
    while !head.is_null() {
        // SAFETY: an object of the chain, freed once, after its link was read.
        unsafe {
            let next = head.read();
            dealloc(head.cast(), layout);
            head = next.cast();
        }
        freed += 1;
    }
    assert_eq!(freed, count, "the chain through the objects is whole");
}

/// Bytes of address space that the program may still have.
fn room() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    SMALL_HEAP as usize - (size.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10)
}

/// Address space for a program with a small heap.
const SMALL_HEAP: u64 = 200 << 20;

/// With little address space the heap is small. All of it can be used for any size, again and again.
#[test]
fn exhaustion() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("exhaustion", "little address space").mode(mode).address_space(SMALL_HEAP).run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let start = perseq::stats();
    let room = room();
    let mut first = Vec::new();
    let sizes = [96, 320, 4096, 28672, 65536, 1 << 20, 10 << 20];
    for round in 0..2 {
        for (index, &size) in sizes.iter().enumerate() {
            let layout = layout(size, 8);
            let filled = fill(layout);
            // Of a small size as many bytes as its spans have: what no object fits into is the table's choice.
            let bytes = kit::class_of(size, 8).map_or(filled.1 * size, |class| {
                filled.1.div_ceil((class.span_size / class.size) as usize) * class.span_size as usize
            });
            empty(filled, layout);
            if round == 0 {
                first.push(bytes);
            }
            // What other threads' caches hold is not free, nor is a remainder of less than one object, nor the
            // end of a span that is no whole object.
            let least = (room - (4 << 20)) / 16 * 15 - size;
            assert!(
                bytes >= least,
                "round {round}: {bytes} bytes in objects of {size}, {} the first time",
                first[index]
            );
        }
    }
    let end = perseq::stats();
    assert!(end.live_small_bytes < start.live_small_bytes + (64 << 10), "{end:?}");
    assert_eq!(end.live_large_bytes, start.live_large_bytes);
}

/// Objects of all sizes, mixed, then all freed: what caches still hold of them must not keep memory from
/// other sizes when there is no other.
#[test]
fn exhaustion_by_a_mixture() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("exhaustion_by_a_mixture", "little").mode(mode).address_space(SMALL_HEAP).run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let reserved = room();
    for seed in 0..3 {
        let mut random = Random::stream(seed);
        let mut objects = Vec::with_capacity(200_000);
        for name in 0..objects.capacity() as u64 {
            let size = if random.once_in(3) { random.of(&SIZES) } else { 1 + random.below(32768) };
            let Some(object) = Object::try_new(layout(size, 8), name) else { break };
            objects.push(object);
        }
        assert!(objects.len() < objects.capacity(), "memory was exhausted");
        // In an order of no order, so that what stays in caches comes from everywhere.
        while !objects.is_empty() {
            objects.swap_remove(random.below(objects.len())).free();
        }
        drop(objects);
        let block = layout(4 << 20, 8);
        let filled = fill(block);
        let (bytes, stats) = (filled.1 * block.size(), perseq::stats());
        empty(filled, block);
        assert!(bytes >= reserved / 4 * 3, "of {reserved} bytes, {bytes} can be had in blocks of 4 MiB: {stats:?}");
    }
}

/// Everything freed, one block can have nearly all of it.
#[test]
fn exhaustion_then_one_block() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("exhaustion_then_one_block", "little").mode(mode).address_space(SMALL_HEAP).run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let reserved = room();
    for size in [100 << 10, 1 << 20, 7 << 20] {
        let layout = layout(size, 8);
        empty(fill(layout), layout);
        let block = Object::try_new(self::layout(reserved / 4 * 3, 8), 1);
        let stats = perseq::stats();
        block
            .unwrap_or_else(|| panic!("blocks of {size} were all freed, but three quarters is not there: {stats:?}"))
            .free();
    }
}

/// Too little address space for any heap: null and a reason, not a crash.
#[test]
fn no_room_at_all() {
    if kit::role().is_none() {
        let limits = [30 << 20, 60 << 20, 100 << 20, 134 << 20, 160 << 20, 210 << 20];
        for (mode, limit) in Mode::ALL.into_iter().flat_map(|mode| limits.map(|limit| (mode, limit))) {
            let outcome = Child::of("no_room_at_all", "none").mode(mode).address_space(limit).run();
            if outcome.stdout.contains("1 passed") {
                continue;
            }
            // Rust's own end for null, or ours where a caller asked for the mode.
            let known = [
                "memory allocation of",
                "no memory for the heap's tables",
                "perseq: ",
                "could not spawn",
                "ENOMEM",
                "os error 12",
            ];
            assert!(known.iter().any(|text| outcome.stderr.contains(text)), "{outcome}");
        }
        return;
    }
    let object = Object::new(layout(100, 8), 1);
    object.free();
}
