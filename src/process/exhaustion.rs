//! Out of memory: what else can be tried, and when it is not worth trying.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::front_end::registry;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::os;
use crate::process::control;

/// What was free everywhere when giving everything back did not help, and when that was.
static LAST_FREE: AtomicUsize = AtomicUsize::new(0);
static LAST_TIME: AtomicU64 = AtomicU64::new(0);

/// Milliseconds after which it is tried again although nothing more is free: other threads may have freed what the
/// sum does not tell, in a better place.
const AGAIN_AFTER: u64 = 100;

/// What `allocate` returns, for an object of `bytes`, if need be after more and more was given back: free pages, which
/// then are joined however they were used, and after that all that caches and free lists keep. Only then is memory
/// exhausted. In per-thread mode the caches of other threads stay as they are.
///
/// A program that goes on asking for what it cannot have does not pay for this each time, nor do its other threads:
/// only if more is free in all than when it last did not help. How much more the kernel would give, nobody knows; so what
/// is free need not suffice. What is free in all does not change by allocating and freeing, wherever it is kept.
pub fn or_reclaim<T>(bytes: usize, allocate: impl Fn() -> Option<T>) -> Option<T> {
    allocate().or_else(|| {
        if bytes > BACK_END.pages.most_bytes() || !is_worth_it() {
            return None;
        }
        if BACK_END.pages.release_free() > 0
            && let Some(result) = allocate()
        {
            return Some(result);
        }
        control::release();
        let result = allocate();
        if result.is_none() {
            // Relaxed, as where they are read: a hint.
            LAST_FREE.store(free_bytes(), Relaxed);
            LAST_TIME.store(os::milliseconds(), Relaxed);
        }
        result
    })
}

fn is_worth_it() -> bool {
    free_bytes() > LAST_FREE.load(Relaxed) || os::milliseconds() >= LAST_TIME.load(Relaxed) + AGAIN_AFTER
}

/// Bytes free anywhere.
fn free_bytes() -> usize {
    let cached = registry::all().map(|cache| cache.holdings(|_, _| ()).bytes).sum::<usize>();
    BACK_END.free_bytes() + cached + hardened::quarantined_bytes()
}
