//! One front-end cache: what to do when a list of its slab is empty or full.
//!
//! The slab is the mechanism ([`rseq::slab`]); this is the policy over it, and it is the same in every
//! mode: a [`Lists`] says only how a list is changed.
//!
//! A list begins without an array, and with a slow start as of TCP: its first miss fetches two objects, or of small ones
//! as many as fill whole cache lines, so that two caches that begin do not share one; each further miss twice as many,
//! up to the class's batch. A list that missed while it was empty gets an array twice as large if its array cannot hold
//! the next refill, or if it was full since it last grew. A list that was full gets one if it cannot hold two batches:
//! then a cache that only frees hands on whole batches, which caches that only allocate fetch. The old array is free at
//! once, because exchanging arrays is one word committed in a sequence.
//!
//! All arrays of a cache together hold what its budget allows (`budget`). When the budget is used up, a list that was
//! not used lately loses its array and starts slowly again. Which list, the clock algorithm of page replacement says
//! (second chance): the next list that has not missed, and whose top has not moved, since the hand last passed it. The
//! hand moves once in so many misses: a cache too small for its work would otherwise exchange arrays at each miss, and
//! cost more than none. A list without an array passes its objects on one by one, as if there were no cache.
//! Where the budget is shared among caches, a cache is `Starved` instead, and the slow path takes budget from other
//! caches first.
//!
//! # Invariants
//!
//! * **accounted**: `capacity_bytes` is the sum over lists of capacity times object size, and reserved in the budget.
//! * **based**: `base` of a list is the lowest slot of its array, or the slab's `nothing`; it changes under
//!   the lock of `shape` only, in the same breath as the slab's `top`.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use rseq::slab::{Slab, Slot, make_array};

use crate::config::{LINE, LIST_SHARE, MAX_BATCH, MAX_LIST_WORDS, MISSES_PER_LOOK, MISSES_PER_SWEEP};
use crate::front_end::behind::{Behind, Process};
use crate::front_end::gate::Gate;
use crate::front_end::hits::Hits;
use crate::front_end::lists::{Exclusive, Lists};
use crate::lock_order::Rank;
use crate::message::law;
use crate::misuse::{Misuse, judge};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Mutex;

#[cfg(debug_assertions)]
mod check;
pub mod layout;
#[cfg(test)]
mod tests;

/// A cache of one CPU, concurrency id, thread or slot.
#[repr(C, align(128))]
pub struct Cache<B: Behind = Process> {
    /// The lists. First, so that a pointer to the slab is a pointer to the cache.
    pub slab: Slab<CLASSES>,
    /// Keeps others off the lists where the owner has to say that it is at them.
    pub gate: Gate,
    /// CPU, concurrency id, thread id or slot.
    pub owner: AtomicU32,
    /// Whether a thread that still runs owns it; always true of a CPU's.
    pub in_use: AtomicBool,
    /// It missed since another cache last looked for budget to take.
    pub missed_lately: AtomicBool,
    /// Misses of all lists, which say when to look for idle caches.
    misses: AtomicU64,
    /// Times it was emptied because it was idle, and times it gave budget to another cache.
    pub idle_drains: AtomicU64,
    pub lendings: AtomicU64,
    /// What the last look for idle caches saw.
    pub look: Look,
    /// Protects the lists in the modes that lock them.
    pub lists: Mutex<()>,
    pub counts: [ListCounts; CLASSES],
    /// Times a thread came to this cache from another.
    pub arrivals: AtomicU64,
    pub hits: Hits,
    /// Each list's array, and how many slots it has: written under the lock of `shape`, and for readers without it.
    base: [AtomicPtr<Slot>; CLASSES],
    capacity: [AtomicU32; CLASSES],
    /// How often each list's refill doubled since it had no array.
    doublings: [AtomicU8; CLASSES],
    /// The list was full since it last grew.
    overflowed: [AtomicBool; CLASSES],
    /// The list missed since the last look for a victim.
    missed: [AtomicBool; CLASSES],
    shape: Mutex<Shape>,
    /// Of `shape`, for readers without the lock.
    capacity_bytes: AtomicUsize,
    /// Links of the registry, which sets them.
    pub next: AtomicPtr<Cache<B>>,
    pub next_spare: AtomicPtr<Cache<B>>,
    _behind: PhantomData<B>,
}

