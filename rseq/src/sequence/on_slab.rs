//! Sequences on a list of the slab that a [`ThreadCell`] names.

use core::arch::asm;
use core::ptr::NonNull;

use super::{MOVED, MOVED_COUNT, Miss, ThreadCell, UNFIT, done, miss};
use crate::index::Index;
use crate::slab::Slot;
use crate::thread::Handle;

/// Takes the newest object of `list`.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is empty. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * `handle` comes from [`crate::Registration::handle`] with the same `I`.
/// * Slabs reachable through `cell` keep the invariants of [`crate::slab`], and those with an id other than
///   [`crate::STOPPED`] are found by `I`.
/// * `list` is below `LISTS`.
#[inline(always)]
pub unsafe fn pop<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
) -> Result<NonNull<u8>, Miss> {
    let item: usize;
    // SAFETY: by our own contract; the only store is the commit, and the kernel lets it run only if
    // nothing interrupted the thread since arming.
    unsafe {
        slab_sequence!("pop.s", I, handle, cell, list,
            slab = out(reg) _,
            item = out(reg) item,
            MOVED = const MOVED,
        );
    }
    if item & UNFIT == 0 {
        // SAFETY: an even item is an object somebody pushed, never null.
        return Ok(unsafe { NonNull::new_unchecked(item as *mut u8) });
    }
    Err(miss(item))
}

/// Puts `object` on top of `list`.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Unfit`]: the list is full. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * As for [`pop`]; `object` is even.
#[inline(always)]
pub unsafe fn push<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    object: NonNull<u8>,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the store before the commit is to a slot above the list.
    unsafe {
        outcome_sequence!("push.s", I, handle, cell, list, outcome,
            object = in(reg) object.as_ptr(),
        );
    }
    done(outcome)
}

/// Takes up to `objects.len()` of the newest objects of `list`, newest first; returns how many.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Moved`]: see the module. An empty list is `Ok(0)`.
///
/// # Safety
///
/// * As for [`pop`].
#[inline]
pub unsafe fn pop_batch<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    objects: &mut [*mut u8],
) -> Result<usize, Miss> {
    let count: isize;
    // SAFETY: by our own contract; stores before the commit are to `objects`, ours alone.
    unsafe {
        slab_sequence!("pop_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_mut_ptr(),
            max = in(reg) objects.len(),
            slab = out(reg) _,
            count = out(reg) count,
            top = out(reg) _,
            MOVED_COUNT = const MOVED_COUNT,
        );
    }
    if count >= 0 { Ok(count as usize) } else { Err(Miss::Moved) }
}

/// Puts objects on top of `list`, first to last, until it is full; returns how many.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Moved`]: see the module. A full list is `Ok(0)`.
///
/// # Safety
///
/// * As for [`pop`]; every object is even and not null.
#[inline]
pub unsafe fn push_batch<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    objects: &[*mut u8],
) -> Result<usize, Miss> {
    let count: isize;
    // SAFETY: by our own contract; stores before the commit are to slots above the list.
    unsafe {
        slab_sequence!("push_batch.s", I, handle, cell, list,
            objects = in(reg) objects.as_ptr(),
            max = in(reg) objects.len(),
            slab = out(reg) _,
            count = out(reg) count,
            top = out(reg) _,
            MOVED_COUNT = const MOVED_COUNT,
        );
    }
    if count >= 0 { Ok(count as usize) } else { Err(Miss::Moved) }
}

/// Gives `list` another array if its top is still `expected`. The old array is free when this returns.
///
/// Cost and kernel version: [the table](crate::sequence).
///
/// # Errors
///
/// [`Miss::Unfit`]: the top is another. [`Miss::Moved`]: see the module.
///
/// # Safety
///
/// * As for [`pop`]; `new` is the lowest slot of an array made by [`crate::slab::make_array`].
#[inline]
pub unsafe fn replace<I: Index, const LISTS: usize>(
    handle: Handle,
    cell: ThreadCell<LISTS>,
    list: usize,
    expected: *mut Slot,
    new: *mut Slot,
) -> Result<(), Miss> {
    let outcome: usize;
    // SAFETY: by our own contract; the only store is the commit.
    unsafe {
        outcome_sequence!("replace.s", I, handle, cell, list, outcome,
            expected = in(reg) expected,
            new = in(reg) new,
        );
    }
    done(outcome)
}
