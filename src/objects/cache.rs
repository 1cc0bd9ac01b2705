//! The cache: lists by index, and the depot behind them.

use core::alloc::Layout;
use core::fmt;
use core::mem;
use core::ptr::NonNull;

use rseq::{CpuId, Index, PerCpuBuffer, PerCpuCounter};

use super::batch::{Batch, MAX_BATCH, MAX_PER_CPU, Workshop, object_of, word_of};
use super::construct::{ByDefault, Construct};
use super::depot::Depot;
use crate::hardened;
use crate::lock_order::Rank;
use crate::process::start;
use crate::sync::Mutex;

/// A cache of constructed objects, which any number of threads may use. See the [module](super).
///
/// `C` says how objects are made, and `I` to which of the kernel's numbers lists belong.
///
/// An object may be given back by another thread than it was taken by, and destructed by a third. So a cache is shared or sent
/// only if its objects may be sent:
///
/// ```compile_fail,E0277
/// fn share<T: Sync>(_: T) {}
/// share(perseq::objects::ObjectCache::<std::rc::Rc<u8>>::new());
/// ```
///
/// They need not be [`Sync`], as each has one user at a time. What goes in comes out again, so a cache of long-lived
/// references is not one of shorter-lived ones:
///
/// ```compile_fail
/// use perseq::objects::ObjectCache;
///
/// fn shorten<'a, 'b>(cache: &'b ObjectCache<&'static str>, _: &'a str) -> &'b ObjectCache<&'a str> {
///     cache
/// }
/// ```
pub struct ObjectCache<T, C = ByDefault, I: Index = CpuId> {
    construct: C,
    workshop: Workshop<T>,
    lists: PerCpuBuffer<MAX_PER_CPU, I>,
    /// Objects served from lists, by index.
    served: PerCpuCounter<I>,
    depot: Mutex<Depot>,
    /// Lists are used: sequences run, and there is room on a list.
    by_index: bool,
}

// SAFETY: an object is given to one thread at a time, so sharing the cache is sending objects. `construct` is shared.
unsafe impl<T: Send, C: Sync, I: Index> Sync for ObjectCache<T, C, I> {}

/// What a cache did, and what it holds. Exact if nobody uses the cache meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ObjectStats {
    /// Objects constructed.
    pub ctor: u64,
    /// Objects handed out that were there already: constructions that the cache saved.
    pub ctor_elided: u64,
    /// Objects destructed.
    pub dtor: u64,
    /// Times a list got objects from the depot.
    pub refills: u64,
    /// Times a list gave objects to the depot.
    pub flushes: u64,
    /// Lists and depots emptied by [`ObjectCache::shrink`].
    pub drains: u64,
    /// Idle objects.
    pub cached: u64,
}

impl ObjectStats {
    /// Objects in users' hands, or leaked.
    #[must_use]
    pub fn out(&self) -> u64 {
        (self.ctor - self.dtor).saturating_sub(self.cached)
    }
}

/// Why there is no cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The alignment is not a power of two, or too large for the type.
    Align,
    /// There is no memory for the lists or the depot.
    NoMemory,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BuildError::Align => "the alignment of objects is not a power of two, or too large",
            BuildError::NoMemory => "no memory for the lists of an object cache",
        })
    }
}

impl core::error::Error for BuildError {}

impl<T, C: Construct<T>, I: Index> ObjectCache<T, C, I> {
    /// A cache that keeps up to `per_cpu` objects on each list and `shared` in the depot.
    pub(super) fn with(construct: C, layout: Layout, per_cpu: usize, shared: usize) -> Result<Self, BuildError> {
        if !start::initialize(None) {
            return Err(BuildError::NoMemory);
        }
        let (per_cpu, shared) = if hardened::on() { (0, 0) } else { (per_cpu, shared) };
        let lists = PerCpuBuffer::with_capacity(per_cpu).map_err(|_| BuildError::NoMemory)?;
        let by_index = lists.is_per_cpu() && lists.capacity() > 0;
        let room = if by_index { shared } else { shared.saturating_add(lists.capacity()) };
        Ok(ObjectCache {
            by_index,
            lists,
            served: PerCpuCounter::new().map_err(|_| BuildError::NoMemory)?,
            depot: Mutex::new(Rank::Depot, Depot::new(room).ok_or(BuildError::NoMemory)?),
            workshop: Workshop::new(layout),
            construct,
        })
    }

