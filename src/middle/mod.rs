//! The tiers behind the caches, put together: one set for the process, the same for every mode, and one for each
//! [`Heap`](crate::Heap).

pub mod central_free_list;
pub mod spare_arrays;
pub mod topology;
pub mod transfer_cache;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::kernel;

use self::central_free_list::CentralFreeList;
use self::transfer_cache::{Middle, TransferCaches};
use crate::page_heap::PageHeap;
use crate::page_heap::metadata::Metadata;
use crate::page_heap::source::{Mmap, PageSource};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;

/// Everything that is not a cache.
pub struct BackEnd<S: PageSource = Mmap> {
    /// Each class's locks on lines of their own.
    pub transfer: TransferCaches,
    pub central: [Padded<CentralFreeList>; CLASSES],
    pub pages: PageHeap<S>,
    pub metadata: Metadata,
}

/// The process's own.
pub static BACK_END: BackEnd = BackEnd::new(Mmap::new());

/// Shards of the process's transfer caches; 0 for one to a last-level cache.
static TRANSFER_SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_TRANSFER_SHARDS` says so.
pub fn set_transfer_shards(shards: usize) {
    TRANSFER_SHARDS.store(shards, Relaxed);
}

/// Gives the process's transfer caches a shard for each last-level cache, or as many as `PERSEQ_TRANSFER_SHARDS` says.
/// Without memory for that, there is one. By one thread at a time.
///
/// Reads a file for each last-level cache, so not before there are two caches that could keep apart: most processes are
/// short and never have a second.
pub fn split_transfer_caches() {
    let forced = TRANSFER_SHARDS.load(Relaxed);
    BACK_END.transfer.split(kernel::possible_cpus(), BACK_END.tables(), |table| {
        if forced == 0 {
            return topology::last_level_groups(table);
        }
        table.iter_mut().enumerate().for_each(|(cpu, shard)| *shard = (cpu % forced) as u8);
        forced
    });
}

/// Pages, and the allocator's own memory in them.
pub struct Tables<'a, S: PageSource> {
    pub pages: &'a PageHeap<S>,
    pub metadata: &'a Metadata,
}

impl<S: PageSource> Clone for Tables<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: PageSource> Copy for Tables<'_, S> {}

impl<S: PageSource> Tables<'_, S> {
    /// As [`Metadata::allocate`].
    pub fn allocate(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.metadata.allocate(self.pages, bytes, align)
    }
}

impl<S: PageSource> BackEnd<S> {
    pub const fn new(source: S) -> Self {
        BackEnd {
            transfer: TransferCaches::new(),
            central: [const { Padded(CentralFreeList::new()) }; CLASSES],
            pages: PageHeap::new(source),
            metadata: Metadata::new(),
        }
    }

    /// The transfer cache of `class` and what stands behind it.
    #[inline]
    pub fn middle(&self, class: SizeClass) -> Middle<'_, S> {
        Middle { class, transfer: &self.transfer, central: &self.central[class.index()], tables: self.tables() }
    }

    /// Pages and metadata.
    #[inline]
    pub fn tables(&self) -> Tables<'_, S> {
        Tables { pages: &self.pages, metadata: &self.metadata }
    }

    /// Empties the transfer caches into the spans, and gives spans without a live object back to the page heap.
    pub fn trim(&self) {
        for class in SizeClass::all() {
            self.middle(class).trim();
        }
    }

    /// Bytes that could be had for something else if nothing were kept: free pages, and free objects in transfer
    /// caches and spans.
    pub fn free_bytes(&self) -> usize {
        let kept = |class: SizeClass| {
            let central = self.central[class.index()].totals(class);
            (self.transfer.counts(class).length + central.free) * class.size()
        };
        self.pages.free_bytes() + SizeClass::all().map(kept).sum::<usize>()
    }
}
