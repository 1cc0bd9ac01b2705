//! Every constant, with its unit and its reason. Most are chosen when perseq is built: `build/default.toml` says how.

/// What the build script made of the configuration.
pub mod built {
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

/// What this build's configuration calls itself: `default`, or the `name` in the file `PERSEQ_BUILD_CONFIG` named.
pub const BUILD_CONFIG: &str = built::NAME;

/// Bytes of a page of perseq's: large objects are whole pages. By default twice the kernel's on x86-64: half the page map, and spans of small
/// classes hold enough objects to be worth a lock.
pub const PAGE_SIZE: usize = built::PAGE_SIZE;

/// Bytes of a cache line: what two CPUs must not both write in.
pub const LINE: usize = 64;

/// Largest small object, in bytes. Larger ones are runs of pages.
pub const MAX_SMALL: usize = built::CLASSES[built::CLASSES.len() - 1].0 as usize;

/// Most objects moved between tiers at a time: the size of the buffers on slow paths' stacks.
pub const MAX_BATCH: usize = built::MAX_BATCH;

/// Bytes a front-end cache may hold unless `PERSEQ_CACHE_BYTES` or `PERSEQ_TOTAL_BYTES` says otherwise.
pub const CACHE_BYTES: usize = built::CACHE_BYTES;

/// Most slots of one list's array, sentinels included. A power of two.
pub const MAX_LIST_WORDS: usize = built::MAX_LIST_WORDS;

/// Share of a cache's budget that one list may take.
pub const LIST_SHARE: usize = built::LIST_SHARE;

/// Batches a transfer cache holds per class, as far as [`TRANSFER_BYTES`] allows.
pub const TRANSFER_BATCHES: usize = built::TRANSFER_BATCHES;

/// Bytes a transfer cache holds per class, but always two batches.
pub const TRANSFER_BYTES: usize = built::TRANSFER_BYTES;

/// Pages committed at a time, so that committing is rare. They are not resident until touched.
pub const GROW_PAGES: usize = built::GROW_BYTES / PAGE_SIZE;

/// Bytes of free pages kept resident for reuse. Beyond, the longest runs go back to the kernel.
pub const KEEP_FREE_BYTES: usize = built::KEEP_FREE_BYTES;

/// Smallest and largest address space to reserve for pages, in bytes.
pub const MIN_RESERVE: usize = 16 << 20;
/// See [`MIN_RESERVE`]. Below 2^31 pages.
pub const MAX_RESERVE: usize = 8 << 40;