    /// As [`ObjectCache::get`], for a caller that gives the object back by [`ObjectCache::put_raw`]. An object that is
    /// not given back is leaked: it outlives the cache and is never destructed. [`ObjectCache::close`] counts such.
    #[inline]
    pub fn take_raw(&self) -> Option<NonNull<T>> {
        if self.by_index
            && let Some(word) = self.lists.take()
        {
            self.served.add(1);
            // SAFETY: by **idle**, an object.
            return Some(unsafe { object_of(word) });
        }
        self.take_slow()
    }

    /// Gives an object back; it stays constructed.
    ///
    /// # Safety
    ///
    /// * [`ObjectCache::take_raw`] of this cache returned it, and nobody uses it any more.
    /// * It is a valid `T`.
    #[inline]
    pub unsafe fn put_raw(&self, mut object: NonNull<T>) {
        // Destructs an object whose reset unwinds.
        let half_reset = Leaving { workshop: &self.workshop, object };
        // SAFETY: valid, and nobody else's, by our own contract.
        self.construct.reset(unsafe { object.as_mut() });
        mem::forget(half_reset);
        if !(self.by_index && self.lists.append(word_of(object)).is_ok()) {
            self.put_slow(word_of(object));
        }
    }

    /// The list is empty, or there are none.
    #[cold]
    #[inline(never)]
    fn take_slow(&self) -> Option<NonNull<T>> {
        let found = if self.by_index { self.refill() } else { self.take_shared() };
        found.or_else(|| self.workshop.construct(&self.construct)).or_else(|| self.take_from_any())
    }

    /// The list is full, or there are none.
    #[cold]
    #[inline(never)]
    fn put_slow(&self, word: u64) {
        if self.by_index { self.flush(word) } else { self.put_shared(word) }
    }

    /// Takes an object out of the depot, and for this CPU's list as many more as fill half of it.
    fn refill(&self) -> Option<NonNull<T>> {
        let mut rest = Batch::filled_by(&self.workshop, |room| {
            let mut depot = self.depot.lock();
            let count = depot.take(&mut room[..self.lists.capacity().div_ceil(2)]);
            depot.counts.served += u64::from(count > 0);
            depot.counts.refills += u64::from(count > 0);
            count
        });
        // SAFETY: by **idle**. If a destructor unwinds below, this one is not lost.
        let ours = Leaving { workshop: &self.workshop, object: unsafe { object_of(rest.pop()?) } };
        while let Some(word) = rest.pop() {
            if self.lists.append(word).is_err() {
                // We are on another CPU by now, whose list is full.
                rest.push(word);
                self.depot.lock().give(&mut rest);
                rest.destruct();
                break;
            }
        }
        let object = ours.object;
        mem::forget(ours);
        Some(object)
    }

    /// Gives half of this CPU's list to the depot, and `word` to the list.
    fn flush(&self, word: u64) {
        let mut batch = Batch::new(&self.workshop);
        for _ in 0..self.lists.capacity().div_ceil(2) {
            let Some(word) = self.lists.take() else { break };
            batch.push(word);
        }
        if self.lists.append(word).is_err() {
            batch.push(word);
        }
        {
            let mut depot = self.depot.lock();
            depot.give(&mut batch);
            depot.counts.flushes += 1;
        }
        batch.destruct();
    }

    fn take_shared(&self) -> Option<NonNull<T>> {
        let mut depot = self.depot.lock();
        let word = depot.pop()?;
        depot.counts.served += 1;
        // SAFETY: by **idle**.
        Some(unsafe { object_of(word) })
    }

    fn put_shared(&self, word: u64) {
        let kept = self.depot.lock().push(word);
        if !kept {
            // SAFETY: by **idle**: our caller gave it up, and it is nowhere else.
            unsafe { self.workshop.destruct(object_of(word)) };
        }
    }

