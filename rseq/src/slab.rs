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
//!   [`STOPPED`], only the holder of its [`Stopped`](crate::Stopped) guard does.

use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Relaxed, Release},
};

use crate::index::Index;
use crate::stop::StopError;

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
    /// Owner, or [`STOPPED`]. Written by `start`, `hold` and `resume`; read inside every sequence.
    id: AtomicU32,
    /// 1 if the owner is a CPU, which a fence can be aimed at. Written by `start`, read by who holds the slab.
    owner_is_cpu: AtomicU32,
    /// First free slot of each list. Written by the commit of a sequence.
    top: [AtomicPtr<Slot>; LISTS],
    /// Where a list without an array points: no room, and nothing in it. Each slab has its own, so that
    /// no top of one slab is ever equal to one of another.
    nothing: [Slot; 2],
    /// Of who holds the slab: whose it was, and the next slab of the same set.
    held: Held<LISTS>,
}

#[derive(Debug)]
struct Held<const LISTS: usize> {
    owner: AtomicU32,
    next: AtomicPtr<Slab<LISTS>>,
}

/// Offset of the first list's top in a slab, which the other lists' tops follow; no `LISTS` changes it.
pub const TOPS: usize = memoffset::offset_of!(Slab<1>, top);

impl<const LISTS: usize> Slab<LISTS> {
    /// A stopped slab whose lists are all both empty and full.
    #[must_use]
    pub const fn new() -> Self {
        Slab {
            id: AtomicU32::new(STOPPED),
            owner_is_cpu: AtomicU32::new(0),
            top: [const { AtomicPtr::new((&raw const EMPTY_AND_FULL[1]).cast_mut()) }; LISTS],
            nothing: [Slot::new(SENTINEL), Slot::new(SENTINEL)],
            held: Held { owner: AtomicU32::new(STOPPED), next: AtomicPtr::new(ptr::null_mut()) },
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

    /// Gives a slab that nobody uses yet to `owner`, a value of index `I`: sequences may use it from now on.
    ///
    /// # Safety
    ///
    /// * The slab is new: it was not started before.
    /// * Its tops keep **pointed** and **even**, and the slab stays where it is.
    /// * `owner` is an index that the kernel can give, so none of -1, -2 and [`STOPPED`], and no other slab that
    ///   threads find by `I` has it.
    pub unsafe fn start<I: Index>(&self, owner: u32) {
        self.owner_is_cpu.store(u32::from(I::IS_CPU), Relaxed); // published with the id
        // Release: whoever reads this id in a sequence sees the lists as we set them up.
        self.id.store(owner, Release);
    }

    /// Keeps new sequences off the slab. Those that began before may still be running.
    pub(crate) fn hold(&self) -> Result<(), StopError> {
        let owner = self.id();
        // AcqRel: we see what the last holder did. A sequence that read the old id is dealt with by the fence.
        if owner == STOPPED || self.id.compare_exchange(owner, STOPPED, AcqRel, Relaxed).is_err() {
            return Err(StopError::Held);
        }
        self.held.owner.store(owner, Relaxed); // the holder alone reads and writes what is in `held`
        Ok(())
    }

    /// Undoes `hold`. Only for who holds the slab.
    pub(crate) fn resume(&self) {
        // Release: sequences see what the holder did; pairs with the load of the id in each.
        self.id.store(self.held.owner.load(Relaxed), Release);
    }

    /// The CPU a fence for this slab can be aimed at. Only for who holds the slab.
    pub(crate) fn owner_cpu(&self) -> Option<u32> {
        (self.owner_is_cpu.load(Relaxed) != 0).then(|| self.held.owner.load(Relaxed))
    }

    /// The next slab of the set this one is held in. Only for who holds the slab.
    pub(crate) fn next_held(&self) -> &AtomicPtr<Slab<LISTS>> {
        &self.held.next
    }

    /// The owner, or [`STOPPED`].
    pub fn id(&self) -> u32 {
        self.id.load(Relaxed) // a hint: only a sequence can act on it
    }

    /// First free slot of `list`, for reports and for [`crate::sequence::replace`]. A hint, like [`Slab::id`].
    ///
    /// # Panics
    ///
    /// `list` is not below `LISTS`.
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
}

impl<const LISTS: usize> Default for Slab<LISTS> {
    fn default() -> Self {
        Self::new()
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
