//! Operations that a cache served without a miss.
//!
//! The fast path changes one word and has no room for a counter, so hits are counted only if the crate is built
//! with the feature `count-hits`. Each then costs an atomic addition on a line of the cache's. Everything else in
//! [`crate::Stats`] is counted on slow paths, or derived from what the tiers hold.

pub use imp::Hits;

/// Whether this build counts hits.
pub const COUNTED: bool = cfg!(feature = "count-hits");

#[cfg(feature = "count-hits")]
mod imp {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use crate::size_class::{CLASSES, SizeClass};

    /// Hits of each list of a cache. Relaxed: nothing is published.
    pub struct Hits {
        allocs: [AtomicU64; CLASSES],
        frees: [AtomicU64; CLASSES],
    }

    impl Hits {
        /// Where the two arrays are, in bytes from its beginning.
        pub const ALLOCS_AT: usize = core::mem::offset_of!(Hits, allocs);
        pub const FREES_AT: usize = core::mem::offset_of!(Hits, frees);

        /// Allocations and frees of one class.
        pub fn of(&self, class: SizeClass) -> (u64, u64) {
            (self.allocs[class.index()].load(Relaxed), self.frees[class.index()].load(Relaxed))
        }

        /// An object was taken out of the cache.
        #[inline]
        pub fn count_alloc(&self, class: SizeClass) {
            self.allocs[class.index()].fetch_add(1, Relaxed);
        }

        /// An object was put into the cache.
        #[inline]
        pub fn count_free(&self, class: SizeClass) {
            self.frees[class.index()].fetch_add(1, Relaxed);
        }
    }
}

#[cfg(not(feature = "count-hits"))]
mod imp {
    use crate::size_class::SizeClass;

    /// Nothing.
    pub struct Hits;

    impl Hits {
        pub const ALLOCS_AT: usize = 0;
        pub const FREES_AT: usize = 0;

        pub fn of(&self, _: SizeClass) -> (u64, u64) {
            (0, 0)
        }

        #[inline(always)]
        pub fn count_alloc(&self, _: SizeClass) {}

        #[inline(always)]
        pub fn count_free(&self, _: SizeClass) {}
    }
}
