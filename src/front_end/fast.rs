//! What is inlined into every allocation and free of a small object: the fast path of all modes that have one; and the same
//! out of line, for the mode with gates and while a heap profile is taken.

use core::ptr::NonNull;

use rseq::{CpuId, Handle, MmCid, local, sequence};

use crate::front_end::hits;
use crate::front_end::thread::{self, cell, gate_of, home};
use crate::size_class::{CLASSES, SizeClass};
use crate::way;

/// `pop` or `push` on the way that a word says, in the slab that a place names. With any word but a handle the slab is to be
/// this thread's or nobody's.
///
/// No function: where a program is not optimized, each of its arguments would be stored and loaded again.
macro_rules! on_way {
    ($word:expr, $place:expr, $operation:ident($($argument:expr),+).$done:ident()) => {
        if let Some(handle) = Handle::from_bits::<CpuId>($word) {
            sequence::$operation::<CpuId, CLASSES>(handle, $place, $($argument),+).$done()
        } else if let Some(handle) = Handle::from_bits::<MmCid>($word) {
            sequence::$operation::<MmCid, CLASSES>(handle, $place, $($argument),+).$done()
        } else {
            local::$operation($place.get(), $($argument),+)
        }
    };
}

/// A free object of `class` from the calling thread's cache, if it is there and has one.
#[inline(always)]
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    let word = way::word();
    let list = class.index();
    // SAFETY: a handle in the word is the process's own, for the index its tag names; slabs keep their invariants, and
    // a list is a class.
    let object = unsafe { on_way!(word, cell(), pop(list).ok()) };
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
    let done = unsafe { on_way!(word, cell(), push(list, object).is_ok()) };
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
    let slab = home().get();
    let _inside = gate_of(slab).enter()?;
    // SAFETY: the slab is this thread's or nobody's, and no other thread is inside; a list is a class.
    unsafe { local::pop(slab, class.index()) }
}

/// [`push`] as [`pop_inside`].
///
/// # Safety
///
/// * As for [`push`].
#[inline(always)]
unsafe fn push_inside(class: SizeClass, object: NonNull<u8>) -> bool {
    let slab = home().get();
    let Some(_inside) = gate_of(slab).enter() else { return false };
    // SAFETY: as in `pop_inside`; objects are even.
    unsafe { local::push(slab, class.index(), object) }
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
        word => unsafe { on_way!(word, home(), pop(class.index()).ok()) },
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
        word => unsafe { on_way!(word, home(), push(class.index(), object).is_ok()) },
    }
}
