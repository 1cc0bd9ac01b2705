//! The sequences' contracts in plain Rust, for a slab that only one thread can reach.
//!
//! A per-thread cache and the holder of a [`crate::Stopped`] guard use these. They are also what the
//! sequences are tested against. Loads and stores are relaxed atomics because other threads may look
//! at a slab to report on it; nobody else changes it.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use crate::slab::{SENTINEL, Slab, Slot};

/// Takes the newest object of `list`, or `None` if it is empty.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * `list` is below `LISTS`.
#[inline(always)]
pub unsafe fn pop<const LISTS: usize>(slab: &Slab<LISTS>, list: usize) -> Option<NonNull<u8>> {
    let cell = top_cell(slab, list);
    let top = cell.load(Relaxed);
    // SAFETY: by **pointed**, the slot below `top` is in the list's array.
    let item = unsafe { (*top.sub(1)).load(Relaxed) };
    if item & SENTINEL != 0 {
        return None;
    }
    // SAFETY: as above: the slot is not the low sentinel, so `top - 1` is above it.
    cell.store(unsafe { top.sub(1) }, Relaxed);
    NonNull::new(item as *mut u8)
}

/// Puts `object` on top of `list`; false if it is full.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * `list` is below `LISTS`.
/// * `object` is even.
#[inline(always)]
pub unsafe fn push<const LISTS: usize>(slab: &Slab<LISTS>, list: usize, object: NonNull<u8>) -> bool {
    let cell = top_cell(slab, list);
    let top = cell.load(Relaxed);
    // SAFETY: by **pointed**, `top` is a slot or the high sentinel.
    let slot = unsafe { &*top };
    if slot.load(Relaxed) & SENTINEL != 0 {
        return false;
    }
    slot.store(object.as_ptr() as usize, Relaxed);
    // SAFETY: the slot was not the high sentinel, so `top + 1` is not above it.
    cell.store(unsafe { top.add(1) }, Relaxed);
    true
}

/// Takes up to `objects.len()` of the newest objects of `list`, newest first; returns how many.
///
/// # Safety
///
/// * No other thread changes `slab`.
pub unsafe fn pop_batch<const LISTS: usize>(slab: &Slab<LISTS>, list: usize, objects: &mut [*mut u8]) -> usize {
    for (taken, place) in objects.iter_mut().enumerate() {
        // SAFETY: our contract is `pop`'s; `list` is checked by `Slab::top_cell` in debug builds.
        match unsafe { pop(slab, list) } {
            Some(object) => *place = object.as_ptr(),
            None => return taken,
        }
    }
    objects.len()
}

/// Puts objects on top of `list` until it is full; returns how many.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * Every object is even and not null.
pub unsafe fn push_batch<const LISTS: usize>(slab: &Slab<LISTS>, list: usize, objects: &[*mut u8]) -> usize {
    for (put, &object) in objects.iter().enumerate() {
        // SAFETY: by our contract.
        if !unsafe { push(slab, list, NonNull::new_unchecked(object)) } {
            return put;
        }
    }
    objects.len()
}

/// Gives `list` another array if its top is still `expected`; false if not.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * `new` is the lowest slot of an array made by [`crate::slab::make_array`].
pub unsafe fn replace<const LISTS: usize>(
    slab: &Slab<LISTS>,
    list: usize,
    expected: *mut Slot,
    new: *mut Slot,
) -> bool {
    let cell = top_cell(slab, list);
    let same = cell.load(Relaxed) == expected;
    if same {
        cell.store(new, Relaxed);
    }
    same
}

#[inline(always)]
fn top_cell<const LISTS: usize>(slab: &Slab<LISTS>, list: usize) -> &core::sync::atomic::AtomicPtr<Slot> {
    debug_assert!(list < LISTS);
    slab.top_cell(list)
}
