//! Which cache a thread uses, and how its lists are changed: the only difference between the modes.
//!
//! ```text
//! mode            cache found by            lists changed by
//! percpu          cpu_id                    restartable sequences
//! percpu-mmcid    mm_cid                    restartable sequences
//! perthread       a word in TLS             plain loads and stores
//! central         none                      -
//! ```
//!
//! One word, [`FRONT`], says which: the fast path loads it, and in the per-CPU modes it is also where the
//! thread's rseq area is, so choosing at run time costs a load and one predicted branch, or two in the modes tested
//! second. Every thread has one word of TLS, the cell, that names the slab it used last; in a per-CPU mode a sequence
//! checks that it still is the right one. A thread that has none yet is at [`NO_SLAB`], whose lists are empty, full and
//! nobody's.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use rseq::sequence::{self, Miss};
use rseq::slab::Slot;
use rseq::{CpuId, Handle, Index, MmCid, Slab, local};

use crate::back_end::BACK_END;
use crate::cache::Cache;
use crate::hits;
use crate::process;
use crate::registry;
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;

/// A handle of rseq for the per-CPU modes, 0 for the others. Set once, when the process's mode is decided.
/// Every operation reads it, so it shares its line with nothing.
pub static FRONT: Padded<AtomicIsize> = Padded(AtomicIsize::new(0));

/// Where threads begin.
static NO_SLAB: Slab<CLASSES> = Slab::new();
/// Where threads end: their cache is gone, and they get no other.
static EXITED: Slab<CLASSES> = Slab::new();

rseq::thread_cell! {
    /// Names the slab the calling thread used last.
    pub fn cell() -> "perseq_cell": CLASSES, NO_SLAB
}

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

/// Goes on where [`pop`] failed. `None` if memory is exhausted.
pub fn pop_slow(class: SizeClass) -> Option<NonNull<u8>> {
    let front = FRONT.load(Relaxed);
    if let Some(handle) = Handle::from_bits::<CpuId>(front) {
        pop_with(ByIndex::<CpuId>::new(handle), class)
    } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
        pop_with(ByIndex::<MmCid>::new(handle), class)
    } else if process::caches_threads() {
        pop_with(ByThread, class)
    } else {
        pop_uncached(class)
    }
}

/// Goes on where [`push`] failed.
///
/// # Safety
///
/// * As for [`push`].
pub unsafe fn push_slow(class: SizeClass, object: NonNull<u8>) {
    let front = FRONT.load(Relaxed);
    // SAFETY: by our own contract.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            push_with(ByIndex::<CpuId>::new(handle), class, object);
        } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            push_with(ByIndex::<MmCid>::new(handle), class, object);
        } else if process::caches_threads() {
            push_with(ByThread, class, object);
        } else {
            push_uncached(class, object);
        }
    }
}

/// Times a thread looks for its cache before it goes past it. A cache it was moved away from twice in a
/// row, or that is stopped, is not worth waiting for.
const TRIES: usize = 3;

fn pop_with<F: Front>(front: F, class: SizeClass) -> Option<NonNull<u8>> {
    for _ in 0..TRIES {
        let Some(cache) = front.locate() else { break };
        // SAFETY: `locate` named a slab with our lists in the cell.
        match unsafe { front.pop(class.index()) } {
            Ok(object) => {
                hits::allocated(class);
                return Some(object);
            }
            Err(Miss::Unfit) => return cache.refill(front, class),
            Err(Miss::Moved) => {}
        }
    }
    pop_uncached(class)
}

unsafe fn push_with<F: Front>(front: F, class: SizeClass, object: NonNull<u8>) {
    for _ in 0..TRIES {
        let Some(cache) = front.locate() else { break };
        // SAFETY: as in `pop_with`; the object is free, by our own contract.
        match unsafe { front.push(class.index(), object) } {
            Ok(()) => return hits::freed(class),
            Err(Miss::Unfit) => return cache.flush(front, class, object),
            Err(Miss::Moved) => {}
        }
    }
    push_uncached(class, object);
}

