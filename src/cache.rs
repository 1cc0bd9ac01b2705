//! One front-end cache: what to do when a list of its slab is empty or full.
//!
//! The slab is the mechanism ([`rseq::slab`]); this is the policy over it, and it is the same in every
//! mode: a [`Front`] says only how a list is changed.
//!
//! A list begins without an array. At its first miss it gets a small one. An empty list that missed gets
//! one twice as large while it cannot hold a batch, or if it was full since it last grew; its old array is
//! free at once, because exchanging arrays is one word committed in a sequence. All arrays of a cache
//! together hold at most the cache's budget in bytes. When that is used up, a list that was not used lately loses its
//! array (second chance, as in page replacement): one that has not missed, and whose top is where it was.
//!
//! # Invariants
//!
//! * **accounted**: `capacity_bytes` is the sum over lists of capacity times object size.
//! * **based**: `base` of a list is the lowest slot of its array, or the slab's `nothing`; it changes under
//!   the lock of `shape` only, in the same breath as the slab's `top`.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};

use rseq::slab::{Slab, Slot, make_array};

use crate::back_end::BACK_END;
use crate::budget;
use crate::config::{LIST_SHARE, MAX_BATCH, MAX_LIST_WORDS};
use crate::fatal::fatal;
use crate::front_end::Front;
use crate::hits::Hits;
use crate::size_class::{CLASSES, SizeClass};
use crate::spare_arrays::SPARE_ARRAYS;
use crate::sync::{Guard, Mutex};

/// A cache of one CPU, concurrency id or thread.
#[repr(C, align(128))]
pub struct Cache {
    /// The lists. First, so that a pointer to the slab is a pointer to the cache.
    pub slab: Slab<CLASSES>,
    /// CPU, concurrency id or thread id.
    pub owner: AtomicU32,
    /// Whether a thread that still runs owns it; always true of a CPU's.
    pub in_use: AtomicBool,
    pub counts: [Counts; CLASSES],
    /// Times a thread came to this cache from another.
    pub arrivals: AtomicU64,
    pub hits: Hits,
    /// Slots of each list's array, for readers without the lock.
    capacity: [AtomicU32; CLASSES],
    /// The list was full since it last grew.
    overflowed: [AtomicBool; CLASSES],
    /// The list missed since the last look for a victim.
    missed: [AtomicBool; CLASSES],
    shape: Mutex<Shape>,
    /// Links of the registry, which sets them.
    pub next: AtomicPtr<Cache>,
    pub next_spare: AtomicPtr<Cache>,
}

/// Of one list. Written on slow paths by whoever uses the cache, read by anyone: relaxed, nothing is published.
#[derive(Default)]
pub struct Counts {
    /// Allocations that found the list empty and were served.
    pub underflows: AtomicU64,
    /// Frees that found it full, or without an array.
    pub overflows: AtomicU64,
    /// Objects that came from the tiers behind, and objects that went there.
    pub refilled: AtomicU64,
    pub flushed: AtomicU64,
}

pub struct Shape {
    base: [*mut Slot; CLASSES],
    capacity_bytes: usize,
    /// Where the next look for a victim begins, and each list's top when it last passed.
    hand: usize,
    passed: [*mut Slot; CLASSES],
}

// SAFETY: the pointers name the cache's own arrays.
unsafe impl Send for Shape {}

/// What a cache holds.
#[derive(Clone, Copy, Default)]
pub struct Holdings {
    pub objects: usize,
    pub bytes: usize,
    pub capacity_bytes: usize,
}

/// A buffer for a batch and one object more.
type Batch = [*mut u8; MAX_BATCH + 1];