    /// Memory is exhausted: what lies idle elsewhere will do.
    fn take_from_any(&self) -> Option<NonNull<T>> {
        let mut word = [0];
        (0..self.lists.lengths().count()).find(|&index| self.lists.take_from(index, &mut word) == Ok(1))?;
        self.depot.lock().counts.served += 1;
        // SAFETY: by **idle**.
        Some(unsafe { object_of(word[0]) })
    }
}

impl<T, C, I: Index> ObjectCache<T, C, I> {
    /// Destructs an object that was not given back.
    ///
    /// # Safety
    ///
    /// * As for [`ObjectCache::put_raw`].
    pub unsafe fn discard_raw(&self, object: NonNull<T>) {
        // SAFETY: by our own contract.
        unsafe { self.workshop.destruct(object) };
    }

    /// Destructs all idle objects, on all CPUs, and returns how many; the memory goes to the heap. One fence for each list that is not
    /// empty. The cache can be used meanwhile, and what comes back meanwhile may be kept.
    pub fn shrink(&self) -> usize {
        let mut destructed = 0;
        let mut finish = |batch: Batch<'_, T>| {
            if batch.count() > 0 {
                self.depot.lock().counts.drains += 1;
                destructed += batch.destruct();
            }
        };
        for index in 0..self.lists.lengths().count() {
            // A list whose fence the kernel refuses keeps its objects.
            let take = |room: &mut [u64]| self.lists.take_from(index, room).unwrap_or(0);
            finish(Batch::filled_by(&self.workshop, take));
        }
        let length = self.depot.lock().length();
        for _ in 0..length.div_ceil(MAX_BATCH) {
            finish(Batch::filled_by(&self.workshop, |room| self.depot.lock().take(room)));
        }
        destructed
    }

    /// What it did and what it holds.
    #[must_use]
    pub fn stats(&self) -> ObjectStats {
        let (counts, shared) = {
            let depot = self.depot.lock();
            (depot.counts, depot.length())
        };
        let (ctor, dtor) = self.workshop.counts();
        ObjectStats {
            ctor,
            ctor_elided: self.served.sum() + counts.served,
            dtor,
            refills: counts.refills,
            flushes: counts.flushes,
            drains: counts.drains,
            cached: (self.lists.lengths().sum::<usize>() + shared) as u64,
        }
    }

    /// Whether objects come from lists that belong to indices. If not, they all come through one lock.
    #[must_use]
    pub fn is_per_cpu(&self) -> bool {
        self.by_index
    }

    /// Ends the cache, as dropping it does, and returns how many of its objects still exist: such as were taken by
    /// [`ObjectCache::take_raw`] and not given back, and such as were leaked.
    pub fn close(mut self) -> u64 {
        self.empty();
        let (ctor, dtor) = self.workshop.counts();
        ctor - dtor
    }

    /// Destructs all idle objects, as the only user.
    fn empty(&mut self) {
        let ObjectCache { workshop, lists, depot, .. } = self;
        while Batch::filled_by(workshop, |room| lists.take_alone(room)).destruct() > 0 {}
        while Batch::filled_by(workshop, |room| depot.lock().take(room)).destruct() > 0 {}
    }
}

impl<T, C, I: Index> Drop for ObjectCache<T, C, I> {
    fn drop(&mut self) {
        /// Goes on where a destructor unwound.
        struct Rest<'a, T, C, I: Index>(&'a mut ObjectCache<T, C, I>);
        impl<T, C, I: Index> Drop for Rest<'_, T, C, I> {
            fn drop(&mut self) {
                self.0.empty();
            }
        }
        Rest(self).0.empty();
    }
}

impl<T, C, I: Index> fmt::Debug for ObjectCache<T, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").field("is_per_cpu", &self.by_index).field("stats", &self.stats()).finish()
    }
}

/// An object that is destructed if this is dropped.
struct Leaving<'a, T> {
    workshop: &'a Workshop<T>,
    object: NonNull<T>,
}

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        // SAFETY: an object of this workshop, which nobody else uses: who makes a `Leaving` owns it.
        unsafe { self.workshop.destruct(self.object) };
    }
}
