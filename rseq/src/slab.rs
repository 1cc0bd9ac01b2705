//! A slab: one CPU's stacks of objects, and how it is stopped so that others may touch it.
//!
//! ```text
//!  Slab                                   array of list 1
//!  ┌────────────┐                         ┌─────────────────────┐
//!  │ id         │ owner, or STOPPED       │ 1                   │ odd: the list is empty
//!  │ top[0]     │                         │ object              │
//!  │ top[1]   ──┼──────────────────┐      │ object              │
//!  │ ...        │                  └────► │ (even, anything)    │ first free slot
//!  └────────────┘                         │ (even, anything)    │
//!                                         │ 1                   │ odd: the list is full
//!                                         └─────────────────────┘
//! ```
//!
//! Objects are even addresses, so an odd slot is a sentinel, and neither pop nor push needs to know
//! where an array begins or ends. An array can therefore be anywhere, and be replaced by storing one word.
//!
//! # Invariants
//!
//! * **pointed**: `top[list]` points into an array of that list, above its low and not above its high sentinel.
//! * **even**: every slot between the sentinels is even.
//! * **owned**: while `id` is an index, only sequences on that index change the slab; while it is
//!   [`STOPPED`], only the holder of its [`Stopped`] guard does.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Relaxed, Release},
};

use crate::fence;
use crate::index::Index;
use crate::local;

/// The id of a slab that belongs to nobody now (-3). No index ever has this value, and it differs
/// from -1 and -2, which the kernel and libc use for threads that are not registered.
pub const STOPPED: u32 = u32::MAX - 2;

/// One cell of a list's array: an object's address, or a sentinel.
pub type Slot = AtomicUsize;

/// The value of both sentinels.
pub const SENTINEL: usize = 1;

/// What `nothing` is to a slab made at compile time, which cannot name its own address.
static EMPTY_AND_FULL: [Slot; 2] = [Slot::new(SENTINEL), Slot::new(SENTINEL)];

/// `LISTS` stacks of objects that belong to one index (a CPU or a concurrency id).
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slab<const LISTS: usize> {
    /// Owner, or [`STOPPED`]. Written by `start` and `stop`; read inside every sequence.
    id: AtomicU32,
    _pad: u32,
    /// First free slot of each list. Written by the commit of a sequence.
    top: [AtomicPtr<Slot>; LISTS],
    /// Where a list without an array points: no room, and nothing in it. Each slab has its own, so that
    /// no top of one slab is ever equal to one of another.
    nothing: [Slot; 2],
}

/// Offset of `top[0]`, which no `LISTS` changes.
pub(crate) const TOPS: usize = memoffset::offset_of!(Slab<1>, top);

impl<const LISTS: usize> Slab<LISTS> {
    /// A stopped slab whose lists are all both empty and full.
    #[must_use]
    pub const fn new() -> Self {
        Slab {
            id: AtomicU32::new(STOPPED),
            _pad: 0,
            top: [const { AtomicPtr::new((&raw const EMPTY_AND_FULL[1]).cast_mut()) }; LISTS],
            nothing: [Slot::new(SENTINEL), Slot::new(SENTINEL)],
        }
    }

    /// Gives every list of a slab that nobody uses yet its own place to point at, [`Slab::nothing`].
    /// Needed before [`crate::sequence::replace`] can give a list its first array.
    ///
    /// # Safety
    ///
    /// * The slab stays where it is from now on: its tops point into it.
    pub unsafe fn detach(&self) {
        for cell in &self.top {
            cell.store(self.nothing(), Relaxed);
        }
    }

    /// The top of a list of this slab that has no array.
    pub fn nothing(&self) -> *mut Slot {
        (&raw const self.nothing[1]).cast_mut()
    }

    /// Gives a slab that nobody uses yet to `owner`.
    pub fn start(&self, owner: u32) {
        // Release: whoever reads this id in a sequence sees the lists as we set them up.
        self.id.store(owner, Release);
    }

    /// The owner, or [`STOPPED`].
    pub fn id(&self) -> u32 {
        self.id.load(Relaxed) // a hint: only a sequence can act on it
    }

    /// First free slot of `list`, for reports and for [`crate::sequence::replace`].
    pub fn top(&self, list: usize) -> *mut Slot {
        self.top[list].load(Relaxed)
    }

    /// The cell of `top(list)`.
    ///
    /// # Safety
    ///
    /// * `list` is below `LISTS`.
    #[inline(always)]
    pub(crate) unsafe fn top_cell(&self, list: usize) -> &AtomicPtr<Slot> {
        debug_assert!(list < LISTS);
        // SAFETY: by our own contract.
        unsafe { self.top.get_unchecked(list) }
    }

    /// Takes the slab from its owner: no sequence uses it when this returns, and none will until the
    /// guard is dropped. `None` if somebody else holds it stopped, or if the fence failed.
    ///
    /// `I` is the index its owners find it by. Costs one [`fence`].
    pub fn stop<I: Index>(&self) -> Option<Stopped<'_, LISTS>> {
        let owner = self.id();
        // AcqRel: we see what the last guard did. A sequence that read the old id is dealt with by the fence.
        if owner == STOPPED || self.id.compare_exchange(owner, STOPPED, AcqRel, Relaxed).is_err() {
            return None;
        }
        let guard = Stopped { slab: self, owner, _not_send: PhantomData };
        let fenced = if I::IS_CPU { fence::cpu(owner) } else { fence::all() };
        match fenced {
            Ok(()) => Some(guard),
            Err(_) => None, // dropping the guard starts the slab again, untouched
        }
    }
}

impl<const LISTS: usize> Default for Slab<LISTS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Exclusive use of a stopped slab. Dropping it starts the slab again.
#[derive(Debug)]
pub struct Stopped<'a, const LISTS: usize> {
    slab: &'a Slab<LISTS>,
    owner: u32,
    _not_send: PhantomData<*mut ()>,
}

impl<const LISTS: usize> Stopped<'_, LISTS> {
    /// Takes up to `objects.len()` of the newest objects of `list`; returns how many.
    ///
    /// # Panics
    ///
    /// `list` is not below `LISTS`.
    pub fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> usize {
        assert!(list < LISTS);
        // SAFETY: **owned**: the guard is the only user.
        unsafe { local::pop_batch(self.slab, list, objects) }
    }
}

impl<const LISTS: usize> Drop for Stopped<'_, LISTS> {
    fn drop(&mut self) {
        self.slab.start(self.owner);
    }
}

/// Makes an array of `capacity` slots at `memory` and returns its lowest slot: where `top` points
/// while the list is empty.
///
/// # Safety
///
/// * `memory` is valid for `capacity + 2` words and nobody else uses it.
pub unsafe fn make_array(memory: NonNull<usize>, capacity: usize) -> *mut Slot {
    let words = memory.as_ptr();
    // SAFETY: all within the `capacity + 2` words of our own contract.
    unsafe {
        ptr::write_bytes(words, 0, capacity + 2);
        *words = SENTINEL;
        *words.add(capacity + 1) = SENTINEL;
        words.add(1).cast()
    }
}
