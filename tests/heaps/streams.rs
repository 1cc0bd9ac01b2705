//! Random streams of operations on heaps and page allocators of their own, judged by the test kit.
//!
//! A child of a fork may use them if no other thread was using them at that moment: so a stream has either.

use std::alloc::{GlobalAlloc, Layout};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use allocator_test_kit::{Ability, Errno, Kit, Subject, Tally};
use perseq::Heap;
use perseq::pages::{Arena, Mmap, PageAllocator, PageSource};

struct Apart<S: PageSource>(Heap<S>);

// SAFETY: passes calls on.
unsafe impl<S: PageSource + Sync> Subject for Apart<S> {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same, here and below.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.realloc(block, layout, size) }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    fn drain(&self, _: bool) -> bool {
        self.0.release();
        true
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        let stats = self.0.stats();
        Some([stats.live_small_bytes, stats.live_large_bytes])
    }

    fn errno(&self) -> Errno {
        Errno::KEPT
    }
}

/// Runs of pages. Each block is as many as it needs.
struct Pages(PageAllocator<Mmap>);

// SAFETY: passes calls on.
unsafe impl Subject for Pages {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        self.0.allocate(layout.size(), layout.align()).map_or(null_mut(), |run| run.start.as_ptr())
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(run) = self.0.allocate(layout.size(), layout.align()) else { return null_mut() };
        if !run.zero {
            // SAFETY: the run is ours, and so long.
            unsafe { run.start.write_bytes(0, run.bytes) };
        }
        run.start.as_ptr()
    }

    unsafe fn resize(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        let Some(start) = NonNull::new(block) else { return null_mut() };
        // SAFETY: the run is ours.
        unsafe { self.0.resize(start, size) }.map_or(null_mut(), |run| run.start.as_ptr())
    }

    unsafe fn free(&self, block: *mut u8, _: Layout) {
        // SAFETY: the run is ours, and used no more.
        NonNull::new(block).into_iter().for_each(|start| unsafe { self.0.release(start) });
    }

    fn drain(&self, whole: bool) -> bool {
        if whole {
            self.0.release_free();
        }
        true
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        Some([0, self.0.stats().live_bytes])
    }
}

/// With threads, and then with forks.
fn passes<S: Subject>(kit: Kit, make: impl Fn() -> S) {
    for (absent, seed) in [(Ability::Fork, 1), (Ability::Threads, 2)] {
        let kit = kit.clone().seed(seed).without(absent);
        let passed = kit.run(&make).unwrap_or_else(|failure| panic!("{failure}"));
        let Tally { allocated, refused, resized, freed, drained, sent, forked, .. } = passed;
        let reached = [allocated, refused, resized, freed, drained, sent + forked];
        assert!(reached.iter().all(|count| *count > 0), "{passed:?}");
    }
}

#[test]
fn streams_on_a_heap() {
    passes(Kit::new().cases(40), || Apart(Heap::with_reserve(Mmap::new(), 4 << 30)));
}

#[test]
fn streams_on_a_heap_in_an_array() {
    let make = || {
        let memory: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(512 << 20));
        Apart(Heap::new(Arena::new(memory)))
    };
    passes(Kit::new().cases(40).most(1 << 16, 1 << 16), make);
}

#[test]
fn streams_on_pages() {
    // Runs that are resized keep the alignment to a page.
    let kit = Kit::new().cases(40).most(3 << 20, perseq::pages::PAGE_SIZE);
    passes(kit, || Pages(PageAllocator::new(Mmap::new(), 4 << 30)));
}
