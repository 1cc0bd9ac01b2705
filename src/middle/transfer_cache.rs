//! Objects of one class on their way from one cache to another: an array of pointers under one lock.
//!
//! A batch that one CPU gives back is a batch another fetches, without a look at spans and without touching
//! an object. What does not fit, or is not there, is the central free list's, which is asked at most once per batch.
//!
//! Where CPUs share last-level caches in groups, each group has arrays of its own, its shard, so that an object that
//! comes back comes back to those whose cache may still hold it. A thread takes from its CPU's shard, then from the
//! others, and gives to its own.

use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::{LINE, MAX_BATCH, TRANSFER_BATCHES, TRANSFER_BYTES};
use crate::decided;
use crate::emergency;
use crate::lock_order::Rank;
use crate::middle::central_free_list::CentralFreeList;
use crate::middle::tables::Tables;
use crate::middle::topology::MAX_GROUPS;
use crate::misuse::Misuse;
use crate::page_heap::source::PageSource;
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::{Mutex, Padded};
use crate::this_thread;

/// The pointers of one class in one shard.
pub struct TransferCache {
    state: Mutex<State>,
    /// Of `state`, so that an empty one is passed by without its lock.
    length: AtomicUsize,
    /// Times that threads of this shard went on to the central free list.
    central_visits: AtomicU64,
}

/// All shards.
pub struct TransferCaches {
    first: Shard,
    /// `count - 1` more.
    others: AtomicPtr<Shard>,
    count: AtomicUsize,
    /// The shard of each CPU, a byte each. Null while there is one shard.
    of_cpu: AtomicPtr<u8>,
    cpus: AtomicUsize,
}

/// Each class's lock on lines of its own.
type Shard = [Padded<TransferCache>; CLASSES];

struct State {
    /// `capacity(class)` pointers, allocated at the first insert; null before.
    objects: *mut *mut u8,
    length: usize,
    counts: Counts,
}

// SAFETY: `objects` is this structure's own memory.
unsafe impl Send for State {}

/// What went through, in objects, and through which door.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Single objects for a thread that had no cache to use.
    pub uncached_allocs: u64,
    pub uncached_frees: u64,
    /// Objects now in the array.
    pub length: usize,
    /// Times the central free list was asked or given to.
    pub central_visits: u64,
}

/// The tiers behind the caches, for one class.
pub struct Middle<'a, S: PageSource> {
    pub class: SizeClass,
    pub transfer: &'a TransferCaches,
    pub central: &'a CentralFreeList,
    pub tables: Tables<'a, S>,
}

