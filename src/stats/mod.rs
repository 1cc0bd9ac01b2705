//! What every tier holds and has done: in total, by cache and by size class.
//!
//! Everything here is counted on slow paths, under locks that are taken anyway, or derived from what the tiers hold
//! at the moment. So it is exact if nothing is allocated or freed meanwhile. At such a moment
//!
//! ```text
//! committed = held + released + untouched         held = small spans + large + free pages
//! small spans = live + cached + transfer + central + quarantined + rest
//! allocations = hits + underflows + uncached      frees = hits + overflows + uncached
//! ```
//!
//! Hits are known only to a build with the feature `count-hits` ([`COUNTS_HITS`]): the fast path has no room for a
//! counter. Frees of an object that another CPU or thread allocated are not counted in any build: an object has no
//! home it could be remote from. What moves between caches shows in `refilled_objects` and `flushed_objects`.

pub mod report;

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use crate::config::PAGE_SIZE;
use crate::front_end::hits;
use crate::front_end::registry;
use crate::hardened;
use crate::middle::BACK_END;
use crate::process::active_mode;
use crate::process::mode::{ActiveMode, Mode};
use crate::size_class::{CLASSES, SizeClass};

/// Whether this build counts hits (feature `count-hits`). Where it does not, fields of hits are 0.
pub const COUNTS_HITS: bool = hits::COUNTED;

/// Whose cache it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A CPU, by the kernel's `cpu_id`.
    Cpu(u32),
    /// A concurrency id (`mm_cid`).
    Cid(u32),
    /// A thread, by its kernel thread id.
    Thread(u32),
    /// A slot of the mode `sharded`.
    Shard(u32),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Cpu(number) => write!(f, "cpu {number}"),
            Owner::Cid(number) => write!(f, "cid {number}"),
            Owner::Thread(number) => write!(f, "thread {number}"),
            Owner::Shard(number) => write!(f, "slot {number}"),
        }
    }
}