impl Cache {
    /// Makes a stopped cache with no array out of zeroed memory.
    ///
    /// # Safety
    ///
    /// * `memory` is zero, valid for a `Cache` for ever, and nobody else uses it.
    pub unsafe fn initialize(memory: NonNull<u8>) -> &'static Cache {
        let cache = memory.cast::<Cache>();
        // SAFETY: ours alone; zero is a value of every field but the slab, which is written first, and
        // `base`, which is written next.
        unsafe {
            (&raw mut (*cache.as_ptr()).slab).write(Slab::new());
            let cache = cache.as_ref();
            cache.slab.detach();
            cache.shape.lock().base = [cache.slab.nothing(); CLASSES];
            cache
        }
    }

    /// The list is empty: fetches a batch, returns one object of it and keeps the rest. `None` if memory is
    /// exhausted.
    pub fn refill<F: Front>(&self, front: F, class: SizeClass) -> Option<NonNull<u8>> {
        let list = class.index();
        self.missed[list].store(true, Relaxed);
        self.grow(front, class);
        let middle = BACK_END.middle(class);
        let wanted = (class.info().batch as usize).min(self.capacity(class) + 1);
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        let count = middle.remove_range(&mut batch[..wanted]);
        let objects = &mut batch[..count];
        objects.reverse(); // so that objects leave the list in the order they came
        let (&mut object, rest) = objects.split_last_mut()?;
        self.counts[list].underflows.fetch_add(1, Relaxed);
        self.counts[list].refilled.fetch_add(count as u64, Relaxed);
        // SAFETY: objects of the class from the middle tier belong to nobody.
        let kept = unsafe { front.push_batch(list, rest) }.unwrap_or(0);
        if kept < rest.len() {
            self.counts[list].flushed.fetch_add((rest.len() - kept) as u64, Relaxed);
            middle.insert_range(&rest[kept..]);
        }
        NonNull::new(object)
    }

    /// The list is full: gives a batch back and puts `object` into the list.
    pub fn flush<F: Front>(&self, front: F, class: SizeClass, object: NonNull<u8>) {
        let list = class.index();
        self.missed[list].store(true, Relaxed);
        self.counts[list].overflows.fetch_add(1, Relaxed);
        if self.capacity(class) == 0 && self.grow(front, class) {
            // SAFETY: by our caller, `object` is of the class and free.
            if unsafe { front.push(list, object) }.is_ok() {
                return;
            }
        }
        self.overflowed[list].store(true, Relaxed);
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        let half = self.capacity(class).div_ceil(2).min(class.info().batch as usize);
        // SAFETY: the objects become ours.
        let mut count = unsafe { front.pop_batch(list, &mut batch[..half]) }.unwrap_or(0);
        // SAFETY: as above.
        if unsafe { front.push(list, object) }.is_err() {
            batch[count] = object.as_ptr();
            count += 1;
        }
        self.give(class, &batch[..count]);
        if let Some(mut shape) = self.shape_try_lock() {
            self.make_room(front, &mut shape, None, budget::of_a_cache(), 0); // the budget may have shrunk
        }
    }

    /// Slots of the class's array.
    fn capacity(&self, class: SizeClass) -> usize {
        self.capacity[class.index()].load(Relaxed) as usize
    }

    /// Gives an empty list a larger array if it has earned one. False if it stays as it is.
    fn grow<F: Front>(&self, front: F, class: SizeClass) -> bool {
        let (list, size, batch) = (class.index(), class.size(), class.info().batch as usize);
        // Whoever holds the lock is changing this cache's shape: another miss will find it free.
        let Some(mut shape) = self.shape_try_lock() else { return false };
        let budget = budget::of_a_cache();
        self.make_room(front, &mut shape, None, budget, 0); // the budget may have shrunk
        let capacity = self.capacity(class);
        if capacity >= batch && !self.overflowed[list].load(Relaxed) {
            return false;
        }
        let words = if capacity == 0 { first_words(batch) } else { (capacity + 2) * 2 };
        let most = (budget / LIST_SHARE / size).max(2);
        if words > MAX_LIST_WORDS || (capacity > 0 && words - 2 > most) {
            return false;
        }
        let added = (words - 2 - capacity) * size;
        if !self.make_room(front, &mut shape, Some(list), budget, added) {
            return false;
        }
        let Some(memory) = SPARE_ARRAYS.allocate(words) else { return false };
        // SAFETY: `words` words, ours alone.
        let array = unsafe { make_array(memory, words - 2) };
        if !self.exchange(front, &mut shape, class, array, words - 2) {
            // SAFETY: nobody has seen the array.
            unsafe { SPARE_ARRAYS.release(array, words - 2) };
            return false;
        }
        self.overflowed[list].store(false, Relaxed);
        true
    }

    /// Takes arrays from lists other than `keep` that were not used lately until `added` bytes more fit into the
    /// budget. False if they do not fit.
    fn make_room<F: Front>(
        &self,
        front: F,
        shape: &mut Shape,
        keep: Option<usize>,
        budget: usize,
        added: usize,
    ) -> bool {
        for _ in 0..2 * CLASSES {
            if shape.capacity_bytes + added <= budget {
                return true;
            }
            let victim = shape.hand % CLASSES;
            shape.hand = victim + 1;
            let top = self.slab.top(victim);
            let used = self.missed[victim].swap(false, Relaxed) || top != shape.passed[victim];
            shape.passed[victim] = top;
            if keep != Some(victim) && !used {
                self.strip(front, shape, SizeClass::from_index(victim));
            }
        }
        shape.capacity_bytes + added <= budget
    }

    /// Empties a list and takes its array away.
    fn strip<F: Front>(&self, front: F, shape: &mut Shape, class: SizeClass) {
        if self.capacity(class) == 0 {
            return;
        }
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        // SAFETY: the objects become ours.
        while let Ok(count @ 1..) = unsafe { front.pop_batch(class.index(), &mut batch) } {
            self.give(class, &batch[..count]);
        }
        self.exchange(front, shape, class, self.slab.nothing(), 0);
    }

    /// Gives an empty list of this cache another array and the old one to the spares. False if the list is
    /// not empty, or if the thread is no longer where this cache is.
    fn exchange<F: Front>(
        &self,
        front: F,
        shape: &mut Shape,
        class: SizeClass,
        array: *mut Slot,
        capacity: usize,
    ) -> bool {
        let list = class.index();
        let (old, old_capacity) = (shape.base[list], self.capacity(class));
        // SAFETY: `array` is empty and belongs to nobody. `old` is this list's alone, so if the thread is on
        // another slab by now, no top there is equal to it.
        if unsafe { front.replace(list, old, array) }.is_err() {
            return false;
        }
        shape.base[list] = array;
        shape.capacity_bytes = shape.capacity_bytes + capacity * class.size() - old_capacity * class.size();
        self.capacity[list].store(capacity as u32, Relaxed);
        if old_capacity > 0 {
            // SAFETY: by `replace`, no top points into the old array and no sequence is inside it.
            unsafe { SPARE_ARRAYS.release(old, old_capacity) };
        }
        true
    }

    /// Takes everything out of the cache with `pop_batch`; returns how many bytes.
    ///
    /// The caller holds the lock of the cache's own shape, and sees to it that nobody else changes the slab.
    pub fn drain(&self, shape: &Shape, pop_batch: impl Fn(usize, &mut [*mut u8]) -> usize) -> usize {
        let mut bytes = 0;
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        for class in SizeClass::all() {
            loop {
                let count = pop_batch(class.index(), &mut batch);
                if count == 0 {
                    break;
                }
                self.give(class, &batch[..count]);
                bytes += count * class.size();
            }
            // An odd address looks like the end of the list: nothing below it could ever be taken.
            if self.slab.top(class.index()) != shape.base[class.index()] {
                fatal(&["free of a pointer into the middle of an object"]);
            }
        }
        bytes
    }

    /// Empties the cache and takes all its arrays away.
    pub fn strip_all<F: Front>(&self, front: F) {
        let mut shape = self.shape.lock();
        for class in SizeClass::all() {
            self.strip(front, &mut shape, class);
            self.missed[class.index()].store(false, Relaxed);
            self.overflowed[class.index()].store(false, Relaxed);
        }
        shape.hand = 0;
    }

    fn give(&self, class: SizeClass, objects: &[*mut u8]) {
        self.counts[class.index()].flushed.fetch_add(objects.len() as u64, Relaxed);
        BACK_END.middle(class).insert_range(objects);
    }

    /// What the cache holds, and for each class how many objects. Exact if nobody uses it meanwhile.
    pub fn holdings(&self, mut each: impl FnMut(SizeClass, usize)) -> Holdings {
        let shape = self.shape.lock();
        let mut held = Holdings { capacity_bytes: shape.capacity_bytes, ..Holdings::default() };
        for class in SizeClass::all() {
            let (top, base) = (self.slab.top(class.index()) as usize, shape.base[class.index()] as usize);
            let objects = (top - base) / size_of::<Slot>();
            each(class, objects);
            held.objects += objects;
            held.bytes += objects * class.size();
        }
        held
    }

    /// Locks the shape: held while the cache is drained by another thread, and across fork.
    pub fn shape_lock(&self) -> Guard<'_, Shape> {
        self.shape.lock()
    }

    fn shape_try_lock(&self) -> Option<Guard<'_, Shape>> {
        self.shape.try_lock()
    }

    pub(crate) fn mutex(&self) -> &Mutex<Shape> {
        &self.shape
    }
}

/// Words of a list's first array: six slots, or two where a batch is small because objects are large.
fn first_words(batch: usize) -> usize {
    if batch >= 16 { 8 } else { 4 }
}
