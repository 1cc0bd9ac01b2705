//! `Allocator` for `Perseq`, of allocator-api2: its contract, and collections that use it. The test binary's global
//! allocator is the system's, so all that perseq is asked for comes from here.

mod kit;

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use allocator_api2::alloc::{Allocator, Layout};
use allocator_api2::{boxed::Box, vec::Vec};
use perseq::{Perseq, stats};

/// One test at a time: what others hold is in the process's statistics as well.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

fn bytes<'a>(block: NonNull<[u8]>) -> &'a mut [u8] {
    // SAFETY: the tests' own blocks, written before they are read.
    unsafe { &mut *block.as_ptr() }
}

/// Asserts that `block` is one for `layout`, and that all of it may be written.
fn check(block: NonNull<[u8]>, layout: Layout) {
    assert!(block.len() >= layout.size() && block.cast::<u8>().addr().get().is_multiple_of(layout.align()));
    // SAFETY: the block's own bytes.
    unsafe { block.cast::<u8>().write_bytes(0xA5, block.len()) };
}

#[test]
fn blocks_are_what_the_layout_says() {
    let _alone = alone();
    let heap = Perseq::new();
    for align in (0..14).map(|bits| 1 << bits) {
        for size in [0, 1, 7, 8, 100, 1000, 4096, 30_000, 32_768, 32_769, 100_000] {
            let layout = layout(size, align);
            let block = heap.allocate(layout).expect("memory");
            check(block, layout);
            // The whole length fits the block as well as what was asked for.
            let fitting = Layout::from_size_align(block.len(), align).expect("a valid layout");
            // SAFETY: the block fits this layout.
            unsafe { heap.deallocate(block.cast(), fitting) };
            let zeroed = heap.allocate_zeroed(layout).expect("memory");
            assert!(bytes(zeroed).iter().all(|byte| *byte == 0));
            check(zeroed, layout);
            // SAFETY: as above.
            unsafe { heap.deallocate(zeroed.cast(), layout) };
        }
    }
}

#[test]
fn contents_survive_every_change_of_size_and_alignment() {
    let _alone = alone();
    let heap = &Perseq::new(); // a reference is an allocator too
    let sizes = [0, 1, 24, 30, 100, 127, 1000, 5000, 32_768, 40_000, 40_100, 1 << 20];
    for (index, &small) in sizes.iter().enumerate() {
        for &large in &sizes[index..] {
            for (before, after) in [(1, 1), (8, 64), (64, 8), (1, 4096), (4096, 1), (16, 1 << 16)] {
                let (old, new) = (layout(small, before), layout(large, after));
                let fill = |block: NonNull<[u8]>, size: usize| {
                    bytes(block)[..size].iter_mut().zip(0u8..=250).for_each(|(byte, value)| *byte = value);
                };
                let kept = |block: NonNull<[u8]>, size: usize| {
                    assert!(bytes(block)[..size].iter().zip(0u8..=250).all(|(byte, value)| *byte == value));
                };
                let block = heap.allocate(old).expect("memory");
                fill(block, small);
                // SAFETY: each block is live and fits the layout it was made with.
                unsafe {
                    let grown = heap.grow(block.cast(), old, new).expect("memory");
                    kept(grown, small);
                    check(grown, new);
                    fill(grown, large);
                    let shrunk = heap.shrink(grown.cast(), new, old).expect("memory");
                    kept(shrunk, small);
                    check(shrunk, old);
                    fill(shrunk, small);
                    let zeroed = heap.grow_zeroed(shrunk.cast(), old, new).expect("memory");
                    kept(zeroed, small);
                    assert!(bytes(zeroed)[small..].iter().all(|byte| *byte == 0));
                    heap.deallocate(zeroed.cast(), new);
                }
            }
        }
    }
}

