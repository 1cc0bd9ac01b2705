//! Out of memory: what else can be tried, and when it is not worth trying.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::emergency;
use crate::front_end::registry;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::os;
use crate::process::control;

/// What was free everywhere when giving everything back did not help, and when that was.
static LAST_FREE: AtomicUsize = AtomicUsize::new(0);
static LAST_TIME: AtomicU64 = AtomicU64::new(0);

/// Milliseconds after which everything is given back again although no more is free in all: other threads may have
/// freed pages that join to a longer run, which the sum does not tell.
const AGAIN_AFTER: u64 = 100;

/// Calls `allocate`, which is to find an object of `bytes`, up to three times. Before the second call free pages go
/// back, so that used and unused ones join to longer runs. Before the third, everything goes back that caches and free
/// lists keep; in the mode `perthread`, the caches of other threads stay as they are. If that does not help, memory is
/// exhausted.
///
/// A program may go on asking for memory that it cannot have. It is not to pay for these steps each time, nor are its
/// other threads: they are taken only if more is free in all than when they last did not help. How much more the kernel
/// would give is not known, so what is free need not suffice. The sum of what is free does not change when objects are
/// allocated and freed, wherever free ones are kept.
pub fn or_reclaim<T>(bytes: usize, allocate: impl Fn() -> Option<T>) -> Option<T> {
    allocate().or_else(|| {
        if bytes > BACK_END.pages.most_bytes() || emergency::is_now() || !is_worth_it() {
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
