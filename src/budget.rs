//! How many bytes one cache may hold, under either of two rules.
//!
//! * **Equal capacity** (`PERSEQ_CACHE_BYTES`): every cache may hold as much. More caches hold more.
//! * **Equal total** (`PERSEQ_TOTAL_BYTES`): all caches together hold so much; each has an equal share of it.
//!
//! A share is the total over the caches that have an owner now: CPUs or concurrency ids that were used, or threads
//! that allocated. It shrinks as caches are added. A cache over its share gives arrays back at its next miss, so the
//! total is a target: a cache that does not miss keeps what it had. Caches that are made together have equal shares
//! from the start.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::config::CACHE_BYTES;

/// Bytes of each cache; 0 while a total is set.
static EACH: AtomicUsize = AtomicUsize::new(CACHE_BYTES);
/// Bytes of all caches.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// Among how many caches the total is divided. Changed as threads come and go, read on slow paths.
static CACHES: AtomicUsize = AtomicUsize::new(1);

/// Bytes a cache may hold now.
pub fn of_a_cache() -> usize {
    match EACH.load(Relaxed) {
        0 => TOTAL.load(Relaxed) / CACHES.load(Relaxed).max(1),
        each => each,
    }
}

/// Every cache may hold `bytes`.
pub fn set_each(bytes: usize) {
    EACH.store(bytes.max(1), Relaxed);
}

/// All caches together may hold `bytes`.
pub fn set_total(bytes: usize) {
    TOTAL.store(bytes, Relaxed);
    EACH.store(0, Relaxed);
}

/// The total is divided among `caches`.
pub fn divide_among(caches: usize) {
    CACHES.store(caches, Relaxed);
}
