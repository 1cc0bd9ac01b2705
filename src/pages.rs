//! Pages without objects: the page allocator on its own, and where pages come from.
//!
//! ```
//! use perseq::pages::{Mmap, PageAllocator};
//!
//! let pages = PageAllocator::new(Mmap::new(), 1 << 30);
//! let run = pages.allocate(100_000, 1).expect("memory");
//! assert!(run.zero && run.bytes >= 100_000);
//! // SAFETY: the run is ours; after `resize` only the new one is used, after `release` neither.
//! unsafe {
//!     let longer = pages.resize(run.start, 10_000_000).expect("memory");
//!     pages.release(longer.start);
//! }
//! ```

use core::alloc::Layout;
use core::ptr::NonNull;

pub use crate::config::PAGE_SIZE;
use crate::misuse::Misuse;
use crate::page_heap::PageHeap;
use crate::page_heap::huge_pages::HugePageStats;
use crate::page_heap::large;
pub use crate::page_heap::source::{Mmap, PageSource, Relocation, Thp};
pub use crate::page_heap::sources::{Arena, Counting, Counts, Failing, HugeTlb, Tally};
use crate::page_heap::span::SpanId;

/// A page allocator with its own source. All operations take one lock; dropping it gives everything back, runs that
/// are still in use among it. Until then, what goes back is the contents of free pages: the regions that they lie in
/// stay the allocator's, as those of a [`Heap`](crate::Heap) do.
pub struct PageAllocator<S: PageSource = Mmap> {
    pages: PageHeap<S>,
}

/// Pages in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first byte.
    pub start: NonNull<u8>,
    /// The length, a multiple of [`PAGE_SIZE`].
    pub bytes: usize,
    /// They read as zero. Said by [`PageAllocator::allocate`] only.
    pub zero: bool,
}

/// What a page allocator holds, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PageStats {
    /// In the callers' hands.
    pub live_bytes: u64,
    /// Free, with old data: resident.
    pub free_bytes: u64,
    /// Free, reading as zero: given back, or never touched.
    pub released_bytes: u64,
    /// Committed.
    pub committed_bytes: u64,
    /// Address space for pages.
    pub reserved_bytes: u64,
    /// Moved without a copy, all told.
    pub relocated_bytes: u64,
    /// Huge pages by what they hold.
    pub huge_pages: HugePageStats,
}

impl<S: PageSource> PageAllocator<S> {
    /// For pages of at most `bound` bytes, rounded up to whole pages; less if the source has less. Address space is taken
    /// as the allocator grows, and tables of about a hundredth with it.
    pub const fn new(source: S, bound: usize) -> Self {
        PageAllocator { pages: PageHeap::new(source, bound) }
    }

    /// At least `bytes` in whole pages, `align`ed to a power of two. `None` if memory is exhausted, or if one of the
    /// numbers makes no sense.
    pub fn allocate(&self, bytes: usize, align: usize) -> Option<Run> {
        let layout = Layout::from_size_align(bytes.max(1), align).ok()?;
        let run = large::allocate(&self.pages, layout)?;
        self.run(run.id, run.zero)
    }

    /// Makes the run that begins at `start` one of `bytes`: where it is if what follows is free, else moved, without a
    /// copy where the source can. `None`, and the run is as it was, if memory is exhausted.
    ///
    /// # Safety
    ///
    /// * The run is the caller's. After success, it is the one returned.
    pub unsafe fn resize(&self, start: NonNull<u8>, bytes: usize) -> Option<Run> {
        let layout = Layout::from_size_align(bytes.max(1), 1).ok()?;
        let id = self.find(start);
        // SAFETY: by our own contract.
        let address = unsafe { large::resize(&self.pages, id, layout) }?;
        self.run(self.find(NonNull::new(address as *mut u8)?), false)
    }

    /// Takes back the run that begins at `start`. An address that begins none ends the process with a message.
    ///
    /// # Safety
    ///
    /// * Nobody uses the run any more.
    pub unsafe fn release(&self, start: NonNull<u8>) {
        let id = self.find(start);
        // SAFETY: by our own contract.
        unsafe { self.pages.release(id, false) };
        self.pages.tend();
    }

    /// Gives all free pages back to the source; returns how many bytes.
    pub fn release_free(&self) -> usize {
        self.pages.release_free()
    }

    /// What it holds now.
    pub fn stats(&self) -> PageStats {
        let totals = self.pages.totals();
        let bytes = |pages: usize| (pages * PAGE_SIZE) as u64;
        PageStats {
            live_bytes: bytes(totals.large),
            free_bytes: bytes(totals.free + totals.leaving),
            released_bytes: bytes(totals.zero),
            committed_bytes: bytes(totals.committed),
            reserved_bytes: self.pages.reserved_bytes() as u64,
            relocated_bytes: totals.moved * PAGE_SIZE as u64,
            huge_pages: totals.huge,
        }
    }

    /// Where its pages come from.
    pub fn source(&self) -> &S {
        self.pages.source()
    }

    fn find(&self, start: NonNull<u8>) -> SpanId {
        large::at(&self.pages, start.as_ptr() as usize).unwrap_or_else(|| Misuse::NoRunBeginsThere.end())
    }

    fn run(&self, id: SpanId, zero: bool) -> Option<Run> {
        let start = NonNull::new(self.pages.start(id) as *mut u8)?;
        Some(Run { start, bytes: self.pages.span(id).pages() * PAGE_SIZE, zero })
    }
}