/// Of one list. Written on slow paths by whoever uses the cache, read by anyone: relaxed, nothing is published.
#[derive(Default)]
pub struct ListCounts {
    /// Allocations that found the list empty and were served.
    pub underflows: AtomicU64,
    /// Frees that found it full, or without an array.
    pub overflows: AtomicU64,
    /// Objects that came from the tiers behind, and objects that went there.
    pub refilled: AtomicU64,
    pub flushed: AtomicU64,
}

/// What [`reclaim`] remembers of a cache. Written by whoever has the right to reclaim; the last by the cache's user.
#[derive(Default)]
pub struct Look {
    /// [`Cache::signature`], and the time since when it has been that.
    pub signature: AtomicU64,
    pub since: AtomicU64,
    /// The number of misses from which the cache may take budget from others again.
    pub next_steal: AtomicU64,
}

/// Where a list that grows may get budget from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// What nobody has reserved.
    Unused,
    /// That, or else what other lists of this cache have.
    OtherLists,
}

/// A list would have grown, but no budget of so many bytes is left.
pub struct Starved(pub usize);

/// Whether a list got a larger array.
#[derive(PartialEq, Eq)]
enum Grown {
    Yes,
    No,
    /// It would have, but no budget of so many bytes is left.
    Starved(usize),
}

pub struct Shape {
    capacity_bytes: usize,
    /// The clock's hand: where the next look for a victim begins, and each list's top when it last passed.
    hand: usize,
    passed: [*mut Slot; CLASSES],
    /// The number of misses from which a list that grows may take other lists' arrays again.
    next_sweep: u64,
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

impl<B: Behind> Cache<B> {
    /// Makes a stopped cache with no array out of zeroed memory.
    ///
    /// # Safety
    ///
    /// * `memory` is zero, valid for a `Cache` for ever, and nobody else uses it.
    pub unsafe fn initialize(memory: NonNull<u8>) -> &'static Self {
        let cache = memory.cast::<Self>();
        let shape = Shape { capacity_bytes: 0, hand: 0, passed: [ptr::null_mut(); CLASSES], next_sweep: 0 };
        // SAFETY: ours alone; zero is a value of every field but the slab and the locks, which are written first, and
        // `base`, which is written next.
        unsafe {
            (&raw mut (*cache.as_ptr()).slab).write(Slab::new());
            (&raw mut (*cache.as_ptr()).lists).write(Mutex::new(Rank::Lists, ()));
            (&raw mut (*cache.as_ptr()).shape).write(Mutex::new(Rank::Shape, shape));
            let cache = cache.as_ref();
            cache.slab.detach();
            // Not locked: nobody knows the cache, and our caller holds the registry's lock and may hold more.
            cache.base.iter().for_each(|base| base.store(cache.slab.nothing(), Relaxed));
            cache
        }
    }

    /// The list is empty: how many objects [`Cache::refill`] is to fetch.
    pub fn begin_refill(&self, class: SizeClass) -> usize {
        self.missed[class.index()].store(true, Relaxed);
        self.next_refill(class)
    }

    /// Fetches `wanted` objects, or as many as the list has room for and one more; returns one and keeps the rest.
    /// `None` if memory is exhausted. Starved, and nothing happened, if the list is to grow and there is no `room`. The
    /// caller holds no lock.
    pub fn refill<L: Lists>(
        &self,
        lists: L,
        class: SizeClass,
        wanted: usize,
        room: Room,
    ) -> Result<Option<NonNull<u8>>, Starved> {
        let list = class.index();
        if let Grown::Starved(bytes) = judge(self.grow(lists, class, wanted, room)) {
            return Err(Starved(bytes));
        }
        let wanted = wanted.min(self.capacity(class) + 1);
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        let count = B::remove_range(class, &mut batch[..wanted]);
        let objects = &mut batch[..count];
        objects.reverse(); // so that objects leave the list in the order they came
        let Some((&mut object, rest)) = objects.split_last_mut() else { return Ok(None) };
        self.counts[list].underflows.fetch_add(1, Relaxed);
        self.counts[list].refilled.fetch_add(count as u64, Relaxed);
        // SAFETY: objects of the class from the middle tier belong to nobody.
        let kept = unsafe { lists.push_batch(list, rest) }.unwrap_or(0);
        if kept < rest.len() {
            judge(self.give(class, &rest[kept..]));
        }
        Ok(NonNull::new(object))
    }

