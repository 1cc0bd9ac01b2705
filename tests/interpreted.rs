//! A heap and a page allocator in a fixed array, by one thread and without a system call: what an interpreter can run.
//! `tests/sanitizers/miri.sh` runs this in Miri, which sees every access that is not allowed.

use std::alloc::{GlobalAlloc, Layout};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use perseq::Heap;
use perseq::pages::{Arena, PAGE_SIZE, PageAllocator};

const BYTES: usize = 4 << 20;

fn arena() -> Arena {
    Arena::new(vec![MaybeUninit::uninit(); BYTES].leak())
}

/// The next of a fixed row of numbers, below `limit`.
fn next(seed: &mut u64, limit: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % limit
}

#[test]
fn a_heap() {
    let heap = Heap::new(arena());
    let mut held: Vec<(NonNull<u8>, Layout)> = Vec::new();
    let mut seed = 1;
    for _ in 0..400 {
        if next(&mut seed, 3) > 0 {
            let size = [8, 24, 100, 1000, 5000, 40_000][next(&mut seed, 6)];
            let layout = Layout::from_size_align(size, 8 << next(&mut seed, 4)).expect("a layout");
            // SAFETY: the size is not 0; the block has a first byte and a last.
            unsafe {
                let Some(block) = NonNull::new(heap.alloc(layout)) else { continue };
                block.write(1);
                block.add(size - 1).write(1);
                held.push((block, layout));
            }
        } else if !held.is_empty() {
            let place = next(&mut seed, held.len());
            let (block, layout) = held.swap_remove(place);
            // SAFETY: allocated above, with this layout; freed once, or moved.
            unsafe {
                if next(&mut seed, 4) == 0 {
                    let moved = heap.realloc(block.as_ptr(), layout, layout.size() * 2);
                    let size = if moved.is_null() { layout.size() } else { layout.size() * 2 };
                    let moved = NonNull::new(moved).unwrap_or(block);
                    assert_eq!(moved.read(), 1);
                    held.push((moved, Layout::from_size_align(size, layout.align()).expect("a layout")));
                } else {
                    heap.dealloc(block.as_ptr(), layout);
                }
            }
        }
    }
    for (block, layout) in held {
        // SAFETY: as above.
        unsafe { heap.dealloc(block.as_ptr(), layout) };
    }
    heap.release();
    let stats = heap.stats();
    assert_eq!((stats.live_small_bytes, stats.live_large_bytes, stats.central_bytes), (0, 0, 0), "{stats:?}");
}

#[test]
fn runs_of_pages() {
    let pages = PageAllocator::new(arena(), BYTES);
    let (mut held, mut seed) = (Vec::new(), 2);
    for _ in 0..200 {
        if next(&mut seed, 2) == 0 {
            let count = 1 + next(&mut seed, 20);
            let Some(run) = pages.allocate(count * PAGE_SIZE, 1) else { continue };
            // SAFETY: the run is ours, and as long as it says.
            unsafe { run.start.as_ptr().write_bytes(1, run.bytes) };
            held.push(run.start);
        } else if !held.is_empty() {
            let place = next(&mut seed, held.len());
            let start = held.swap_remove(place);
            // SAFETY: a run of ours; given back once, or resized.
            unsafe {
                match pages.resize(start, (1 + next(&mut seed, 20)) * PAGE_SIZE) {
                    Some(resized) => held.push(resized.start),
                    None => pages.release(start),
                }
            }
        }
    }
    for start in held {
        // SAFETY: as above.
        unsafe { pages.release(start) };
    }
    assert_eq!(pages.stats().live_bytes, 0);
}
