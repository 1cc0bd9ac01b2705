//! Objects made and destructed, and objects on their way between two lists.
//!
//! # Invariant
//!
//! * **idle**: a word in a batch, on a list or in a depot is the address of an object that was constructed here, that
//!   nobody uses, and that is in no other such place.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::construct::Construct;
use crate::allocator::Perseq;

/// A block of the process's heap with no object in it. Dropping it gives it back.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

impl Block {
    fn allocate(layout: Layout) -> Option<Self> {
        let start = if layout.size() == 0 {
            ptr::without_provenance_mut(layout.align())
        } else {
            // SAFETY: the layout is not empty.
            unsafe { Perseq::new().alloc(layout) }
        };
        NonNull::new(start).map(|start| Block { start, layout })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: a block of the heap, by `allocate`, in which there is no object.
            unsafe { Perseq::new().dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

/// Where objects of one layout begin and end. Counts both; the counts publish nothing, so they are relaxed.
pub struct Workshop<T> {
    layout: Layout,
    ctor: AtomicU64,
    dtor: AtomicU64,
    /// Invariant in `T`: a `&'static str` that goes in must not come out of a cache of shorter ones, nor the other way.
    _objects: PhantomData<Cell<T>>,
}

impl<T> Workshop<T> {
    /// For objects of `layout`, which is `T`'s, perhaps aligned to more.
    pub const fn new(layout: Layout) -> Self {
        Workshop { layout, ctor: AtomicU64::new(0), dtor: AtomicU64::new(0), _objects: PhantomData }
    }

    /// A new object. `None` if memory is exhausted.
    pub fn construct(&self, how: &impl Construct<T>) -> Option<NonNull<T>> {
        let block = Block::allocate(self.layout)?;
        let place = block.start.cast();
        // SAFETY: so large, so aligned, and ours alone. If this unwinds, the block is given back.
        unsafe { how.construct(place.as_ptr()) };
        core::mem::forget(block);
        self.ctor.fetch_add(1, Relaxed);
        Some(place)
    }

    /// Destructs an object.
    ///
    /// # Safety
    ///
    /// * `construct` of this workshop made it, and nobody uses it any more.
    pub unsafe fn destruct(&self, object: NonNull<T>) {
        // Given back also if the destructor unwinds.
        let _block = Block { start: object.cast(), layout: self.layout };
        self.dtor.fetch_add(1, Relaxed);
        // SAFETY: by our own contract.
        unsafe { object.drop_in_place() };
    }

    /// How many objects were constructed and destructed.
    pub fn counts(&self) -> (u64, u64) {
        // In this order, so that what is constructed and destructed meanwhile does not seem never constructed.
        let dtor = self.dtor.load(Relaxed);
        (self.ctor.load(Relaxed).max(dtor), dtor)
    }
}

/// An object as lists hold it.
#[inline]
pub fn word_of<T>(object: NonNull<T>) -> u64 {
    object.as_ptr().expose_provenance() as u64
}

/// The object that [`word_of`] made a word of.
///
/// # Safety
///
/// * `word` is not 0.
#[inline]
pub unsafe fn object_of<T>(word: u64) -> NonNull<T> {
    // SAFETY: by our own contract.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(word as usize)) }
}

/// A whole list and one object more.
pub const MAX_BATCH: usize = MAX_PER_CPU + 1;

/// Most objects that one CPU's list can hold. With its length and the stop word, a row is 512 bytes.
pub const MAX_PER_CPU: usize = 62;

/// Idle objects that were taken from somewhere. Those it is dropped with are destructed, so that none is lost where
/// somebody's destructor unwinds.
pub struct Batch<'a, T> {
    workshop: &'a Workshop<T>,
    words: [u64; MAX_BATCH],
    count: usize,
}

impl<'a, T> Batch<'a, T> {
    pub fn new(workshop: &'a Workshop<T>) -> Self {
        Batch { workshop, words: [0; MAX_BATCH], count: 0 }
    }

    /// What `take` put into the room of a new batch, of which it returns how much.
    pub fn filled_by(workshop: &'a Workshop<T>, take: impl FnOnce(&mut [u64]) -> usize) -> Self {
        let mut batch = Batch::new(workshop);
        batch.count = take(&mut batch.words);
        batch
    }

    /// Adds an idle object. There is room for [`MAX_BATCH`].
    pub fn push(&mut self, word: u64) {
        self.words[self.count] = word;
        self.count += 1;
    }

    /// Takes the object that was added last.
    pub fn pop(&mut self) -> Option<u64> {
        self.count = self.count.checked_sub(1)?;
        Some(self.words[self.count])
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Destructs all; returns how many.
    pub fn destruct(mut self) -> usize {
        let count = self.count;
        self.destruct_each();
        count
    }

    fn destruct_each(&mut self) {
        while let Some(word) = self.pop() {
            // SAFETY: by **idle**, an object that nobody uses.
            unsafe { self.workshop.destruct(object_of(word)) };
        }
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        self.destruct_each();
    }
}