    /// The list is full, or has no array. The caller holds no lock.
    pub fn begin_flush(&self, class: SizeClass) {
        let list = class.index();
        self.missed[list].store(true, Relaxed);
        self.counts[list].overflows.fetch_add(1, Relaxed);
    }

    /// Gives a list without an array one, if there is `room`, and `object` goes there. False if not: [`Cache::flush`] comes
    /// next. Starved, and nothing happened, if there is no room. The caller holds no lock.
    pub fn push_to_first_array<L: Lists>(
        &self,
        lists: L,
        class: SizeClass,
        object: NonNull<u8>,
        room: Room,
    ) -> Result<bool, Starved> {
        if self.capacity(class) > 0 {
            return Ok(false);
        }
        match judge(self.grow(lists, class, 2, room)) {
            Grown::No => Ok(false),
            Grown::Starved(bytes) => Err(Starved(bytes)),
            // SAFETY: by our caller, `object` is of the class and free.
            Grown::Yes => Ok(unsafe { lists.push(class.index(), object) }.is_ok()),
        }
    }

    /// Gives a batch of a full list back and puts `object` into the list, which gets a larger array if it cannot hold two
    /// batches, so that who only frees hands on whole ones. Starved if it is to grow and nobody has left so many bytes.
    /// The caller holds no lock.
    pub fn flush<L: Lists>(&self, lists: L, class: SizeClass, object: NonNull<u8>) -> Result<(), Starved> {
        let (list, most) = (class.index(), class.info().batch as usize);
        self.overflowed[list].store(true, Relaxed);
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        let words = self.capacity(class) + 2;
        // SAFETY: the objects become ours.
        let mut count = unsafe { lists.pop_batch(list, &mut batch[..most.min(words / 2)]) }.unwrap_or(0);
        // SAFETY: as above.
        if unsafe { lists.push(list, object) }.is_err() {
            batch[count] = object.as_ptr();
            count += 1;
        }
        self.count_flushed(class, count);
        // SAFETY: they were on a list of the class, or are to go there.
        let given = unsafe { B::hand_on(class, &batch[..count]) };
        if words > 2 && words < 2 * most {
            return match judge(given.and(self.grow(lists, class, 0, Room::Unused))) {
                Grown::Starved(bytes) => Err(Starved(bytes)),
                Grown::Yes | Grown::No => Ok(()),
            };
        }
        let kept = self.shape.try_lock().map_or(Ok(0), |mut shape| self.keep_to_budget(lists, &mut shape));
        judge(given.and(kept));
        Ok(())
    }

    /// Counts a miss. True now and then: it is time to look for idle caches.
    pub fn count_miss(&self) -> bool {
        self.missed_lately.store(true, Relaxed);
        self.misses.fetch_add(1, Relaxed).is_multiple_of(MISSES_PER_LOOK)
    }

    /// How many misses there were.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// How many objects the list fetches now: twice as many the next time, up to the class's batch.
    fn next_refill(&self, class: SizeClass) -> usize {
        let (doublings, batch) = (&self.doublings[class.index()], class.info().batch as usize);
        let count = doublings.load(Relaxed);
        let wanted = (first_refill(class.size()) << count).min(batch);
        if wanted < batch {
            doublings.store(count + 1, Relaxed);
        }
        wanted
    }