impl<S: PageSource> Middle<'_, S> {
    /// Fills `out` with objects; returns how many, fewer only if memory is exhausted.
    pub fn remove_range(&self, out: &mut [*mut u8]) -> usize {
        self.take(out, |_| ())
    }

    /// Takes objects back.
    ///
    /// # Errors
    ///
    /// As for [`CentralFreeList::insert_range`], for those of them that went there.
    pub fn insert_range(&self, objects: &[*mut u8]) -> Result<(), Misuse> {
        self.put(objects, |_| ())
    }

    /// One object for a thread without a cache.
    pub fn remove_uncached(&self) -> Option<*mut u8> {
        let mut out = [ptr::null_mut()];
        let mut counted = false;
        let count = |counts: &mut Counts| {
            counted = true;
            counts.uncached_allocs = counts.uncached_allocs.wrapping_add(1);
        };
        if self.take(&mut out, count) == 0 {
            // Memory is exhausted. The thread may be in another shard by now: only the sum over shards is right.
            if counted {
                self.count(|counts| counts.uncached_allocs = counts.uncached_allocs.wrapping_sub(1));
            }
            return None;
        }
        if !counted {
            // The transfer cache was passed by: a fork had it.
            self.count(|counts| counts.uncached_allocs = counts.uncached_allocs.wrapping_add(1));
        }
        Some(out[0])
    }

    /// Takes one object back from a thread without a cache.
    ///
    /// # Errors
    ///
    /// As for [`Middle::insert_range`].
    pub fn insert_uncached(&self, object: *mut u8) -> Result<(), Misuse> {
        self.put(&[object], |counts| counts.uncached_frees += 1)
    }

    /// Counts the free of an object that went elsewhere.
    pub fn count_uncached_free(&self) {
        self.count(|counts| counts.uncached_frees += 1);
    }

    /// Empties the transfer caches into the spans, and gives a span that became empty back.
    ///
    /// # Errors
    ///
    /// As for [`CentralFreeList::insert_range`]. All else is done.
    pub fn trim(&self) -> Result<(), Misuse> {
        let (mut objects, mut finding) = ([ptr::null_mut(); MAX_BATCH], Ok(()));
        for shard in 0..self.transfer.count() {
            let transfer = self.transfer.get(shard, self.class);
            loop {
                let taken = transfer.take(&mut objects, |_| ());
                if taken == 0 {
                    break;
                }
                let inserted = self.central.insert_range(self.class, self.tables.pages, &objects[..taken]);
                finding = finding.and(inserted);
            }
        }
        self.central.trim(self.class, self.tables.pages);
        finding
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        // A count is not worth waiting for a fork.
        if let Some(mut state) = self.transfer.get(self.transfer.own(), self.class).state.lock_unless_forking() {
            count(&mut state.counts);
        }
    }

    fn take(&self, out: &mut [*mut u8], count: impl FnOnce(&mut Counts)) -> usize {
        let (own, shards) = (self.transfer.own(), self.transfer.count());
        let transfer = self.transfer.get(own, self.class);
        let mut taken = transfer.take(out, count);
        for shard in (own + 1..shards).chain(0..own) {
            if taken == out.len() {
                break;
            }
            let other = self.transfer.get(shard, self.class);
            // Relaxed: a hint. What comes in a moment later is not missed.
            if other.length.load(Relaxed) > 0 {
                taken += other.take(&mut out[taken..], |_| ());
            }
        }
        if taken < out.len() {
            transfer.central_visits.fetch_add(1, Relaxed);
            taken += self.central.remove_range(self.class, self.tables, &mut out[taken..]);
        }
        taken
    }

    fn put(&self, objects: &[*mut u8], count: impl FnOnce(&mut Counts)) -> Result<(), Misuse> {
        let transfer = self.transfer.get(self.transfer.own(), self.class);
        let put = transfer.put(self.class, self.tables, objects, count);
        if put == objects.len() {
            return Ok(());
        }
        if this_thread::went_without() {
            // SAFETY: the objects are nobody's.
            unsafe { emergency::defer_all(&objects[put..]) };
            return Ok(());
        }
        transfer.central_visits.fetch_add(1, Relaxed);
        self.central.insert_range(self.class, self.tables.pages, &objects[put..])
    }
}

impl TransferCaches {
    pub const fn new() -> Self {
        TransferCaches {
            first: [const { Padded(TransferCache::new()) }; CLASSES],
            others: AtomicPtr::new(ptr::null_mut()),
            count: AtomicUsize::new(1),
            of_cpu: AtomicPtr::new(ptr::null_mut()),
            cpus: AtomicUsize::new(0),
        }
    }

    /// Makes as many shards as `assign` says, which gives each CPU below `cpus` one. One shard if memory is exhausted. By
    /// one thread at a time; others may use the first shard meanwhile, and what is in it stays there.
    pub fn split(&self, cpus: usize, tables: Tables<'_, impl PageSource>, assign: impl FnOnce(&mut [u8]) -> usize) {
        let Some(table) = tables.allocate(cpus.next_multiple_of(LINE), LINE) else { return };
        // SAFETY: `cpus` bytes of zeroes, new and ours alone.
        let count = assign(unsafe { core::slice::from_raw_parts_mut(table.as_ptr(), cpus) });
        debug_assert!(self.count() == 1 && count <= MAX_GROUPS);
        if count <= 1 {
            return;
        }
        let Some(others) = tables.allocate((count - 1) * size_of::<Shard>(), align_of::<Shard>()) else { return };
        let others = others.cast::<Shard>();
        for shard in 0..count - 1 {
            // SAFETY: `count - 1` shards, new and ours alone.
            unsafe { others.add(shard).write([const { Padded(TransferCache::new()) }; CLASSES]) };
        }
        self.others.store(others.as_ptr(), Relaxed);
        self.of_cpu.store(table.as_ptr(), Relaxed);
        self.cpus.store(cpus, Relaxed);
        self.count.store(count, Release); // pairs with `count`
    }

