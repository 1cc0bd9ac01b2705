//! Heaps and page allocators of their own, on every source of pages, and out of memory at any request.
//!
//! The test program itself runs on the system's allocator, so that nothing but the heap under test takes memory from
//! the source under test.

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;
mod blocks;
mod refusals;
mod streams;

use std::alloc::GlobalAlloc;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use blocks::{Block, Choices, every_path, layout, nothing_is_lost};
use perseq::Heap;
use perseq::pages::{Arena, Counting, HugeTlb, Mmap, PAGE_SIZE, PageAllocator, PageSource, Tally};

const MIB: usize = 1 << 20;

#[test]
fn every_path_on_every_source() {
    let heap = Heap::with_reserve(Mmap::new(), 1 << 30);
    assert_eq!(every_path(&heap, 3000), 0);
    nothing_is_lost(&heap);
    let heap = Heap::with_reserve(HugeTlb::new(), 1 << 30);
    assert_eq!(every_path(&heap, 3000), 0);
    let source = heap.source();
    assert!(source.huge_bytes() + source.ordinary_bytes() > 0);
    if source.huge_bytes() == 0 {
        absence::not_tested("huge-page-pool", "huge pages of the system's pool", "there are none (vm.nr_hugepages)");
        assert!(source.ordinary_bytes() > 0, "and what took their place is said");
    }
}

/// A kernel with pages of 64 KiB, as arm64's may have: it is asked for whole ones only.
struct LargePages(Mmap);

impl LargePages {
    fn check(start: NonNull<u8>, bytes: usize) {
        let whole = (start.as_ptr() as usize | bytes).is_multiple_of(Self::GRANULE);
        assert!(whole, "{bytes:#x} bytes at {start:?} are no whole pages");
    }
}