    /// Slots of the class's array.
    fn capacity(&self, class: SizeClass) -> usize {
        self.capacity[class.index()].load(Relaxed) as usize
    }

    /// Gives a list a larger array if it has earned one or could not hold `wanted` objects less one, and if there is
    /// `room`. The list holds a batch at most.
    fn grow<L: Lists>(&self, lists: L, class: SizeClass, wanted: usize, room: Room) -> Result<Grown, Misuse> {
        let (list, size, batch) = (class.index(), class.size(), class.info().batch as usize);
        // Whoever holds the lock is changing this cache's shape: another miss will find it free.
        let Some(mut shape) = self.shape.try_lock() else { return Ok(Grown::No) };
        let most = self.keep_to_budget(lists, &mut shape)?;
        let capacity = self.capacity(class);
        if capacity > 0 && capacity + 1 >= wanted && !self.overflowed[list].load(Relaxed) {
            return Ok(Grown::No);
        }
        let most_slots = (most / LIST_SHARE / size).max(2);
        let words = if capacity == 0 { first_words(size, batch, most_slots) } else { (capacity + 2) * 2 };
        if words > MAX_LIST_WORDS || (capacity > 0 && words - 2 > most_slots) {
            return Ok(Grown::No);
        }
        let added = (words - 2 - capacity) * size;
        if !self.sweep(lists, &mut shape, list, most, added)? {
            return Ok(Grown::No);
        }
        if !B::reserve(added) {
            let had = shape.capacity_bytes;
            if room == Room::Unused {
                return Ok(Grown::Starved(added));
            }
            if !(self.sweep(lists, &mut shape, list, had, added)? && B::reserve(added)) {
                return Ok(Grown::No);
            }
        }
        let (done, finding) = self.exchange_for_new(lists, &mut shape, class, words);
        if !done {
            B::release(added);
            return finding.map(|()| Grown::No);
        }
        if shape.capacity_bytes <= B::share() {
            B::is_served();
        }
        self.overflowed[list].store(false, Relaxed);
        finding.map(|()| Grown::Yes)
    }

    /// Gives a list a new array of `words`, whose growth was reserved, and what was in the old one. Whether it has it, and
    /// what was found among objects that had to go back.
    fn exchange_for_new<L: Lists>(
        &self,
        lists: L,
        shape: &mut Shape,
        class: SizeClass,
        words: usize,
    ) -> (bool, Result<(), Misuse>) {
        let Some(memory) = B::allocate_array(words) else { return (false, Ok(())) };
        // SAFETY: `words` words, ours alone.
        let array = unsafe { make_array(memory, words - 2) };
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        // SAFETY: the objects become ours.
        let count = unsafe { lists.pop_batch(class.index(), &mut batch) }.unwrap_or(0);
        let done = self.exchange(lists, shape, class, array, words - 2);
        if !done {
            // SAFETY: nobody has seen the array.
            unsafe { B::release_array(array, words - 2) };
        }
        if count == 0 {
            return (done, Ok(()));
        }
        let objects = &mut batch[..count];
        objects.reverse(); // newest last, as they were
        // SAFETY: the objects are ours until they are in a list.
        let kept = unsafe { lists.push_batch(class.index(), objects) }.unwrap_or(0);
        (done, if kept < count { self.give(class, &objects[kept..]) } else { Ok(()) })
    }

    /// Gives back what is over the budget, which may have shrunk; returns what it is, in bytes.
    fn keep_to_budget<L: Lists>(&self, lists: L, shape: &mut Shape) -> Result<usize, Misuse> {
        let most = B::most();
        self.make_room(lists, shape, None, most, 0)?;
        Ok(most)
    }

    /// Gives up `bytes` of capacity or more, of lists not used lately first; returns how many.
    pub fn give_up(&self, lists: Exclusive, shape: &mut Shape, bytes: usize) -> Result<usize, Misuse> {
        let had = shape.capacity_bytes;
        self.make_room(lists, shape, None, had.saturating_sub(bytes), 0)?;
        Ok(had - shape.capacity_bytes)
    }

