//! How many bytes of free objects caches may hold, under either of two rules.
//!
//! * **Equal capacity** (`PERSEQ_CACHE_BYTES`): every cache may hold as much. More caches hold more.
//! * **Equal total** (`PERSEQ_TOTAL_BYTES`): all caches together hold at most so much, at every moment: a list that is to
//!   grow reserves its bytes first, and there are no more than the total.
//!
//! Under the second rule each cache has a right to an equal share: the total, divided by the number of caches that have
//! an owner now. Owners are CPUs, concurrency ids or slots that were used, or threads that allocated.
//!
//! In a mode whose caches can be seized, a cache may borrow beyond its share what no other has reserved. A cache that
//! misses takes it back, first from caches that did not miss lately (`reclaim`). In `perthread`, where no cache can be
//! seized, a cache keeps to its share: it gives back what is over the share at its own next miss, and without a miss it
//! keeps what it has. `PERSEQ_LENDING=0` makes this the rule of every mode, so that modes can be compared under one.
//!
//! # Invariant
//!
//! * **bounded**: `RESERVED` is at least the sum of all caches' capacities, and under the second rule at most the total.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::config::CACHE_BYTES;
use crate::message::law;

/// Bytes of each cache; 0 while a total is set.
static EACH: AtomicUsize = AtomicUsize::new(CACHE_BYTES);
/// Bytes of all caches.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// Among how many caches the total is divided. Changed as threads come and go, read on slow paths.
static CACHES: AtomicUsize = AtomicUsize::new(1);
/// Bytes of all lists' arrays.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// A cache that has less than its share finds nothing to reserve or to take: caches that borrowed give back.
static STARVED: AtomicBool = AtomicBool::new(false);

/// Others can take back what a cache borrows. Set before there is a cache.
static LENDS: AtomicBool = AtomicBool::new(false);
/// The environment has each cache keep to its share. Set before there is a cache.
static FIXED: AtomicBool = AtomicBool::new(false);

/// Bytes a cache has a right to now.
pub fn share() -> usize {
    match EACH.load(Relaxed) {
        0 => TOTAL.load(Relaxed) / CACHES.load(Relaxed).max(1),
        each => each,
    }
}

/// Bytes a cache may have now, if they can be reserved.
pub fn most() -> usize {
    match EACH.load(Relaxed) {
        0 if lends() && !STARVED.load(Relaxed) => TOTAL.load(Relaxed),
        0 => share(),
        each => each,
    }
}

/// Takes `bytes` out of what no list has. False if there are not so many.
pub fn reserve(bytes: usize) -> bool {
    let total = if EACH.load(Relaxed) == 0 { TOTAL.load(Relaxed) } else { usize::MAX };
    // Relaxed: a count; nothing is published by it.
    RESERVED.fetch_update(Relaxed, Relaxed, |reserved| reserved.checked_add(bytes).filter(|sum| *sum <= total)).is_ok()
}

/// Gives back what `reserve` took.
pub fn release(bytes: usize) {
    let reserved = RESERVED.fetch_sub(bytes, Relaxed);
    law!(reserved >= bytes, "bounded: no more is given back than was reserved");
}

/// Whether a cache below its share goes without.
pub fn starve(starved: bool) {
    if STARVED.load(Relaxed) != starved {
        STARVED.store(starved, Relaxed);
    }
}

/// Whether the mode lets others take back what a cache borrows.
pub fn set_lending(lends: bool) {
    LENDS.store(lends, Relaxed);
}

/// Whether each cache keeps to its share, whatever the mode would let it.
pub fn set_fixed(fixed: bool) {
    FIXED.store(fixed, Relaxed);
}

/// Whether caches borrow, and give back to who misses.
pub fn lends() -> bool {
    LENDS.load(Relaxed) && !FIXED.load(Relaxed)
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

/// All caches have room for `capacity_bytes`. At rest nothing else is reserved.
#[cfg(debug_assertions)]
pub fn check(capacity_bytes: usize) {
    let reserved = RESERVED.load(Relaxed);
    law!(reserved == capacity_bytes, "bounded: what is reserved is what the caches have room for");
    law!(EACH.load(Relaxed) != 0 || reserved <= TOTAL.load(Relaxed), "bounded: caches together keep to their total");
}
