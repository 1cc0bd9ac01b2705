//! What is inlined into every allocation and free of a small object: the fast path of all modes that have one; and the same
//! out of line, for the mode with gates and while a heap profile is taken.

use core::ptr::NonNull;

use rseq::sequence::ThreadCell;
use rseq::{CpuId, Handle, MmCid, local, sequence};

use crate::front_end::hits;
use crate::front_end::thread::{self, cell, gate_of, home};
use crate::size_class::{CLASSES, SizeClass};
use crate::way;

/// A free object of `class` from the calling thread's cache, if it is there and has one.
#[inline(always)]
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    // SAFETY: the word is the process's own, and goes with the cell.
    let object = unsafe { pop_by(way::word(), cell(), class) };
    if object.is_some() {
        thread::count_alloc(class);
    }
    object
}

/// Puts a free object of `class` into the calling thread's cache; false if it is elsewhere or full.
///
/// # Safety
///
/// * `object` is of `class` and belongs to nobody.
#[inline(always)]
pub unsafe fn push(class: SizeClass, object: NonNull<u8>) -> bool {
    // SAFETY: as in `pop`, and by our own contract.
    let done = unsafe { push_by(way::word(), cell(), class, object) };
    if done {
        thread::count_free(class);
    }
    done
}

/// [`pop`] on the way that `word` says, in the slab that `place` names.
///
/// # Safety
///
/// * A handle in the word is the process's own, for the index its tag names. With any other word the slab is this thread's
///   or nobody's, and no other thread is inside.
#[inline(always)]
unsafe fn pop_by(word: isize, place: ThreadCell<CLASSES>, class: SizeClass) -> Option<NonNull<u8>> {
    let list = class.index();
    // SAFETY: by our own contract; slabs keep their invariants, and a list is a class.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::pop::<CpuId, CLASSES>(handle, place, list).ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::pop::<MmCid, CLASSES>(handle, place, list).ok()
        } else {
            local::pop(place.get(), list)
        }
    }
}

/// [`push`] as [`pop_by`].
///
/// # Safety
///
/// * As for [`pop_by`] and [`push`].
#[inline(always)]
unsafe fn push_by(word: isize, place: ThreadCell<CLASSES>, class: SizeClass, object: NonNull<u8>) -> bool {
    let list = class.index();
    // SAFETY: as in `pop_by`; objects are at least 8-aligned, so even.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::push::<CpuId, CLASSES>(handle, place, list, object).is_ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::push::<MmCid, CLASSES>(handle, place, list, object).is_ok()
        } else {
            local::push(place.get(), list, object)
        }
    }
}

/// [`pop`] where the way is [`way::GATED`] and that finds nothing; `None` where it is another.
#[inline(always)]
pub fn pop_gated(class: SizeClass) -> Option<NonNull<u8>> {
    if way::word() != way::GATED {
        return None;
    }
    let object = pop_inside(class);
    if object.is_some() {
        thread::count_alloc(class);
    }
    object
}

/// [`push`] where the way is [`way::GATED`] and that does nothing; false where it is another.
///
/// # Safety
///
/// * As for [`push`].
#[inline(always)]
pub unsafe fn push_gated(class: SizeClass, object: NonNull<u8>) -> bool {
    if way::word() != way::GATED {
        return false;
    }
    // SAFETY: by our own contract.
    let done = unsafe { push_inside(class, object) };
    if done {
        thread::count_free(class);
    }
    done
}

/// [`pop`] in the slab that the thread's home names, inside its gate.
#[inline(always)]
fn pop_inside(class: SizeClass) -> Option<NonNull<u8>> {
    let _inside = gate_of(home().get()).enter()?;
    // SAFETY: the slab is this thread's or nobody's, and no other thread is inside.
    unsafe { pop_by(way::GATED, home(), class) }
}

/// [`push`] as [`pop_inside`].
///
/// # Safety
///
/// * As for [`push`].
#[inline(always)]
unsafe fn push_inside(class: SizeClass, object: NonNull<u8>) -> bool {
    let Some(_inside) = gate_of(home().get()).enter() else { return false };
    // SAFETY: as in `pop_inside`, and by our own contract.
    unsafe { push_by(way::GATED, home(), class, object) }
}

/// [`pop`] where the way is [`way::PROFILED`], of the mode behind it; `None` if that has nothing inlined.
///
/// Not in builds that count hits: the slow path does that for all modes.
#[inline]
pub fn pop_behind(class: SizeClass) -> Option<NonNull<u8>> {
    if hits::COUNTED || thread::is_lent() {
        return None;
    }
    match way::behind() {
        way::OUT_OF_LINE => None,
        way::GATED => pop_inside(class),
        // SAFETY: as in `pop`: home takes the cell's place.
        word => unsafe { pop_by(word, home(), class) },
    }
}

/// [`push`] as [`pop_behind`]; false where nothing was done.
///
/// # Safety
///
/// * As for [`push`].
#[inline]
pub unsafe fn push_behind(class: SizeClass, object: NonNull<u8>) -> bool {
    if hits::COUNTED || thread::is_lent() {
        return false;
    }
    match way::behind() {
        way::OUT_OF_LINE => false,
        // SAFETY: by our own contract.
        way::GATED => unsafe { push_inside(class, object) },
        // SAFETY: as in `pop_behind`, and by our own contract.
        word => unsafe { push_by(word, home(), class, object) },
    }
}
