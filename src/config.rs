//! Every constant, with its unit and its reason.

/// Bytes of a page of perseq's: large objects are whole pages. Twice the kernel's on x86-64: half the page map, and spans of small
/// classes hold enough objects to be worth a lock.
pub const PAGE_SIZE: usize = 8192;

/// Bytes of a cache line: what two CPUs must not both write in.
pub const LINE: usize = 64;

/// Largest small object, in bytes. Larger ones are runs of pages.
pub const MAX_SMALL: usize = 32 << 10;

/// Most objects moved between tiers at a time: the size of the buffers on slow paths' stacks.
pub const MAX_BATCH: usize = 32;

/// Bytes moved between tiers at a time, as far as 2 to [`MAX_BATCH`] objects allow.
pub const BATCH_BYTES: usize = 16 << 10;

/// Bytes a front-end cache may hold unless `PERSEQ_CACHE_BYTES` or `PERSEQ_TOTAL_BYTES` says otherwise.
pub const CACHE_BYTES: usize = 1 << 20;

/// Most slots of one list's array, sentinels included. A power of two.
pub const MAX_LIST_WORDS: usize = 2048;

/// Share of a cache's budget that one list may take.
pub const LIST_SHARE: usize = 4;

/// Batches a transfer cache holds per class, as far as [`TRANSFER_BYTES`] allows.
pub const TRANSFER_BATCHES: usize = 16;

/// Bytes a transfer cache holds per class, but always two batches.
pub const TRANSFER_BYTES: usize = 128 << 10;

/// Pages committed at a time, so that committing is rare. They are not resident until touched.
pub const GROW_PAGES: usize = (4 << 20) / PAGE_SIZE;

/// Bytes of free pages kept resident for reuse. Beyond, the longest runs go back to the kernel.
pub const KEEP_FREE_BYTES: usize = 32 << 20;

/// Smallest and largest address space to reserve for pages, in bytes.
pub const MIN_RESERVE: usize = 16 << 20;
/// See [`MIN_RESERVE`]. Below 2^31 pages.
pub const MAX_RESERVE: usize = 8 << 40;
