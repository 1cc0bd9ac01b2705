//! The sequences' contracts in plain Rust, for a slab that only one thread can reach.
//!
//! A per-thread cache and the holder of a [`crate::Stopped`] guard use these. They are also what the
//! sequences are tested against. Loads and stores are relaxed atomics because other threads may look
//! at a slab to report on it; nobody else changes it.
//!
//! Another thread may fork at any moment, and the child has this memory as it was in between. So the store that shows
//! others what was written before is a release, and where memory is the caller's again after a store, a release fence
//! follows it: the child finds an object below each top, and no chain that leads through a node in use. On x86-64
//! neither is an instruction.

use core::hint::assert_unchecked;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
    fence,
};

use crate::slab::{SENTINEL, Slab, Slot};

/// Takes the newest object of `list`, or `None` if it is empty.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * `list` is below `LISTS`.
#[inline(always)]
pub unsafe fn pop<const LISTS: usize>(slab: &Slab<LISTS>, list: usize) -> Option<NonNull<u8>> {
    // SAFETY: by our own contract.
    let cell = unsafe { slab.top_cell(list) };
    let top = cell.load(Relaxed);
    // SAFETY: by **pointed**, the slot below `top` is in the list's array.
    let item = unsafe { (*top.sub(1)).load(Relaxed) };
    if item & SENTINEL != 0 {
        return None;
    }
    // SAFETY: as above: the slot is not the low sentinel, so `top - 1` is above it.
    cell.store(unsafe { top.sub(1) }, Relaxed);
    // SAFETY: an even item is an object that somebody pushed, so not null.
    unsafe { assert_unchecked(item != 0) };
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
    // SAFETY: by our own contract.
    let cell = unsafe { slab.top_cell(list) };
    let top = cell.load(Relaxed);
    // SAFETY: by **pointed**, `top` is a slot or the high sentinel.
    let slot = unsafe { &*top };
    if slot.load(Relaxed) & SENTINEL != 0 {
        return false;
    }
    slot.store(object.as_ptr() as usize, Relaxed);
    // SAFETY: the slot was not the high sentinel, so `top + 1` is not above it.
    cell.store(unsafe { top.add(1) }, Release); // after the slot
    true
}

/// Takes up to `objects.len()` of the newest objects of `list`, newest first; returns how many.
///
/// # Safety
///
/// * No other thread changes `slab`.
/// * `list` is below `LISTS`.
pub unsafe fn pop_batch<const LISTS: usize>(slab: &Slab<LISTS>, list: usize, objects: &mut [*mut u8]) -> usize {
    for (taken, place) in objects.iter_mut().enumerate() {
        // SAFETY: our contract is `pop`'s.
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
/// * `list` is below `LISTS`.
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
/// * `list` is below `LISTS`.
/// * `new` is a slot of an array made by [`crate::slab::make_array`]. What is below it is on the list then: nothing, if
///   it is the lowest.
pub unsafe fn replace<const LISTS: usize>(
    slab: &Slab<LISTS>,
    list: usize,
    expected: *mut Slot,
    new: *mut Slot,
) -> bool {
    // SAFETY: by our own contract.
    let cell = unsafe { slab.top_cell(list) };
    let same = cell.load(Relaxed) == expected;
    if same {
        cell.store(new, Release); // after what `make_array` wrote
        fence(Release); // before what the caller does with the old array
    }
    same
}

// On words of a row, as its `StoppedRow` holder or in the overflow row.

/// Adds `value`, wrapping, to `word`. Nobody else changes it.
pub fn add(word: &AtomicU64, value: u64) {
    word.store(word.load(Relaxed).wrapping_add(value), Relaxed);
}

/// Writes `new` to `word` if it holds `expected`; false if not. Nobody else changes it.
pub fn compare_exchange(word: &AtomicU64, expected: u64, new: u64) -> bool {
    let same = word.load(Relaxed) == expected;
    if same {
        word.store(new, Relaxed);
    }
    same
}

/// Puts `node` in front of the linked list that `head` begins.
///
/// # Safety
///
/// * No other thread changes `head`.
/// * `node` is valid, on no list, and its first word is nobody else's.
pub unsafe fn linked_push(head: &AtomicU64, node: NonNull<usize>) {
    // SAFETY: the node's first word is ours, by our own contract.
    unsafe { node.write(head.load(Relaxed) as usize) };
    head.store(node.as_ptr() as u64, Release); // after the link
}

/// Takes the first node of the linked list that `head` begins, or `None` if it is empty.
///
/// # Safety
///
/// * No other thread changes `head`, which begins a list of valid nodes.
pub unsafe fn linked_pop(head: &AtomicU64) -> Option<NonNull<usize>> {
    let node = NonNull::new(head.load(Relaxed) as *mut usize)?;
    // SAFETY: by our own contract the node is valid.
    head.store(unsafe { node.read() } as u64, Relaxed);
    fence(Release); // before what the caller writes over the link
    Some(node)
}

/// Takes the whole linked list that `head` begins. Nobody else changes it.
pub fn linked_pop_all(head: &AtomicU64) -> Option<NonNull<usize>> {
    let node = NonNull::new(head.load(Relaxed) as *mut usize)?;
    head.store(0, Relaxed);
    fence(Release); // before what the caller writes over the links
    Some(node)
}

/// Appends `item` to `items`, of which `length` are used; false if all are. Nobody else changes either.
pub fn append(length: &AtomicU64, items: &[AtomicU64], item: u64) -> bool {
    let used = length.load(Relaxed);
    let Some(place) = items.get(used as usize) else { return false };
    place.store(item, Relaxed);
    length.store(used + 1, Release); // after the item
    true
}

/// Removes the last of the `length` used ones of `items`; `None` if none is used. Nobody else changes either.
pub fn take(length: &AtomicU64, items: &[AtomicU64]) -> Option<u64> {
    let last = length.load(Relaxed).checked_sub(1)?;
    let item = items.get(last as usize)?.load(Relaxed);
    length.store(last, Relaxed);
    Some(item)
}
