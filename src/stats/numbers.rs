//! The numbers by their names: of the whole allocator, of a cache, of a size class.

use crate::front_end::hits;
use crate::mode::ActiveMode;
use crate::owner::Owner;

/// Whether this build counts hits (feature `count-hits`). Where it does not, fields of hits are 0.
pub const COUNTS_HITS: bool = hits::COUNTED;

/// Names of the numbers that never fall. Not among them: `uncached_allocs`, off which an allocation is taken for which there
/// was no memory, and `peak_held_bytes`, which is no count.
pub const COUNTERS: &[&str] = &[
    "returned_bytes",
    "relocated_bytes",
    "alloc_hits",
    "free_hits",
    "underflows",
    "overflows",
    "refilled_objects",
    "flushed_objects",
    "uncached_frees",
    "central_visits",
    "index_changes",
    "idle_drains",
    "lendings",
    "restarts",
    "slice_grants",
    "holders_preempted",
];

/// A structure of numbers that knows their names: one list for the fields, the text and the JSON.
macro_rules! numbers {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident [$($(#[$key_doc:meta])* $key:ident: $key_type:ty)?] {
            $($(#[doc = $doc:literal])* pub $field:ident,)*
        }
    ) => {
        $(#[$attribute])*
        #[non_exhaustive]
        pub struct $name {
            $($(#[$key_doc])* pub $key: $key_type,)?
            $($(#[doc = $doc])* pub $field: u64,)*
        }

        impl $name {
            /// The names of the numbers, in their order. Those that this build does not count are among them.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// What the numbers are, in the order of [`Self::NAMES`].
            pub const MEANINGS: &'static [&'static str] = &[$(concat!($($doc),*).trim_ascii_start()),*];

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
        /// Bytes of free pages that read as zero: given back to the kernel but for their addresses, or never touched.
        pub released_bytes,
        /// Bytes committed ahead of use.
        pub untouched_bytes,
        /// Bytes that are or may be resident: pages in use, free pages with old data, and the allocator's own.
        pub held_bytes,
        /// The most that was ever held.
        pub peak_held_bytes,
        /// Bytes of pages that are mapped: the kernel accounts for them. They fall when memory goes back.
        pub committed_bytes,
        /// Bytes of address space for pages.
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
        /// Allocations of small objects that had to go past the caches (stopped CPU, foreign CPU id, exiting thread,
        /// central mode).
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
        /// Times the kernel gave a thread that held a lock more time, and that was enough (`PERSEQ_SLICE`).
        pub slice_grants,
        /// Times a thread that held a lock was preempted, with `PERSEQ_SLICE` on or observed; else 0.
        pub holders_preempted,
    }
}