    /// As [`Cache::make_room`] for a list that grows, but not at each miss. False at once where nothing would help.
    fn sweep<L: Lists>(
        &self,
        lists: L,
        shape: &mut Shape,
        list: usize,
        budget: usize,
        added: usize,
    ) -> Result<bool, Misuse> {
        if shape.capacity_bytes + added <= budget {
            return Ok(true);
        }
        if added > budget || self.misses() < shape.next_sweep {
            return Ok(false);
        }
        let begin = shape.hand;
        let made = self.make_room(lists, shape, Some(list), budget, added);
        // The hand came round: what it took at last was in use, and will be missed.
        let crowded = shape.hand - begin > CLASSES;
        shape.next_sweep = self.misses() + MISSES_PER_SWEEP[usize::from(crowded)];
        made
    }

    /// Takes arrays from lists other than `keep` that were not used lately until `added` bytes more fit into the
    /// budget. False if they do not fit.
    fn make_room<L: Lists>(
        &self,
        lists: L,
        shape: &mut Shape,
        keep: Option<usize>,
        budget: usize,
        added: usize,
    ) -> Result<bool, Misuse> {
        for _ in 0..2 * CLASSES {
            if shape.capacity_bytes + added <= budget {
                return Ok(true);
            }
            let victim = shape.hand % CLASSES;
            shape.hand += 1;
            let top = self.slab.top(victim);
            let used = self.missed[victim].swap(false, Relaxed) || top != shape.passed[victim];
            shape.passed[victim] = top;
            if keep != Some(victim) && !used {
                self.remove_array(lists, shape, SizeClass::from_index(victim))?;
            }
        }
        Ok(shape.capacity_bytes + added <= budget)
    }

    /// Empties a list and takes its array away.
    fn remove_array<L: Lists>(&self, lists: L, shape: &mut Shape, class: SizeClass) -> Result<(), Misuse> {
        if self.capacity(class) == 0 {
            return Ok(());
        }
        let (mut batch, mut finding): (Batch, _) = ([ptr::null_mut(); MAX_BATCH + 1], Ok(()));
        // SAFETY: the objects become ours.
        while let Ok(count @ 1..) = unsafe { lists.pop_batch(class.index(), &mut batch) } {
            finding = finding.and(self.give(class, &batch[..count]));
        }
        let had = shape.capacity_bytes;
        if self.exchange(lists, shape, class, self.slab.nothing(), 0) {
            self.doublings[class.index()].store(0, Relaxed);
            B::release(had - shape.capacity_bytes);
        }
        finding
    }

    /// Gives an empty list another array and the old one to the spares. False if the list is
    /// not empty, or if the thread is no longer where this cache is. The budget is the caller's.
    fn exchange<L: Lists>(
        &self,
        lists: L,
        shape: &mut Shape,
        class: SizeClass,
        array: *mut Slot,
        capacity: usize,
    ) -> bool {
        let list = class.index();
        let (old, old_capacity) = (self.base[list].load(Relaxed), self.capacity(class));
        // SAFETY: `array` is empty and belongs to nobody. `old` is this list's alone, so if the thread is on
        // another slab by now, no top there is equal to it.
        if unsafe { lists.replace(list, old, array) }.is_err() {
            return false;
        }
        law!(
            shape.capacity_bytes >= old_capacity * class.size(),
            "accounted: a cache's room is the sum over its lists"
        );
        self.base[list].store(array, Relaxed); // nothing is published to who reads without the lock
        shape.capacity_bytes = shape.capacity_bytes + capacity * class.size() - old_capacity * class.size();
        self.capacity_bytes.store(shape.capacity_bytes, Relaxed);
        self.capacity[list].store(capacity as u32, Relaxed);
        if old_capacity > 0 {
            // SAFETY: by `replace`, no top points into the old array and no sequence is inside it.
            unsafe { B::release_array(old, old_capacity) };
        }
        true
    }

