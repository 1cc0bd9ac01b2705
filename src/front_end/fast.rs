//! What is inlined into every allocation and free of a small object: the fast path of all modes that have one; and the same
//! out of line, for the mode with gates and while a heap profile is taken.

use core::ptr::NonNull;

use rseq::{CpuId, Handle, MmCid, local, sequence};

use crate::front_end::hits;
use crate::front_end::thread::{self, cell, gate_of, home};
use crate::mode::Mode;
use crate::size_class::{CLASSES, SizeClass};
use crate::way;

/// A free object of `class` from the calling thread's cache, if it is there and has one.
#[inline(always)]
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    let word = way::word();
    let list = class.index();
    // SAFETY: a handle in the word is the process's own, for the index its tag names; slabs keep their invariants, and
    // a list is a class.
    let object = unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::pop::<CpuId, CLASSES>(handle, cell(), list).ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::pop::<MmCid, CLASSES>(handle, cell(), list).ok()
        } else {
            local::pop(cell().get(), list)
        }
    };
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
    let word = way::word();
    let list = class.index();
    // SAFETY: as in `pop`; objects are at least 8-aligned, so even.
    let done = unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::push::<CpuId, CLASSES>(handle, cell(), list, object).is_ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::push::<MmCid, CLASSES>(handle, cell(), list, object).is_ok()
        } else {
            local::push(cell().get(), list, object)
        }
    };
    if done {
        thread::count_free(class);
    }
    done
}

/// [`pop`] where the way is [`way::GATED`] and that finds nothing; `None` where it is another.
#[inline(always)]
pub fn pop_gated(class: SizeClass) -> Option<NonNull<u8>> {
    if way::word() != way::GATED {
        return None;
    }
    let slab = home().get();
    let _inside = gate_of(slab).enter()?;
    // SAFETY: the slab is this thread's or nobody's, and no other thread is inside; a list is a class.
    let object = unsafe { local::pop(slab, class.index()) };
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
    let slab = home().get();
    let Some(_inside) = gate_of(slab).enter() else { return false };
    // SAFETY: as in `pop_gated`; objects are even.
    let done = unsafe { local::push(slab, class.index(), object) };
    if done {
        thread::count_free(class);
    }
    done
}

/// [`pop`] where the way is [`way::PROFILED`], for the modes whose fast path is inlined otherwise; `None` in others.
///
/// Not in builds that count hits: the slow path does that for all modes.
#[inline]
pub fn pop_behind(class: SizeClass) -> Option<NonNull<u8>> {
    if hits::COUNTED || thread::is_lent() {
        return None;
    }
    let (word, list) = (way::behind(), class.index());
    // SAFETY: as in `pop` and `pop_gated`: home takes the cell's place, and names the thread's own slab in the mode that
    // changes it plainly.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::pop::<CpuId, CLASSES>(handle, home(), list).ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::pop::<MmCid, CLASSES>(handle, home(), list).ok()
        } else if word == way::GATED {
            let _inside = gate_of(home().get()).enter()?;
            local::pop(home().get(), list)
        } else if way::mode() == Some(Mode::PerThread) {
            local::pop(home().get(), list)
        } else {
            None
        }
    }
}

/// [`push`] where the way is [`way::PROFILED`], as [`pop_behind`]; false where nothing was done.
///
/// # Safety
///
/// * As for [`push`].
#[inline]
pub unsafe fn push_behind(class: SizeClass, object: NonNull<u8>) -> bool {
    if hits::COUNTED || thread::is_lent() {
        return false;
    }
    let (word, list) = (way::behind(), class.index());
    // SAFETY: as in `pop_behind`; objects are even.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(word) {
            sequence::push::<CpuId, CLASSES>(handle, home(), list, object).is_ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(word) {
            sequence::push::<MmCid, CLASSES>(handle, home(), list, object).is_ok()
        } else if word == way::GATED {
            let Some(_inside) = gate_of(home().get()).enter() else { return false };
            local::push(home().get(), list, object)
        } else {
            way::mode() == Some(Mode::PerThread) && local::push(home().get(), list, object)
        }
    }
}
