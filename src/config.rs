//! Every constant, with its unit and its reason. Most are chosen when perseq is built: `build/default.toml` says how.

/// What the build script made of the configuration.
pub mod built {
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

/// What this build's configuration calls itself: `default`, or the `name` in the file `PERSEQ_BUILD_CONFIG` named.
pub const BUILD_CONFIG: &str = built::NAME;

/// Bytes of a page of perseq's: large objects are whole pages. The default is larger than the kernel's usual page: the
/// page map is shorter, and spans of small classes hold enough objects to be worth a lock.
pub const PAGE_SIZE: usize = built::PAGE_SIZE;

/// Bytes of a cache line: what two CPUs must not both write in.
pub const LINE: usize = 64;

/// Largest small object, in bytes. Larger ones are runs of pages.
pub const MAX_SMALL: usize = built::CLASSES[built::CLASSES.len() - 1].0 as usize;

/// Most objects moved between tiers at a time: the size of the buffers on slow paths' stacks.
pub const MAX_BATCH: usize = built::MAX_BATCH;

/// Bytes a front-end cache may hold unless `PERSEQ_CACHE_BYTES` or `PERSEQ_TOTAL_BYTES` says otherwise.
pub const CACHE_BYTES: usize = built::CACHE_BYTES;

/// Misses of a cache between two looks for idle caches. A look reads the coarse clock: it is to cost little beside the
/// misses.
pub const MISSES_PER_LOOK: u64 = 16;

/// Operations that found their caches taken, from one that ends its thread's turn to the next: ending it costs more than
/// they do.
pub const TURNED_AWAY_PER_YIELD: u32 = 64;

/// Milliseconds after which a cache that did nothing is emptied unless `PERSEQ_IDLE_DRAIN` says otherwise. Long enough
/// that a fence and the refills after a mistake do not count.
pub const IDLE_DRAIN_MS: u64 = 10_000;

/// Misses of a cache from one attempt to take budget from other caches to the next, after it got some and after it got
/// none: each may cost a fence.
pub const MISSES_PER_STEAL: [u64; 2] = [16, 256];

/// Misses of a cache from one attempt to take arrays from its lists to the next, after it found some that were not in
/// use and after it found none: each moves objects and arrays, and costs as much as several misses.
pub const MISSES_PER_SWEEP: [u64; 2] = [16, 256];

/// Slots of the mode `sharded` for each CPU unless `PERSEQ_SHARDS` says otherwise: so many that two running threads
/// seldom share one.
pub const SHARDS_PER_CPU: usize = 4;

/// Most slots of the mode `sharded`.
pub const MAX_SHARDS: usize = 4096;

/// Most slots of one list's array, sentinels included. A power of two. So many that who allocates some ten thousand
/// small objects and frees them all stays inside the list (`docs/performance.md`, entry 5).
pub const MAX_LIST_WORDS: usize = built::MAX_LIST_WORDS;

/// Share of a cache's budget that one list may take.
pub const LIST_SHARE: usize = built::LIST_SHARE;

/// Batches a transfer cache holds per class, as far as [`TRANSFER_BYTES`] allows.
pub const TRANSFER_BATCHES: usize = built::TRANSFER_BATCHES;

/// Bytes a transfer cache holds per class, but always two batches.
pub const TRANSFER_BYTES: usize = built::TRANSFER_BYTES;

/// Largest objects whose lines a cache writes to before it hands them on ([`crate::middle::claim`]): of larger ones the
/// program uses a part only, more often, and the rest may not be resident.
pub const CLAIMED_BYTES: usize = 256;

/// Pages committed at a time, so that committing is rare. They are not resident until touched.
pub const GROW_PAGES: usize = built::GROW_BYTES / PAGE_SIZE;

/// Milliseconds that pages stay free before they go back to the kernel, unless `PERSEQ_RELEASE` says otherwise: longer
/// than most pauses between two bursts of the same work.
pub const RELEASE_PERIOD_MS: u32 = 2000;

/// Most pages given back at one go by a thread that has other things to do: a few milliseconds.
pub const RELEASE_STEP_PAGES: usize = (64 << 20) / PAGE_SIZE;

/// Calls of the kernel that such a thread makes in vain at one go, for memory that the program has locked: less than a
/// millisecond.
pub const RELEASE_REFUSALS: usize = 512;

/// Pages of a run from which, before fresh memory is taken for it, as many free pages go back: its first touch costs
/// more than the release does, and a change of sizes does not add to the peak. Blocks of so many move even to a place
/// that is resident.
pub const EXCHANGE_PAGES: usize = (16 << 20) / PAGE_SIZE;

/// Bytes of the kernel's huge page where its page is 4 KiB. Where it is larger, so is the huge page, and keeping 2 MiB
/// together is merely harmless.
pub const HUGE_PAGE: usize = 2 << 20;

/// The first bytes of a heap, for which huge pages are never asked: a small program stays small.
pub const SMALL_HEAP_BYTES: usize = 4 << 20;

/// Pages taken at a time for the allocator's own structures.
pub const METADATA_PAGES: usize = (64 << 10) / PAGE_SIZE;

/// Bytes from which a large block that grows is moved by the kernel rather than copied, where its place has no room and
/// the new one is not resident.
pub const RELOCATE_BYTES: usize = 256 << 10;

/// Most pages committed ahead at a time: what `mlockall` makes resident and the kernel accounts for before it is used.
pub const MAX_STEP_PAGES: usize = (32 << 20) / PAGE_SIZE;

/// Most holes in the heap's address space, and most borders of moved ranges: each is a mapping, of which Linux lets a
/// process have 65,530 (`vm.max_map_count`), threads' stacks and the program's own among them.
pub const MAX_HOLES: usize = 4096;
/// See [`MAX_HOLES`].
pub const MAX_SEAMS: usize = 4096;
/// Most pages without access behind large blocks in the hardened mode. See [`MAX_HOLES`].
pub const MAX_GUARDS: usize = 4096;