    /// How many shards there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.count.load(Acquire)
    }

    /// The shard of the CPU the calling thread is on, as far as one can know.
    #[inline]
    fn own(&self) -> usize {
        if self.count() == 1 { 0 } else { self.of(decided::current_cpu() as usize) }
    }

    fn of(&self, cpu: usize) -> usize {
        if cpu >= self.cpus.load(Relaxed) {
            return 0;
        }
        // SAFETY: the table has a byte for each CPU below `cpus`, and is not changed any more.
        let shard = unsafe { *self.of_cpu.load(Relaxed).add(cpu) } as usize;
        shard.min(self.count() - 1)
    }

    /// The transfer cache of `class` in `shard`, which is below `count`.
    #[inline]
    fn get(&self, shard: usize, class: SizeClass) -> &TransferCache {
        debug_assert!(shard < self.count());
        match shard.checked_sub(1) {
            None => &self.first[class.index()],
            // SAFETY: there are `count - 1` others, which live for ever.
            Some(other) => unsafe { &(*self.others.load(Relaxed).add(other))[class.index()] },
        }
    }

    /// Every transfer cache of every class.
    pub fn all(&self) -> impl Iterator<Item = &TransferCache> {
        (0..self.count()).flat_map(move |shard| SizeClass::all().map(move |class| self.get(shard, class)))
    }

    /// Looks at every array of `class`: `is_out` says whether an address is an object of it that has left its span.
    #[cfg(debug_assertions)]
    pub fn check(&self, class: SizeClass, is_out: impl Fn(usize) -> bool) {
        use crate::message::law;
        for shard in 0..self.count() {
            let transfer = self.get(shard, class);
            let state = transfer.state.lock();
            law!(state.length <= capacity(class), "bounded: a transfer cache holds what it has room for");
            law!(transfer.length.load(Relaxed) == state.length, "hinted: a transfer cache's length at rest is right");
            for place in 0..state.length {
                // SAFETY: the array holds `length` pointers.
                let object = unsafe { *state.objects.add(place) };
                law!(is_out(object as usize), "conserved: a transfer cache holds objects that have left their spans");
            }
        }
    }

    /// What the class's arrays hold and did, in all shards.
    pub fn counts(&self, class: SizeClass) -> Counts {
        let mut sum = Counts::default();
        for shard in 0..self.count() {
            let counts = self.get(shard, class).counts();
            sum.uncached_allocs = sum.uncached_allocs.wrapping_add(counts.uncached_allocs);
            sum.uncached_frees += counts.uncached_frees;
            sum.length += counts.length;
            sum.central_visits += counts.central_visits;
        }
        sum
    }
}

impl TransferCache {
    const fn new() -> Self {
        let counts = Counts { uncached_allocs: 0, uncached_frees: 0, length: 0, central_visits: 0 };
        let state = State { objects: ptr::null_mut(), length: 0, counts };
        TransferCache {
            state: Mutex::new(Rank::TransferCache, state),
            length: AtomicUsize::new(0),
            central_visits: AtomicU64::new(0),
        }
    }

    fn take(&self, out: &mut [*mut u8], count: impl FnOnce(&mut Counts)) -> usize {
        let Some(mut state) = self.state.lock_unless_forking() else { return 0 };
        count(&mut state.counts);
        let taken = state.take(out);
        self.length.store(state.length, Relaxed); // a hint
        taken
    }

    fn put(
        &self,
        class: SizeClass,
        tables: Tables<'_, impl PageSource>,
        objects: &[*mut u8],
        count: impl FnOnce(&mut Counts),
    ) -> usize {
        let Some(mut state) = self.state.lock_unless_forking() else { return 0 };
        count(&mut state.counts);
        let put = state.put(class, tables, objects);
        self.length.store(state.length, Relaxed); // a hint
        put
    }

    fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts { length: state.length, central_visits: self.central_visits.load(Relaxed), ..state.counts }
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.state
    }
}

/// Pointers a class's array holds.
fn capacity(class: SizeClass) -> usize {
    let batch = class.info().batch as usize;
    (TRANSFER_BYTES / class.size()).clamp(2 * batch, TRANSFER_BATCHES * batch)
}