/// Every size that a class holds is the same block, and its whole length says how far that goes.
/// A large block that moves for the sake of its alignment: what was never touched takes no memory at either place.
#[test]
fn a_change_of_alignment_keeps_what_was_never_touched_out_of_memory() {
    let _alone = alone();
    let heap = &Perseq::new();
    const BYTES: usize = 64 << 20;
    let (old, new) = (layout(BYTES, 8), layout(BYTES + 4096, BYTES));
    // SAFETY: the block is live and fits the layout it was made with; the places are within it.
    unsafe {
        let block = heap.allocate(old).expect("memory").cast::<u8>();
        let places = [0, 5 << 20, BYTES - 1];
        places.iter().for_each(|place| block.add(*place).write(42));
        let before = kit::resident_bytes();
        let grown = heap.grow(block, old, new).expect("memory").cast::<u8>();
        let after = kit::resident_bytes();
        assert!(grown.addr().get().is_multiple_of(BYTES) && grown != block);
        assert!(places.iter().all(|place| grown.add(*place).read() == 42) && grown.add(1 << 20).read() == 0);
        assert!(after < before + (4 << 20), "{before} then {after}");
        heap.deallocate(grown, new);
    }
}

#[test]
fn growing_within_a_class_moves_nothing() {
    let _alone = alone();
    let heap = Perseq::new();
    perseq::for_each_class(&mut |class| {
        let largest = class.size as usize;
        let old = layout(largest - 7, 1);
        let block = heap.allocate(old).expect("memory");
        assert_eq!(block.len(), largest);
        // SAFETY: the block fits each layout in turn.
        unsafe {
            let grown = heap.grow(block.cast(), old, layout(largest, 8)).expect("memory");
            assert_eq!((grown.cast::<u8>(), grown.len()), (block.cast::<u8>(), largest));
            let shrunk = heap.shrink(grown.cast(), layout(largest, 8), old).expect("memory");
            assert_eq!(shrunk.cast::<u8>(), block.cast::<u8>());
            heap.deallocate(shrunk.cast(), old);
        }
    });
    // A large block has whole pages.
    let old = layout(10 * perseq::PAGE_SIZE - 100, 8);
    let large = if old.size() > 40_960 { old } else { layout(100 * perseq::PAGE_SIZE - 100, 8) };
    let block = heap.allocate(large).expect("memory");
    // SAFETY: as above.
    unsafe {
        let grown = heap.grow(block.cast(), large, layout(large.size() + 100, 8)).expect("memory");
        assert_eq!(grown.cast::<u8>(), block.cast::<u8>());
        heap.deallocate(grown.cast(), layout(large.size() + 100, 8));
    }
}

#[test]
fn no_memory_is_an_error() {
    let _alone = alone();
    let heap = Perseq::new();
    let impossible = layout(isize::MAX as usize & !4095, 4096);
    assert!(heap.allocate(impossible).is_err() && heap.allocate_zeroed(impossible).is_err());
    let block = heap.allocate(layout(100, 8)).expect("memory");
    bytes(block)[..3].copy_from_slice(b"abc");
    // SAFETY: the block stays live if it cannot grow.
    unsafe {
        assert!(heap.grow(block.cast(), layout(100, 8), impossible).is_err());
        assert_eq!(&bytes(block)[..3], b"abc");
        heap.deallocate(block.cast(), layout(100, 8));
    }
}

#[test]
fn collections() {
    let _alone = alone();
    let before = stats();
    let mut numbers = Vec::new_in(Perseq::new());
    numbers.extend(0..10_000u64);
    let mut names = hashbrown::HashMap::with_capacity_in(16, Perseq::new());
    names.extend((0..1000u32).map(|number| (number, Box::new_in([number; 100], Perseq::new()))));
    assert!(names.iter().all(|(number, value)| value[99] == *number) && numbers.iter().sum::<u64>() == 49_995_000);
    let held = stats();
    assert!(held.live_small_bytes >= before.live_small_bytes + 400_000, "{before} {held}");
    assert!(held.live_large_bytes >= before.live_large_bytes + 80_000, "{before} {held}");
    drop((numbers, names));
    assert!(stats().live_small_bytes < held.live_small_bytes);
}
