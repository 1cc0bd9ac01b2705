//! One snapshot of what every tier holds and has done.

use core::sync::atomic::Ordering::Relaxed;

use crate::back_end::BACK_END;
use crate::config::PAGE_SIZE;
use crate::huge_pages::HugePageStats;
use crate::mode::{ActiveMode, Mode};
use crate::process::active_mode;
use crate::registry;
use crate::size_class::SizeClass;
use crate::span::Span;

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

/// One front-end cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheStats {
    /// Whose it is.
    pub owner: Owner,
    /// Objects cached now.
    pub cached_objects: u64,
    /// Bytes of those objects (size-class sizes).
    pub cached_bytes: u64,
    /// Bytes the cache could hold with its present lists.
    pub capacity_bytes: u64,
    /// Times a list was empty and a batch was fetched.
    pub underflows: u64,
    /// Times a list was full and a batch was given back.
    pub overflows: u64,
}

/// Totals over the whole allocator. Bytes unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// The mode and its reason.
    pub mode: ActiveMode,
    /// Caches that exist now.
    pub caches: u64,
    /// Objects in all caches.
    pub cached_objects: u64,
    /// Bytes in all caches.
    pub cached_bytes: u64,
    /// Bytes all caches could hold with their present lists.
    pub capacity_bytes: u64,
    /// Bytes in the transfer cache.
    pub transfer_bytes: u64,
    /// Bytes of free objects in spans of the central free lists.
    pub central_bytes: u64,
    /// Bytes of small objects in the hands of the program.
    pub live_small_bytes: u64,
    /// Bytes of large objects in the hands of the program.
    pub live_large_bytes: u64,
    /// Bytes of free pages that are still resident.
    pub free_page_bytes: u64,
    /// Bytes of free pages that read as zero: given back to the kernel, or never touched.
    pub released_bytes: u64,
    /// Bytes that are or may be resident: pages in use, free pages with old data, and tables.
    pub held_bytes: u64,
    /// Bytes of pages that were given back to the kernel, all told.
    pub returned_bytes: u64,
    /// Bytes of large blocks that were moved by the kernel instead of copied, all told.
    pub relocated_bytes: u64,
    /// The kernel's huge pages (2 MiB) by what they hold.
    pub huge_pages: HugePageStats,
    /// Bytes of pages ever committed.
    pub committed_bytes: u64,
    /// Bytes of address space reserved for pages.
    pub reserved_bytes: u64,
    /// Bytes of the allocator's own tables.
    pub metadata_bytes: u64,
    /// Times a cache list was empty and a batch was fetched.
    pub underflows: u64,
    /// Times a cache list was full and a batch was given back.
    pub overflows: u64,
    /// Objects moved into caches.
    pub refilled_objects: u64,
    /// Objects moved out of caches.
    pub flushed_objects: u64,
    /// Allocations of small objects that had to go past the caches (stopped CPU, foreign CPU id, exiting thread, central mode).
    pub uncached_allocs: u64,
    /// Frees of small objects that had to go past the caches.
    pub uncached_frees: u64,
    /// Times the central free lists were asked for objects or given some: at most once per batch.
    pub central_visits: u64,
    /// Times a thread found itself on another CPU (or cid) than at its last operation.
    pub index_changes: u64,
    /// Times a cache was emptied because it was idle.
    pub idle_drains: u64,
    /// Times a cache gave budget to another that missed.
    pub lendings: u64,
    /// Sequences aborted by the kernel and restarted.
    pub restarts: u64,
}

/// Looks at every tier. Exact if nothing is allocated or freed meanwhile.
#[must_use]
pub fn stats() -> Stats {
    let mode = active_mode();
    let pages = BACK_END.pages.totals();
    let mut stats = Stats {
        mode,
        caches: 0,
        cached_objects: 0,
        cached_bytes: 0,
        capacity_bytes: 0,
        transfer_bytes: 0,
        central_bytes: 0,
        live_small_bytes: 0,
        live_large_bytes: (pages.large * PAGE_SIZE) as u64,
        free_page_bytes: (pages.free * PAGE_SIZE) as u64,
        released_bytes: (pages.zero * PAGE_SIZE) as u64,
        held_bytes: pages.held_bytes as u64,
        returned_bytes: pages.released * PAGE_SIZE as u64,
        relocated_bytes: pages.moved * PAGE_SIZE as u64,
        huge_pages: pages.huge,
        committed_bytes: (pages.committed * PAGE_SIZE) as u64,
        reserved_bytes: BACK_END.pages.reserved_bytes() as u64,
        metadata_bytes: (BACK_END.metadata.used() + pages.spans * size_of::<Span>()) as u64,
        underflows: 0,
        overflows: 0,
        refilled_objects: 0,
        flushed_objects: 0,
        uncached_allocs: 0,
        uncached_frees: 0,
        central_visits: 0,
        index_changes: 0,
        idle_drains: 0,
        lendings: 0,
        restarts: rseq::restarts(),
    };
    let mut outside_spans = 0;
    for class in SizeClass::all() {
        let size = class.size() as u64;
        let transfer = BACK_END.transfer.counts(class);
        let central = BACK_END.central[class.index()].totals(class);
        stats.transfer_bytes += transfer.length as u64 * size;
        stats.central_bytes += central.free as u64 * size;
        outside_spans += central.live as u64 * size;
        stats.uncached_allocs += transfer.uncached_allocs;
        stats.uncached_frees += transfer.uncached_frees;
        stats.central_visits += transfer.central_visits;
    }
    for cache in registry::all() {
        // A retired cache is empty, but what it did counts.
        let counts = &cache.counts;
        stats.underflows += counts.underflows.load(Relaxed);
        stats.overflows += counts.overflows.load(Relaxed);
        stats.refilled_objects += counts.refilled.load(Relaxed);
        stats.flushed_objects += counts.flushed.load(Relaxed);
        stats.index_changes += counts.arrivals.load(Relaxed);
        stats.idle_drains += counts.idle_drains.load(Relaxed);
        stats.lendings += counts.lendings.load(Relaxed);
    }
    for_each_cache(&mut |cache| {
        stats.caches += 1;
        stats.cached_objects += cache.cached_objects;
        stats.cached_bytes += cache.cached_bytes;
        stats.capacity_bytes += cache.capacity_bytes;
    });
    stats.live_small_bytes = outside_spans.saturating_sub(stats.cached_bytes + stats.transfer_bytes);
    stats
}

/// Calls `f` with each cache that has an owner. `f` must not allocate through perseq.
pub fn for_each_cache(f: &mut dyn FnMut(&CacheStats)) {
    let mode = active_mode().active;
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        let held = cache.holdings();
        let number = cache.owner.load(Relaxed);
        f(&CacheStats {
            owner: match mode {
                Mode::PerCpu | Mode::PerCpuLock => Owner::Cpu(number),
                Mode::PerCpuMmCid => Owner::Cid(number),
                Mode::Sharded => Owner::Shard(number),
                Mode::PerThread | Mode::PerThreadDrain | Mode::Central => Owner::Thread(number),
            },
            cached_objects: held.objects as u64,
            cached_bytes: held.bytes as u64,
            capacity_bytes: held.capacity_bytes as u64,
            underflows: cache.counts.underflows.load(Relaxed),
            overflows: cache.counts.overflows.load(Relaxed),
        });
    }
}
