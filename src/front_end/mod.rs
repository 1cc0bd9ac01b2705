//! Which cache a thread uses, and how its lists are changed: the only difference between the modes.
//!
//! ```text
//! mode              cache found by              lists changed by             others may take a cache
//! percpu            cpu_id                      restartable sequences        by a stop and a fence
//! percpu-mmcid      mm_cid                      restartable sequences        by a stop and a fence
//! perthread         a word in TLS               plain loads and stores       never
//! perthread-drain   a word in TLS               the same, inside a gate      by closing the gate and a fence
//! sharded           a hash of the thread id     the same, under a lock       by the lock
//! percpu-lock       cpu_id, or getcpu           the same, under a lock       by the lock
//! central           none                        -                            -
//! ```
//!
//! One word, [`FRONT`], says which: the fast path loads it, and in the per-CPU modes it is also where the
//! thread's rseq area is. How a cache is found and its lists are changed is in `front`, what a thread keeps in `thread`.
//!
//! # What choosing at run time costs
//!
//! Per operation, beside what the mode itself does:
//!
//! * `percpu`: a load and a branch that is predicted; `percpu-mmcid` and `perthread`: a branch more.
//! * `perthread-drain`: its threads' cells stay at nobody's lists for ever, so that inlined code finds nothing there, as
//!   little as in an empty list, and goes to the slow path, which looks for this mode first. That is a call and
//!   some ten instructions, beside the six of the gate.
//! * `sharded`, `percpu-lock` and `central`: the same, and then the whole slow path: three calls and some forty
//!   instructions, beside the two atomic operations of a lock.
//!
//! So no code of a mode that is compared stands in the way of the first three.

pub mod budget;
pub mod cache;
pub mod gate;
pub mod hits;
pub mod lists;
pub mod reclaim;
pub mod registry;
pub mod thread;

use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use rseq::sequence::{self, Miss};
use rseq::{CpuId, Handle, MmCid, local};

use self::lists::{ByIndex, ByThread, Gated, Lists, Locked};
use self::thread::{cell, gate_of, home};
use crate::middle::back_end::BACK_END;
use crate::misuse::judge;
use crate::mode::Mode;
use crate::size_class::{CLASSES, SizeClass};
use crate::way::{FRONT, Way, front_word};

/// A free object of `class` from the calling thread's cache, if it is there and has one.
#[inline(always)]
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    let front = FRONT.load(Relaxed); // set once; nothing else is read through it
    let list = class.index();
    // SAFETY: `FRONT` is a handle for the index its tag names, slabs keep their invariants, and a list is a class.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            sequence::pop::<CpuId, CLASSES>(handle, cell(), list).ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            sequence::pop::<MmCid, CLASSES>(handle, cell(), list).ok()
        } else {
            local::pop(cell().get(), list)
        }
    }
}

/// Puts a free object of `class` into the calling thread's cache; false if it is elsewhere or full.
///
/// # Safety
///
/// * `object` is of `class` and belongs to nobody.
#[inline(always)]
pub unsafe fn push(class: SizeClass, object: NonNull<u8>) -> bool {
    let front = FRONT.load(Relaxed); // as in `pop`
    let list = class.index();
    // SAFETY: as in `pop`; objects are at least 8-aligned, so even.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            sequence::push::<CpuId, CLASSES>(handle, cell(), list, object).is_ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            sequence::push::<MmCid, CLASSES>(handle, cell(), list, object).is_ok()
        } else {
            local::push(cell().get(), list, object)
        }
    }
}

/// [`pop`] in `perthread-drain`, where that finds nothing; `None` in the other modes.
#[inline(always)]
pub fn pop_gated(class: SizeClass) -> Option<NonNull<u8>> {
    if FRONT.load(Relaxed) != front_word(Mode::PerThreadDrain) {
        return None;
    }
    let slab = home().get();
    let _inside = gate_of(slab).enter()?;
    // SAFETY: the slab is this thread's or nobody's, and no other thread is inside; a list is a class.
    unsafe { local::pop(slab, class.index()) }
}