    /// Takes everything out of the cache, whose own shape it is; returns how many bytes.
    pub fn drain(&self, lists: Exclusive, _locked: &Shape) -> Result<usize, Misuse> {
        let (mut bytes, mut finding) = (0, Ok(()));
        let mut batch: Batch = [ptr::null_mut(); MAX_BATCH + 1];
        for class in SizeClass::all() {
            let list = class.index();
            loop {
                // SAFETY: the objects become ours.
                while let Ok(count @ 1..) = unsafe { lists.pop_batch(list, &mut batch) } {
                    finding = finding.and(self.give(class, &batch[..count]));
                    bytes += count * class.size();
                }
                let top = self.slab.top(list);
                if top == self.base[list].load(Relaxed) {
                    break;
                }
                // A list ends with an odd word. The program freed an odd address, which looks like that end: nothing
                // below it could ever be taken.
                finding = finding.and(Err(Misuse::FreeIntoTheMiddle));
                // SAFETY: the list is not empty, so the slot below its top is one of its array. Nobody else is at it.
                let dropped = unsafe { lists.replace(list, top, top.sub(1)) };
                debug_assert!(dropped.is_ok());
            }
        }
        finding.map(|()| bytes)
    }

    /// Empties the cache and takes all its arrays away.
    pub fn remove_all_arrays(&self, lists: Exclusive, shape: &mut Shape) -> Result<(), Misuse> {
        let mut finding = self.drain(lists, shape).map(drop);
        for class in SizeClass::all() {
            finding = finding.and(self.remove_array(lists, shape, class));
            self.missed[class.index()].store(false, Relaxed);
            self.overflowed[class.index()].store(false, Relaxed);
        }
        shape.hand = 0;
        finding
    }

    fn give(&self, class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse> {
        self.count_flushed(class, objects.len());
        B::insert_range(class, objects)
    }

    fn count_flushed(&self, class: SizeClass, count: usize) {
        self.counts[class.index()].flushed.fetch_add(count as u64, Relaxed);
    }

    /// Bytes it could hold with its present lists, without a lock.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Relaxed)
    }

    /// A number that changes when a list's length or array does, or when the cache misses.
    pub fn signature(&self) -> u64 {
        SizeClass::all().fold(self.misses(), |sum, class| {
            (sum ^ self.slab.top(class.index()) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        })
    }

    /// What the cache holds, and for each class how many objects. Exact if nobody uses it meanwhile; never more than it
    /// had room for at one moment. Waits for nobody: a thread that was preempted on its slow path may hold the lock for
    /// as long as it takes its turn to come.
    pub fn holdings(&self, mut each: impl FnMut(SizeClass, usize)) -> Holdings {
        let mut held = Holdings { capacity_bytes: self.capacity_bytes(), ..Holdings::default() };
        for class in SizeClass::all() {
            let (top, base) = (self.slab.top(class.index()), self.base[class.index()].load(Relaxed));
            // While lists get other arrays these may be of different ones, and what left one list may be seen in
            // another: not more than the list has room for, nor in all more than the cache.
            let slots = (top as usize).wrapping_sub(base as usize) / size_of::<Slot>();
            let room = (held.capacity_bytes - held.bytes) / class.size();
            let objects = slots.min(self.capacity(class)).min(room);
            each(class, objects);
            held.objects += objects;
            held.bytes += objects * class.size();
        }
        held
    }

    /// The lock of what lists there are: held while the cache is emptied by another thread, and across fork.
    pub fn shape(&self) -> &Mutex<Shape> {
        &self.shape
    }
}

/// Objects of a list's first refill: of those smaller than a line, as many as fill whole lines, so that neighbours on a
/// line go to one cache.
fn first_refill(size: usize) -> usize {
    if size < LINE { LINE >> size.trailing_zeros() } else { 2 }
}

/// Words of a list's first array: room for its first refill and six slots at least, or two where a batch is small
/// because objects are large, or where the budget is.
fn first_words(size: usize, batch: usize, most_slots: usize) -> usize {
    let slots = if batch >= 16 { 6.max(first_refill(size) - 1) } else { 2 };
    if slots <= most_slots { (slots + 2).next_power_of_two() } else { 4 }
}