// SAFETY: does what `Mmap` does.
unsafe impl PageSource for LargePages {
    const GRANULE: usize = 65_536;

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.0.reserve(bytes)
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract, here and below.
        unsafe { self.0.unreserve(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        LargePages::check(start, bytes);
        // SAFETY: as above.
        unsafe { self.0.commit(start, bytes) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        LargePages::check(start, bytes);
        // SAFETY: as above.
        unsafe { self.0.release(start, bytes) }
    }
}

/// What lies in the kernel's larger pages goes back as far as they are whole.
#[test]
fn pages_smaller_than_the_kernels() {
    for reserve in [32 * MIB, 1 << 30] {
        let heap = Heap::with_reserve(LargePages(Mmap::new()), reserve);
        assert_eq!(every_path(&heap, 3000), 0);
        nothing_is_lost(&heap);
        let stats = heap.stats();
        assert!(stats.free_page_bytes * 6 < stats.released_bytes, "{stats:?}");
    }
}

/// Regions end where the kernel's pages do, however much the heap may have.
#[test]
fn regions_of_whole_pages() {
    for bound in [100_000, 40 * MIB + 24_576, 200 * MIB] {
        let pages = PageAllocator::new(LargePages(Mmap::new()), bound);
        let runs: Vec<_> = std::iter::from_fn(|| pages.allocate(MIB.min(bound / 7), 1)).collect();
        let sum: usize = runs.iter().map(|run| run.bytes).sum();
        assert!(sum <= bound + LargePages::GRANULE && sum + bound / 4 >= bound, "{sum} of {bound} bytes");
        // SAFETY: ours, and released once.
        runs.into_iter().for_each(|run| unsafe { pages.release(run.start) });
        pages.release_free();
    }
}

fn arena(bytes: usize) -> Arena {
    let mut memory = Vec::with_capacity(bytes);
    memory.resize(bytes, MaybeUninit::new(0xee)); // what it holds does not matter
    Arena::new(memory.leak())
}

/// A heap in a fixed piece of memory: blocks are in it, it is used to its end, and once more after it is freed.
#[test]
fn fixed_arena() {
    for bytes in [100_000, MIB, 8 * MIB + 12345, 80 * MIB] {
        let memory: &'static mut [MaybeUninit<u8>] = vec![MaybeUninit::new(0xee); bytes].leak();
        let range = memory.as_ptr_range();
        let range = range.start as usize..range.end as usize;
        let heap = Heap::new(Arena::new(memory));
        for size in [5000, 40_000, 100, 20_000] {
            let (mut held, mut sum) = (Vec::new(), 0);
            while let Some(block) = Block::new(&heap, layout(size, 8), 7) {
                assert!(range.contains(&(block.start.as_ptr() as usize)));
                held.push(block);
                sum += size;
            }
            let stats = heap.stats();
            // Less than a span's worth of the largest size.
            assert!(sum + 128 * 1024 + bytes / 8 >= bytes, "{sum} of {bytes} in blocks of {size}: {stats:?}");
            held.into_iter().for_each(|block| block.free(&heap));
        }
    }
    let small = Heap::new(arena(4096));
    assert!(Block::new(&small, layout(8, 8), 1).is_none(), "no room for a page");
    assert!(every_path(&Heap::new(arena(2 * MIB)), 2000) > 0, "2 MiB are too few, and nothing breaks");
}

/// What a heap took from its source it gives back when it is dropped, blocks in use among it. What it takes is what it
/// needs, and some more: not its bound.
#[test]
fn dropped_heaps_leave_nothing() {
    let tally = Tally::new();
    for _ in 0..50 {
        let heap = Heap::with_reserve(Counting::new(Mmap::new(), &tally), 77 << 30);
        assert_eq!(tally.counts().reserved, 0, "nothing is taken before the first allocation");
        let blocks: Vec<_> = [10, 1000, 100_000, 5 * MIB, 200 * MIB, 3 * MIB]
            // SAFETY: the size is not 0.
            .map(|size| unsafe { heap.alloc(layout(size, 8)) })
            .into_iter()
            .collect();
        assert!(blocks.iter().all(|block| !block.is_null()));
        let counts = tally.counts();
        assert!(counts.reserved >= 208 * MIB as u64 && counts.committed >= 208 * MIB as u64, "{counts:?}");
        assert!(counts.reserved < 208 * MIB as u64 / 2 * 3 + 64 * MIB as u64, "{counts:?}");
        drop(heap);
        assert_eq!(tally.counts().reserved, 0);
    }
}

/// A heap that may have little has that, however little: down to one page.
#[test]
fn small_bounds() {
    for bound in [1, PAGE_SIZE, 3 * PAGE_SIZE + 1, 100_000, MIB, 8 * MIB, 15 * MIB, 16 * MIB] {
        let pages = PageAllocator::new(Mmap::new(), bound);
        let most = bound.next_multiple_of(PAGE_SIZE);
        let one = pages.allocate(most, 1).unwrap_or_else(|| panic!("all of {bound} bytes at once"));
        // SAFETY: ours, and so long.
        unsafe { one.start.write_bytes(7, most) };
        assert!(pages.allocate(1, 1).is_none(), "{bound} bytes are the bound");
        // SAFETY: the run is not used any more.
        unsafe { pages.release(one.start) };
        let runs: Vec<_> = std::iter::from_fn(|| pages.allocate(PAGE_SIZE, 1)).collect();
        assert_eq!(runs.len(), most / PAGE_SIZE, "{bound} bytes, page by page");
    }
    for bound in [MIB, 8 * MIB, 15 * MIB] {
        let heap = Heap::with_reserve(Mmap::new(), bound);
        let blocks: Vec<_> = (0..).map_while(|name| Block::new(&heap, layout(1000, 8), name as u8)).collect();
        assert!(blocks.len() * 1000 >= bound / 16 * 13, "{} blocks of 1000 in {bound} bytes", blocks.len());
        blocks.iter().for_each(|block| block.check(1000));
        let stats = heap.stats();
        assert!(stats.held_bytes as usize <= bound + bound / 32 + (64 << 10), "{bound}: {stats:?}");
    }
    assert!(PageAllocator::new(Mmap::new(), 0).allocate(1, 1).is_none(), "nothing is nothing");
}

/// A heap of many regions: blocks in all of them are found, grow, shrink, and are given back.
#[test]
fn many_regions() {
    let heap = Heap::with_reserve(Mmap::new(), 8 << 30);
    let mut blocks = Vec::new();
    for round in 0..60 {
        blocks.push(Block::new(&heap, layout(20 * MIB, 8), round).expect("memory"));
        blocks.push(Block::new(&heap, layout(100 + usize::from(round) * 50, 8), round).expect("memory"));
    }
    let full = heap.stats();
    assert!(full.reserved_bytes >= 1200 * MIB as u64, "{full:?}");
    for block in &mut blocks {
        block.check(block.layout.size());
        assert!(block.resize(&heap, block.layout.size() * 2));
    }
    blocks.into_iter().for_each(|block| block.free(&heap));
    heap.release();
    let end = heap.stats();
    assert_eq!((end.live_large_bytes, end.live_small_bytes, end.free_page_bytes), (0, 0, 0), "{end:?}");
}

/// Threads use one heap, and what one allocates another frees.
#[test]
fn shared_between_threads() {
    let heap = Heap::with_reserve(Mmap::new(), 1 << 30);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (send, receive) = std::sync::mpsc::sync_channel::<Block>(64);
            let heap = &heap;
            scope.spawn(move || {
                let mut choices = Choices(5);
                for step in 0..20_000 {
                    let size = 1 + choices.below(2000);
                    let block = Block::new(heap, layout(size, 8), step as u8).expect("memory");
                    send.send(block).expect("a receiver");
                }
            });
            scope.spawn(move || receive.into_iter().for_each(|block| block.free(heap)));
        }
    });
    let stats = heap.stats();
    assert_eq!(stats.live_small_bytes, 0, "{stats:?}");
}