fn pop_uncached(class: SizeClass) -> Option<NonNull<u8>> {
    BACK_END.middle(class).remove_uncached().and_then(NonNull::new)
}

fn push_uncached(class: SizeClass, object: NonNull<u8>) {
    BACK_END.middle(class).insert_uncached(object.as_ptr());
}

/// How a mode finds the calling thread's cache and changes lists of the slab that the cell names.
///
/// The contracts of the list operations are those of [`rseq::sequence`].
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub trait Front: Copy {
    /// Finds or makes the cache and names it in the cell. `None`: this thread gets none now.
    fn locate(self) -> Option<&'static Cache>;
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss>;
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss>;
}

/// By the kernel's index `I`, in sequences.
#[derive(Clone, Copy)]
struct ByIndex<I> {
    handle: Handle,
    _index: PhantomData<I>,
}

impl<I: Index> ByIndex<I> {
    fn new(handle: Handle) -> Self {
        ByIndex { handle, _index: PhantomData }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract to the sequence of its name
impl<I: Index> Front for ByIndex<I> {
    fn locate(self) -> Option<&'static Cache> {
        process::ensure_thread().ok()?;
        // SAFETY: the handle is the process's own.
        let index = unsafe { self.handle.index::<I>() };
        let cache = registry::indexed_cache::<I>(index)?;
        if !ptr::eq(cell().get(), &cache.slab) {
            cell().set(&cache.slab);
            cache.arrivals.fetch_add(1, Relaxed);
        }
        Some(cache)
    }
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        unsafe { sequence::pop::<I, CLASSES>(self.handle, cell(), list) }
    }
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        unsafe { sequence::push::<I, CLASSES>(self.handle, cell(), list, object) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::pop_batch::<I, CLASSES>(self.handle, cell(), list, objects) }
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::push_batch::<I, CLASSES>(self.handle, cell(), list, objects) }
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        unsafe { sequence::replace::<I, CLASSES>(self.handle, cell(), list, expected, new) }
    }
}

/// By thread, with plain loads and stores.
#[derive(Clone, Copy)]
pub struct ByThread;

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract; nobody else changes this thread's slab
impl Front for ByThread {
    fn locate(self) -> Option<&'static Cache> {
        let slab = cell().get();
        if ptr::eq(slab, &EXITED) {
            return None;
        }
        if ptr::eq(slab, &NO_SLAB) {
            let cache = registry::thread_cache()?;
            cell().set(&cache.slab);
            // May allocate, and so come back here: the cell is set. If it fails, the cache is never drained.
            process::notice_exit();
            return Some(cache);
        }
        Some(cache_of(slab))
    }
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        unsafe { local::pop(cell().get(), list) }.ok_or(Miss::Unfit)
    }
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        if unsafe { local::push(cell().get(), list, object) } { Ok(()) } else { Err(Miss::Unfit) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        Ok(unsafe { local::pop_batch(cell().get(), list, objects) })
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        Ok(unsafe { local::push_batch(cell().get(), list, objects) })
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        if unsafe { local::replace(cell().get(), list, expected, new) } { Ok(()) } else { Err(Miss::Unfit) }
    }
}

/// The calling thread's own cache, if it has one.
pub fn own_thread_cache() -> Option<&'static Cache> {
    let slab = cell().get();
    (!ptr::eq(slab, &EXITED) && !ptr::eq(slab, &NO_SLAB)).then(|| cache_of(slab))
}

/// The calling thread gets no cache any more.
pub fn retire_thread() {
    cell().set(&EXITED);
}

/// The cache that begins with `slab`.
fn cache_of(slab: &'static Slab<CLASSES>) -> &'static Cache {
    const { assert!(core::mem::offset_of!(Cache, slab) == 0) };
    // SAFETY: every slab but the two statics, which callers excluded, is the first field of a cache.
    unsafe { &*ptr::from_ref(slab).cast::<Cache>() }
}
