//! Operations that a cache served without a miss.
//!
//! The fast path changes one word and has no room for a counter, so hits are counted only if the crate is built
//! with the feature `count-hits`. Each then costs an atomic addition on a line of the cache's. Everything else in
//! [`crate::Stats`] is counted on slow paths, or derived from what the tiers hold.

pub use imp::{Hits, allocated, allocated_from, freed, freed_to};

/// Whether this build counts hits.
pub const COUNTED: bool = cfg!(feature = "count-hits");

#[cfg(feature = "count-hits")]
mod imp {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use crate::front_end::cache::Cache;
    use crate::front_end::thread::present_cache;
    use crate::size_class::{CLASSES, SizeClass};

    /// Hits of each list of a cache. Relaxed: nothing is published.
    pub struct Hits {
        allocs: [AtomicU64; CLASSES],
        frees: [AtomicU64; CLASSES],
    }

    impl Hits {
        /// Allocations and frees of one class.
        pub fn of(&self, class: SizeClass) -> (u64, u64) {
            (self.allocs[class.index()].load(Relaxed), self.frees[class.index()].load(Relaxed))
        }
    }

    /// The calling thread took an object out of its cache. It may be elsewhere by now: its word still names the cache.
    #[inline]
    pub fn allocated(class: SizeClass) {
        if let Some(cache) = present_cache() {
            allocated_from(cache, class);
        }
    }

    /// The calling thread put an object into its cache.
    #[inline]
    pub fn freed(class: SizeClass) {
        if let Some(cache) = present_cache() {
            freed_to(cache, class);
        }
    }

    /// An object was taken out of `cache`.
    #[inline]
    pub fn allocated_from(cache: &Cache, class: SizeClass) {
        cache.hits.allocs[class.index()].fetch_add(1, Relaxed);
    }

    /// An object was put into `cache`.
    #[inline]
    pub fn freed_to(cache: &Cache, class: SizeClass) {
        cache.hits.frees[class.index()].fetch_add(1, Relaxed);
    }
}

#[cfg(not(feature = "count-hits"))]
mod imp {
    use crate::front_end::cache::Cache;
    use crate::size_class::SizeClass;

    /// Nothing.
    pub struct Hits;

    impl Hits {
        pub fn of(&self, _: SizeClass) -> (u64, u64) {
            (0, 0)
        }
    }

    #[inline(always)]
    pub fn allocated(_: SizeClass) {}

    #[inline(always)]
    pub fn freed(_: SizeClass) {}

    #[inline(always)]
    pub fn allocated_from(_: &Cache, _: SizeClass) {}

    #[inline(always)]
    pub fn freed_to(_: &Cache, _: SizeClass) {}
}
