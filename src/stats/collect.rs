//! The look at every tier, from which the numbers come.

use core::sync::atomic::Ordering::Relaxed;

use crate::config::PAGE_SIZE;
use crate::decided;
use crate::emergency;
use crate::front_end::registry;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::mode::ActiveMode;
use crate::size_class::{CLASSES, SizeClass};
use crate::slices;
use crate::stats::numbers::{CacheStats, ClassStats, Stats};

/// Looks at every tier of a process that runs in `mode`. Exact if nothing is allocated or freed meanwhile.
pub fn stats(mode: ActiveMode) -> Stats {
    let mut stats = Stats::zero(mode);
    // One look at the caches for both, so that they hold no more than they have room for.
    let (cached, capacity_bytes) = cached();
    stats.capacity_bytes = capacity_bytes;
    for_each_class_with(&cached, &mut |class| stats.add_class(class));
    for cache in registry::all() {
        stats.caches += u64::from(cache.in_use.load(Relaxed));
        stats.index_changes += cache.arrivals.load(Relaxed);
        stats.idle_drains += cache.idle_drains.load(Relaxed);
        stats.lendings += cache.lendings.load(Relaxed);
    }
    stats.restarts = rseq::restarts();
    [stats.slice_grants, stats.holders_preempted] = slices::counts().map(|count| count.load(Relaxed));
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
    stats.add_emergency();
    stats
}

impl Stats {
    /// Emergency memory is not the page heap's. A run of its pages counts as a span already.
    fn add_emergency(&mut self) {
        let span_bytes = |class: SizeClass| u64::from(class.info().pages) * PAGE_SIZE as u64;
        let runs: u64 = SizeClass::all().map(|class| emergency::totals(class).runs * span_bytes(class)).sum();
        let large = emergency::large_bytes() as u64;
        self.live_large_bytes += large;
        for bytes in
            [&mut self.held_bytes, &mut self.peak_held_bytes, &mut self.committed_bytes, &mut self.reserved_bytes]
        {
            *bytes += runs + large;
        }
    }

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
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        let Some(owner) = decided::mode().active.owner(cache.owner.load(Relaxed)) else { continue };
        let mut stats = CacheStats::zero(owner);
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
    for_each_class_with(&cached().0, f);
}

/// Objects of each class in all caches, and the bytes that all caches have room for.
fn cached() -> ([u64; CLASSES], u64) {
    let (mut cached, mut capacity_bytes) = ([0; CLASSES], 0);
    // A retired cache is empty and has no arrays.
    for cache in registry::all() {
        let held = cache.holdings(|class, objects| cached[class.index()] += objects as u64);
        capacity_bytes += held.capacity_bytes as u64;
    }
    (cached, capacity_bytes)
}

fn for_each_class_with(cached: &[u64; CLASSES], f: &mut dyn FnMut(&ClassStats)) {
    for class in SizeClass::all() {
        let mut stats = ClassStats::zero();
        let transfer = BACK_END.transfer.counts(class);
        let central = BACK_END.central[class.index()].totals(class);
        let apart = emergency::totals(class);
        stats.size = class.size() as u64;
        stats.batch = u64::from(class.info().batch);
        stats.span_size = u64::from(class.info().pages) * PAGE_SIZE as u64;
        stats.spans = central.spans as u64 + apart.runs;
        stats.cached_objects = cached[class.index()];
        stats.transfer_objects = transfer.length as u64;
        let never_made = (apart.runs * u64::from(class.info().objects)).saturating_sub(apart.made);
        stats.central_objects = central.free as u64 + never_made;
        stats.quarantined_objects = hardened::quarantined(class) as u64;
        let elsewhere = stats.cached_objects + stats.transfer_objects + stats.quarantined_objects;
        let made_apart = apart.made.saturating_sub(central.spanless as u64);
        stats.live_objects = (central.live as u64 + made_apart).saturating_sub(elsewhere);
        stats.uncached_allocs = transfer.uncached_allocs + apart.made;
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