/// [`push`] in `perthread-drain`, where that does nothing; false in the other modes.
///
/// # Safety
///
/// * As for [`push`].
#[inline(always)]
pub unsafe fn push_gated(class: SizeClass, object: NonNull<u8>) -> bool {
    if FRONT.load(Relaxed) != front_word(Mode::PerThreadDrain) {
        return false;
    }
    let slab = home().get();
    // SAFETY: as in `pop_gated`; objects are even.
    gate_of(slab).enter().is_some_and(|_inside| unsafe { local::push(slab, class.index(), object) })
}

/// Goes on where [`pop`] failed. `None` if memory is exhausted.
pub fn pop_slow(class: SizeClass) -> Option<NonNull<u8>> {
    match Way::now() {
        Way::Cpu(handle) => pop_with(|| ByIndex::<CpuId>::locate(handle), class),
        Way::Cid(handle) => pop_with(|| ByIndex::<MmCid>::locate(handle), class),
        Way::Thread => pop_with(ByThread::locate, class),
        Way::GatedThread => pop_with(Gated::locate, class),
        Way::Shard => pop_with(Locked::locate_shard, class),
        Way::LockedCpu => pop_with(Locked::locate_cpu, class),
        Way::Uncached | Way::Undecided => pop_uncached(class),
    }
}

/// Goes on where [`push`] failed.
///
/// # Safety
///
/// * As for [`push`].
#[inline(never)] // so that `perthread-drain` does not save its registers
pub unsafe fn push_slow(class: SizeClass, object: NonNull<u8>) {
    // SAFETY: by our own contract.
    unsafe {
        match Way::now() {
            Way::Cpu(handle) => push_with(|| ByIndex::<CpuId>::locate(handle), class, object),
            Way::Cid(handle) => push_with(|| ByIndex::<MmCid>::locate(handle), class, object),
            Way::Thread => push_with(ByThread::locate, class, object),
            Way::GatedThread => push_with(Gated::locate, class, object),
            Way::Shard => push_with(Locked::locate_shard, class, object),
            Way::LockedCpu => push_with(Locked::locate_cpu, class, object),
            Way::Uncached | Way::Undecided => push_uncached(class, object),
        }
    }
}

/// Times a thread looks for its cache before it goes past it. A cache it was moved away from twice in a
/// row, or that is stopped, is not worth waiting for.
const TRIES: usize = 3;

#[inline(never)] // so that a mode does not save another's registers
fn pop_with<F: Lists>(locate: impl Fn() -> Option<F>, class: SizeClass) -> Option<NonNull<u8>> {
    for _ in 0..TRIES {
        let Some(front) = locate() else { break };
        // SAFETY: `locate` found a cache with our lists.
        match unsafe { front.pop(class.index()) } {
            Ok(object) => {
                hits::allocated_from(front.cache(), class);
                return Some(object);
            }
            Err(Miss::Unfit) => return front.cache().refill(front, class),
            Err(Miss::Moved) => {}
        }
    }
    pop_uncached(class)
}

#[inline(never)] // as `pop_with`
unsafe fn push_with<F: Lists>(locate: impl Fn() -> Option<F>, class: SizeClass, object: NonNull<u8>) {
    for _ in 0..TRIES {
        let Some(front) = locate() else { break };
        // SAFETY: as in `pop_with`; the object is free, by our own contract.
        match unsafe { front.push(class.index(), object) } {
            Ok(()) => return hits::freed_to(front.cache(), class),
            Err(Miss::Unfit) => return front.cache().flush(front, class, object),
            Err(Miss::Moved) => {}
        }
    }
    push_uncached(class, object);
}

fn pop_uncached(class: SizeClass) -> Option<NonNull<u8>> {
    BACK_END.middle(class).remove_uncached().and_then(NonNull::new)
}

fn push_uncached(class: SizeClass, object: NonNull<u8>) {
    judge(BACK_END.middle(class).insert_uncached(object.as_ptr()));
}