/// Who looks at a heap in use gets numbers of different moments, and no error.
#[test]
fn stats_of_a_heap_in_use() {
    let heap = Heap::new(Mmap::new());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 500 {
                let stats = heap.stats();
                assert!(stats.live_small_bytes <= stats.reserved_bytes, "{stats:?}");
            }
        });
        while !reader.is_finished() {
            // In each class from no object out of a span to one in the transfer cache, and back.
            for size in (16..4096).step_by(64) {
                Block::new(&heap, layout(size, 8), 1).expect("memory").free(&heap);
            }
            heap.release();
        }
    });
}

/// Runs of pages on their own: aligned, zeroed, resized where they are or moved, and given back.
#[test]
fn page_allocator() {
    let tally = Tally::new();
    let pages = PageAllocator::new(Counting::new(Mmap::new(), &tally), 1 << 40);
    let run = pages.allocate(100_000, 1).expect("memory");
    assert!(run.zero && run.bytes == 100_000usize.next_multiple_of(PAGE_SIZE));
    let aligned = pages.allocate(1, 1 << 32).expect("memory");
    assert!((aligned.start.as_ptr() as usize).is_multiple_of(1 << 32) && aligned.bytes == PAGE_SIZE);
    let big = pages.allocate(64 * MIB, 1).expect("memory");
    let wall = pages.allocate(PAGE_SIZE, 1).expect("memory");
    // SAFETY: each run is ours and as long as it says; after `resize`, the new one.
    unsafe {
        big.start.write_bytes(0x77, big.bytes);
        let moved = pages.resize(big.start, 2 * big.bytes).expect("memory");
        let bytes = std::slice::from_raw_parts(moved.start.as_ptr(), big.bytes);
        assert!(bytes.iter().all(|byte| *byte == 0x77));
        let cut = pages.resize(moved.start, 10).expect("shorter");
        assert_eq!((cut.start, cut.bytes), (moved.start, PAGE_SIZE));
        let longer = pages.resize(cut.start, 5 * PAGE_SIZE).expect("room behind it");
        assert_eq!(longer.start, moved.start);
        let stats = pages.stats();
        assert_eq!(stats.live_bytes as usize, run.bytes + aligned.bytes + 5 * PAGE_SIZE + wall.bytes);
        assert_eq!(tally.counts().relocated, stats.relocated_bytes);
        for run in [run, aligned, longer, wall] {
            pages.release(run.start);
        }
    }
    assert!(pages.release_free() > 0);
    let stats = pages.stats();
    assert_eq!((stats.live_bytes, stats.free_bytes), (0, 0), "{stats:?}");
    assert!(pages.allocate(1 << 45, 1).is_none() && pages.allocate(1, 3).is_none());
    drop(pages);
    assert_eq!(tally.counts().reserved, 0);
}
