//! A heap of its own, apart from the process's.

use core::alloc::{GlobalAlloc, Layout};

use crate::by_layout;
use crate::config::PAGE_SIZE;
use crate::errno::out_of_memory;
use crate::middle::back_end::BackEnd;
use crate::misuse::{Misuse, judge};
use crate::page_heap::large;
use crate::page_heap::source::{Mmap, PageSource};
use crate::page_heap::span::SpanId;
use crate::size_class::SizeClass;

/// Bytes of pages that a heap may have, unless said otherwise.
const USUAL_BOUND: usize = 8 << 40;

/// A heap with its own source of pages, its own spans and its own transfer tier. Dropping it gives everything back at
/// once, blocks that are still in use among it.
///
/// It has the process heap's classes and tiers but no caches: each operation on a small block takes the lock of the
/// block's class, as in [`Mode::Central`](crate::Mode::Central). That is several times what the process's heap costs on
/// one thread (`cargo bench --bench tiers`), and threads that use one class wait for one another.
///
/// It may be used by any thread. A child of `fork` may use it only if no other thread of the parent was using it at
/// that moment, and a signal handler only if the thread that it interrupts was not. Its memory goes back to the source
/// under the policy of [`ReleasePolicy::After`](crate::ReleasePolicy) with the usual period, or by [`Heap::release`]:
/// the contents of free pages do, and are not resident then. The regions that they lie in stay the heap's until it is
/// dropped, with the tables, about a hundredth of them, that were touched: they are address space, and where
/// `vm.overcommit_memory` is 2 the kernel goes on accounting for what was committed.
///
/// ```
/// use std::alloc::{GlobalAlloc, Layout};
/// use perseq::{Heap, pages::Mmap};
///
/// let heap = Heap::new(Mmap::new());
/// let layout = Layout::new::<[u64; 100]>();
/// // SAFETY: the layout is not empty, and the block is freed with it.
/// unsafe {
///     let block = heap.alloc(layout);
///     assert!(!block.is_null());
///     heap.dealloc(block, layout);
/// }
/// assert_eq!(heap.stats().live_small_bytes, 0);
/// ```
pub struct Heap<S: PageSource = Mmap> {
    back: BackEnd<S>,
}

/// What a heap holds, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeapStats {
    /// Small blocks in the program's hands.
    pub live_small_bytes: u64,
    /// Large blocks in the program's hands.
    pub live_large_bytes: u64,
    /// Free small blocks between the spans and the program.
    pub transfer_bytes: u64,
    /// Free small blocks in spans.
    pub central_bytes: u64,
    /// Free pages with old data.
    pub free_page_bytes: u64,
    /// Free pages that read as zero.
    pub released_bytes: u64,
    /// Pages for the heap's own tables.
    pub metadata_bytes: u64,
    /// What is or may be resident.
    pub held_bytes: u64,
    /// Address space for pages; 0 before the first allocation.
    pub reserved_bytes: u64,
}

impl<S: PageSource> Heap<S> {
    /// A heap that takes nothing from `source` before its first allocation.
    pub const fn new(source: S) -> Self {
        Heap::with_reserve(source, USUAL_BOUND)
    }

    /// As [`Heap::new`], with pages of at most `bytes`, rounded up to whole pages; less if the source has less. Address
    /// space is taken as the heap grows, and tables of about a hundredth with it. The heap's own structures
    /// are in its pages, so it takes some hundred KiB for small blocks of more than a few sizes.
    pub const fn with_reserve(source: S, bytes: usize) -> Self {
        Heap { back: BackEnd::new(source, bytes) }
    }

    /// Gives all memory that nobody uses back to the source; returns how many bytes.
    pub fn release(&self) -> usize {
        judge(self.back.trim());
        self.back.pages.release_free()
    }

    /// What it holds now. Exact if nobody uses it meanwhile.
    pub fn stats(&self) -> HeapStats {
        let mut stats = HeapStats {
            live_small_bytes: 0,
            live_large_bytes: 0,
            transfer_bytes: 0,
            central_bytes: 0,
            free_page_bytes: 0,
            released_bytes: 0,
            metadata_bytes: 0,
            held_bytes: 0,
            reserved_bytes: self.back.pages.reserved_bytes() as u64,
        };
        let pages = self.back.pages.totals();
        let bytes = |pages: usize| (pages * PAGE_SIZE) as u64;
        stats.live_large_bytes = bytes(pages.large);
        stats.free_page_bytes = bytes(pages.free + pages.leaving);
        stats.released_bytes = bytes(pages.zero);
        stats.metadata_bytes = bytes(pages.own);
        stats.held_bytes = pages.held_bytes as u64;
        for class in SizeClass::all() {
            let central = self.back.central[class.index()].totals(class);
            let transfer = self.back.transfer.counts(class).length;
            stats.transfer_bytes += (transfer * class.size()) as u64;
            stats.central_bytes += (central.free * class.size()) as u64;
            // Between the two looks an object may have come.
            stats.live_small_bytes += (central.live.saturating_sub(transfer) * class.size()) as u64;
        }
        stats
    }

    /// Where its pages come from.
    pub fn source(&self) -> &S {
        self.back.pages.source()
    }

    /// A block, and whether it reads as zero.
    fn allocate(&self, layout: Layout) -> (*mut u8, bool) {
        let block = match SizeClass::of(layout) {
            Some(class) => self.or_trimmed(|| self.back.middle(class).remove_uncached()).map(|object| (object, false)),
            None => self
                .or_trimmed(|| large::allocate(&self.back.pages, layout))
                .map(|run| (self.back.pages.start(run.id) as *mut u8, run.zero)),
        };
        block.unwrap_or_else(|| (out_of_memory(), false))
    }

    /// What `allocate` returns, if need be after everything free was made one.
    fn or_trimmed<T>(&self, allocate: impl Fn() -> Option<T>) -> Option<T> {
        allocate().or_else(|| {
            judge(self.back.trim());
            self.back.pages.release_free();
            allocate()
        })
    }

    fn large(&self, pointer: *mut u8) -> SpanId {
        large::at(&self.back.pages, pointer as usize).unwrap_or_else(|| Misuse::FreeOfForeignToHeap.end())
    }
}

// SAFETY: as for `Perseq`: memory that belongs to nobody, of the size and alignment asked for.
unsafe impl<S: PageSource> GlobalAlloc for Heap<S> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout).0
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match SizeClass::of(layout) {
            Some(class) => judge(self.back.middle(class).insert_uncached(pointer)),
            // SAFETY: the caller gave the block up.
            None => unsafe { self.back.pages.release(self.large(pointer), false) },
        }
        self.back.pages.tend();
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: just allocated, of this layout.
        unsafe { by_layout::zeroed(self.allocate(layout), layout.size()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let resize_large = |block, new| {
            let id = self.large(block);
            // SAFETY: the block is the caller's.
            let resized = self.or_trimmed(|| unsafe { large::resize(&self.back.pages, id, new) });
            resized.map_or_else(out_of_memory, |address| address as *mut u8)
        };
        // SAFETY: by our own contract.
        unsafe { by_layout::realloc(self, pointer, layout, new_size, resize_large) }
    }
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Heap<Mmap>>();
};