impl State {
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let count = out.len().min(self.length);
        self.length -= count;
        // SAFETY: the array holds `length + count` pointers, and `out` is not part of it.
        unsafe { ptr::copy_nonoverlapping(self.objects.wrapping_add(self.length), out.as_mut_ptr(), count) };
        count
    }

    fn put(&mut self, class: SizeClass, tables: Tables<'_, impl PageSource>, objects: &[*mut u8]) -> usize {
        if self.objects.is_null() {
            let bytes = (capacity(class) * size_of::<*mut u8>()).next_multiple_of(LINE);
            let Some(memory) = tables.allocate(bytes, LINE) else { return 0 };
            self.objects = memory.as_ptr().cast();
        }
        let count = objects.len().min(capacity(class) - self.length);
        // SAFETY: the array has room for `capacity` pointers, `length` of which are used.
        unsafe { ptr::copy_nonoverlapping(objects.as_ptr(), self.objects.add(self.length), count) };
        self.length += count;
        count
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::config::MIN_RESERVE;
    use crate::middle::back_end::BackEnd;
    use crate::page_heap::source::Mmap;
    use core::alloc::Layout;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    /// Tiers of their own.
    struct Tiers(Box<BackEnd<Mmap>>);

    impl Tiers {
        fn new() -> Tiers {
            let tiers = Box::new(BackEnd::new(Mmap::new()));
            assert!(tiers.pages.initialize(MIN_RESERVE));
            Tiers(tiers)
        }

        fn middle(&self) -> Middle<'_, Mmap> {
            self.0.middle(SizeClass::of(Layout::new::<[u64; 8]>()).expect("a small size"))
        }

        fn visits(&self) -> u64 {
            self.0.transfer.counts(self.middle().class).central_visits
        }
    }

    /// Asked for so many, the tiers give so many, and the central free list is locked at most once for it.
    #[test]
    fn central_is_reached_at_most_once_per_batch() {
        let tiers = Tiers::new();
        let middle = tiers.middle();
        let mut held: Vec<*mut u8> = Vec::new();
        let (mut seed, mut reached, mut spared) = (7_u64, 0, 0);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let wanted = 1 + (seed >> 33) as usize % MAX_BATCH;
            let before = tiers.visits();
            if seed >> 63 == 0 || held.len() < wanted {
                let mut batch = vec![ptr::null_mut(); wanted];
                assert_eq!(middle.remove_range(&mut batch), wanted);
                held.extend(batch);
            } else {
                let batch = held.split_off(held.len() - wanted);
                middle.insert_range(&batch).expect("objects of the class");
            }
            match tiers.visits() - before {
                0 => spared += 1,
                1 => reached += 1,
                visits => panic!("{visits} visits for one batch of {wanted}"),
            }
        }
        assert!(reached > 0 && spared > 0, "both ways were taken: {reached}, {spared}");
        let addresses: std::collections::HashSet<_> = held.iter().collect();
        assert_eq!(addresses.len(), held.len(), "an object was given out twice");
    }

    /// Asked for less than a batch, a transfer cache keeps the rest.
    #[test]
    fn partial_batches() {
        let tiers = Tiers::new();
        let middle = tiers.middle();
        let most = capacity(middle.class).min(MAX_BATCH);
        let mut batch = vec![ptr::null_mut(); most];
        assert_eq!(middle.remove_range(&mut batch), most);
        middle.insert_range(&batch).expect("objects of the class");
        let visits = tiers.visits();
        let mut one = [ptr::null_mut()];
        assert_eq!(middle.remove_range(&mut one), 1);
        assert_eq!(tiers.0.transfer.counts(middle.class).length, most - 1);
        assert_eq!(tiers.visits(), visits);
        // All but one are there, and that one is to be had.
        assert_eq!(middle.remove_range(&mut batch), most);
        assert_eq!((tiers.0.transfer.counts(middle.class).length, tiers.visits()), (0, visits + 1));
    }

    #[test]
    fn cpus_have_the_shards_they_were_given() {
        let tiers = Tiers::new();
        tiers.0.transfer.split(6, tiers.0.tables(), |table| {
            table.copy_from_slice(&[0, 1, 2, 1, 0, 200]);
            3
        });
        let of: Vec<_> = (0..8).map(|cpu| tiers.0.transfer.of(cpu)).collect();
        assert_eq!(of, [0, 1, 2, 1, 0, 2, 0, 0]);
        assert_eq!(tiers.0.transfer.all().count(), 3 * CLASSES);
    }
}