/// A structure of numbers that knows their names: one list for the fields, the text and the JSON.
macro_rules! numbers {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident [$($(#[$key_doc:meta])* $key:ident: $key_type:ty)?] {
            $($(#[$doc:meta])* pub $field:ident,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[$key_doc])* pub $key: $key_type,)?
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// The names of the numbers, in their order. Those that this build does not count are among them.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// The numbers, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field),*]
            }

            pub(crate) fn zero($($key: $key_type)?) -> Self {
                $name { $($key,)? $($field: 0),* }
            }
        }
    };
}

numbers! {
    /// One front-end cache.
    #[derive(Clone, Copy, Debug)]
    pub struct CacheStats [
        /// Whose it is.
        owner: Owner
    ] {
        /// Objects cached now.
        pub cached_objects,
        /// Bytes of those objects (size-class sizes).
        pub cached_bytes,
        /// Bytes the cache could hold with its present lists.
        pub capacity_bytes,
        /// Allocations served by a list. See [`COUNTS_HITS`].
        pub alloc_hits,
        /// Frees that a list took. See [`COUNTS_HITS`].
        pub free_hits,
        /// Allocations that found a list empty and were served by a batch from behind.
        pub underflows,
        /// Frees that found a list full, or without room yet.
        pub overflows,
        /// Objects moved into the cache from behind.
        pub refilled_objects,
        /// Objects moved out of it.
        pub flushed_objects,
        /// Times a thread came to it from another CPU (or concurrency id).
        pub index_changes,
    }
}

numbers! {
    /// One size class, over all tiers. What caches of ended threads did is included.
    #[derive(Clone, Copy, Debug)]
    pub struct ClassStats [] {
        /// Bytes of an object.
        pub size,
        /// Objects moved between tiers at a time.
        pub batch,
        /// Bytes of a span.
        pub span_size,
        /// Spans that exist.
        pub spans,
        /// Objects in the hands of the program.
        pub live_objects,
        /// Objects in caches.
        pub cached_objects,
        /// Objects in the transfer cache.
        pub transfer_objects,
        /// Free objects in spans.
        pub central_objects,
        /// Freed objects that are kept from use (`PERSEQ_HARDENED`).
        pub quarantined_objects,
        /// See [`CacheStats::alloc_hits`].
        pub alloc_hits,
        /// See [`CacheStats::free_hits`].
        pub free_hits,
        /// See [`CacheStats::underflows`].
        pub underflows,
        /// See [`CacheStats::overflows`].
        pub overflows,
        /// Objects moved into caches.
        pub refilled_objects,
        /// Objects moved out of caches.
        pub flushed_objects,
        /// Allocations that went past the caches.
        pub uncached_allocs,
        /// Frees that went past the caches.
        pub uncached_frees,
        /// Times the central free list was asked for objects or given some.
        pub central_visits,
    }
}

numbers! {
    /// Totals over the whole allocator. Bytes unless said otherwise.
    ///
    /// ```
    /// println!("{}", perseq::stats()); // every number on a line of its own
    /// let mut json = String::new();
    /// perseq::stats().write_json(&mut json).unwrap();
    /// ```
    #[derive(Clone, Copy, Debug)]
    pub struct Stats [
        /// The mode and its reason.
        mode: ActiveMode
    ] {
        /// Caches that exist now.
        pub caches,
        /// Objects in all caches.
        pub cached_objects,
        /// Bytes in all caches.
        pub cached_bytes,
        /// Bytes all caches could hold with their present lists.
        pub capacity_bytes,
        /// Bytes in the transfer cache.
        pub transfer_bytes,
        /// Bytes of free objects in spans of the central free lists.
        pub central_bytes,
        /// Bytes of freed objects, small and large, that are kept from use (`PERSEQ_HARDENED`).
        pub quarantined_bytes,
        /// Bytes at the ends of those spans that are no object.
        pub span_rest_bytes,
        /// Bytes of the spans of small objects: live, free and the rest.
        pub small_span_bytes,
        /// Bytes of small objects in the hands of the program.
        pub live_small_bytes,
        /// Bytes of large objects in the hands of the program, with the pages that guard them (`PERSEQ_HARDENED`).
        pub live_large_bytes,
        /// Bytes of free pages that are still resident.
        pub free_page_bytes,
        /// Bytes of free pages that read as zero: given back to the kernel, or never touched.
        pub released_bytes,
        /// Bytes committed ahead of use.
        pub untouched_bytes,
        /// Bytes that are or may be resident: pages in use, free pages with old data, and the allocator's own.
        pub held_bytes,
        /// The most that was ever held.
        pub peak_held_bytes,
        /// Bytes of pages ever committed. It never falls, so it is its own peak.
        pub committed_bytes,
        /// Bytes of address space reserved for pages.
        pub reserved_bytes,
        /// Bytes of the allocator's own: pages for its structures, and tables.
        pub metadata_bytes,
        /// Of these, bytes of the tables that say what each page is for, which lie beside the pages.
        pub table_bytes,
        /// Bytes of pages that were given back to the kernel, all told.
        pub returned_bytes,
        /// Bytes of large blocks that were moved by the kernel instead of copied, all told.
        pub relocated_bytes,
        /// The kernel's huge pages (2 MiB) that hold no page in use; those never used do not count.
        pub huge_pages_free,
        /// Huge pages with some pages in use.
        pub huge_pages_partly_used,
        /// Huge pages with all pages in use.
        pub huge_pages_fully_used,
        /// Of the free and the partly used ones, those that are resident in part.
        pub huge_pages_released_in_part,
        /// Allocations served by a cache's list. See [`COUNTS_HITS`].
        pub alloc_hits,
        /// Frees that a cache's list took. See [`COUNTS_HITS`].
        pub free_hits,
        /// Allocations that found a cache's list empty and were served by a batch from behind.
        pub underflows,
        /// Frees that found a cache's list full, or without room yet.
        pub overflows,
        /// Objects moved into caches.
        pub refilled_objects,
        /// Objects moved out of caches.
        pub flushed_objects,
        /// Allocations of small objects that had to go past the caches (stopped CPU, foreign CPU id, exiting thread, central mode).
        pub uncached_allocs,
        /// Frees of small objects that had to go past the caches.
        pub uncached_frees,
        /// Times the central free lists were asked for objects or given some: at most once per batch.
        pub central_visits,
        /// Times a thread found itself on another CPU (or cid) than at its last operation.
        pub index_changes,
        /// Times a cache was emptied because it was idle.
        pub idle_drains,
        /// Times a cache gave budget to another that missed.
        pub lendings,
        /// Sequences aborted by the kernel and restarted. Of the whole process: an aborted sequence has no cache.
        pub restarts,
    }
}

/// Looks at every tier. Exact if nothing is allocated or freed meanwhile.
#[must_use]
pub fn stats() -> Stats {
    let mut stats = Stats::zero(active_mode());
    for_each_class(&mut |class| stats.add_class(class));
    for_each_cache(&mut |cache| {
        stats.caches += 1;
        stats.capacity_bytes += cache.capacity_bytes;
    });
    for cache in registry::all() {
        stats.index_changes += cache.arrivals.load(Relaxed);
        stats.idle_drains += cache.idle_drains.load(Relaxed);
        stats.lendings += cache.lendings.load(Relaxed);
    }
    stats.restarts = rseq::restarts();
    let pages = BACK_END.pages.totals();
    let bytes = |pages: usize| (pages * PAGE_SIZE) as u64;
    let quarantined = hardened::quarantined_pages();
    stats.live_large_bytes = bytes(pages.large.saturating_sub(quarantined));
    stats.quarantined_bytes += bytes(quarantined);
    stats.free_page_bytes = bytes(pages.free + pages.leaving);
    stats.released_bytes = bytes(pages.zero);
    let held = pages.small + pages.large + pages.own + pages.free + pages.leaving;
    stats.untouched_bytes = bytes(pages.committed - held - pages.zero);
    stats.held_bytes = pages.held_bytes as u64;
    stats.peak_held_bytes = pages.peak_bytes as u64;
    stats.table_bytes = stats.held_bytes - bytes(held);
    stats.metadata_bytes = bytes(pages.own) + stats.table_bytes;
    stats.returned_bytes = pages.released * PAGE_SIZE as u64;
    stats.relocated_bytes = pages.moved * PAGE_SIZE as u64;
    stats.huge_pages_free = pages.huge.free;
    stats.huge_pages_partly_used = pages.huge.partly_used;
    stats.huge_pages_fully_used = pages.huge.fully_used;
    stats.huge_pages_released_in_part = pages.huge.released_in_part;
    stats.committed_bytes = bytes(pages.committed);
    stats.reserved_bytes = BACK_END.pages.reserved_bytes() as u64;
    stats
}

impl Stats {
    fn add_class(&mut self, class: &ClassStats) {
        let free = class.cached_objects + class.transfer_objects + class.central_objects + class.quarantined_objects;
        let objects = class.live_objects + free;
        self.cached_objects += class.cached_objects;
        self.cached_bytes += class.cached_objects * class.size;
        self.transfer_bytes += class.transfer_objects * class.size;
        self.central_bytes += class.central_objects * class.size;
        self.quarantined_bytes += class.quarantined_objects * class.size;
        self.live_small_bytes += class.live_objects * class.size;
        self.small_span_bytes += class.spans * class.span_size;
        // Between two looks at the tiers an object may be counted twice.
        self.span_rest_bytes += (class.spans * class.span_size).saturating_sub(objects * class.size);
        self.alloc_hits += class.alloc_hits;
        self.free_hits += class.free_hits;
        self.underflows += class.underflows;
        self.overflows += class.overflows;
        self.refilled_objects += class.refilled_objects;
        self.flushed_objects += class.flushed_objects;
        self.uncached_allocs += class.uncached_allocs;
        self.uncached_frees += class.uncached_frees;
        self.central_visits += class.central_visits;
    }
}

/// Calls `f` with each cache that has an owner. `f` holds no lock; what it allocates through perseq may be counted.
pub fn for_each_cache(f: &mut dyn FnMut(&CacheStats)) {
    let mode = active_mode().active;
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        let number = cache.owner.load(Relaxed);
        let mut stats = CacheStats::zero(match mode {
            Mode::PerCpu | Mode::PerCpuLock => Owner::Cpu(number),
            Mode::PerCpuMmCid => Owner::Cid(number),
            Mode::Sharded => Owner::Shard(number),
            Mode::PerThread | Mode::PerThreadDrain | Mode::Central => Owner::Thread(number),
        });
        let held = cache.holdings(|_, _| ());
        stats.cached_objects = held.objects as u64;
        stats.cached_bytes = held.bytes as u64;
        stats.capacity_bytes = held.capacity_bytes as u64;
        stats.index_changes = cache.arrivals.load(Relaxed);
        for (class, counts) in SizeClass::all().zip(&cache.counts) {
            let (alloc_hits, free_hits) = cache.hits.of(class);
            stats.alloc_hits += alloc_hits;
            stats.free_hits += free_hits;
            stats.underflows += counts.underflows.load(Relaxed);
            stats.overflows += counts.overflows.load(Relaxed);
            stats.refilled_objects += counts.refilled.load(Relaxed);
            stats.flushed_objects += counts.flushed.load(Relaxed);
        }
        f(&stats);
    }
}

/// Calls `f` with each size class, smallest first. `f` holds no lock; what it allocates through perseq may be counted.
pub fn for_each_class(f: &mut dyn FnMut(&ClassStats)) {
    let mut cached = [0; CLASSES];
    // A retired cache is empty, but what it did counts below.
    for cache in registry::all() {
        cache.holdings(|class, objects| cached[class.index()] += objects as u64);
    }
    for class in SizeClass::all() {
        let mut stats = ClassStats::zero();
        let transfer = BACK_END.transfer.counts(class);
        let central = BACK_END.central[class.index()].totals(class);
        stats.size = class.size() as u64;
        stats.batch = u64::from(class.info().batch);
        stats.span_size = u64::from(class.info().pages) * PAGE_SIZE as u64;
        stats.spans = central.spans as u64;
        stats.cached_objects = cached[class.index()];
        stats.transfer_objects = transfer.length as u64;
        stats.central_objects = central.free as u64;
        stats.quarantined_objects = hardened::quarantined(class) as u64;
        let elsewhere = stats.cached_objects + stats.transfer_objects + stats.quarantined_objects;
        stats.live_objects = (central.live as u64).saturating_sub(elsewhere);
        stats.uncached_allocs = transfer.uncached_allocs;
        stats.uncached_frees = transfer.uncached_frees;
        stats.central_visits = transfer.central_visits;
        for cache in registry::all() {
            let counts = &cache.counts[class.index()];
            let (alloc_hits, free_hits) = cache.hits.of(class);
            stats.alloc_hits += alloc_hits;
            stats.free_hits += free_hits;
            stats.underflows += counts.underflows.load(Relaxed);
            stats.overflows += counts.overflows.load(Relaxed);
            stats.refilled_objects += counts.refilled.load(Relaxed);
            stats.flushed_objects += counts.flushed.load(Relaxed);
        }
        f(&stats);
    }
}
