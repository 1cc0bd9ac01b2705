//! The middle tier for one class: its transfer caches, and behind them its central free list, which is asked at most
//! once per batch.
//!
//! A thread takes from its CPU's shard of the transfer caches, then from the others, and gives to its own.

use core::ptr;

use crate::config::MAX_BATCH;
use crate::emergency;
use crate::middle::central_free_list::CentralFreeList;
use crate::middle::claim::claim;
use crate::middle::tables::Tables;
use crate::middle::transfer_cache::{TransferCache, Uncached};
use crate::middle::transfer_caches::TransferCaches;
use crate::misuse::Misuse;
use crate::page_heap::source::PageSource;
use crate::size_class::SizeClass;
use crate::this_thread;

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
        self.remove(out, |_| ())
    }

    /// Takes objects back.
    ///
    /// # Errors
    ///
    /// As for [`CentralFreeList::insert_range`], for those of them that went there.
    pub fn insert_range(&self, objects: &[*mut u8]) -> Result<(), Misuse> {
        self.insert(objects, |_| ())
    }

    /// Takes objects back that this CPU has used till now, and another probably will: those that a transfer cache has
    /// room for wait there for who fetches them.
    ///
    /// # Safety
    ///
    /// * They are objects of the class, and nobody's.
    ///
    /// # Errors
    ///
    /// As for [`Middle::insert_range`].
    pub unsafe fn hand_on(&self, objects: &[*mut u8]) -> Result<(), Misuse> {
        if self.own().seems_to_have_room(self.class, objects.len()) {
            // SAFETY: by our own contract.
            unsafe { claim(objects, self.class.size()) };
        }
        self.insert_range(objects)
    }

    /// One object for a thread without a cache.
    pub fn remove_uncached(&self) -> Option<*mut u8> {
        let mut out = [ptr::null_mut()];
        let mut counted = false;
        let count = |uncached: &mut Uncached| {
            counted = true;
            uncached.allocs += 1;
        };
        if self.remove(&mut out, count) == 0 {
            if counted {
                self.own().discount_alloc();
            }
            return None;
        }
        if !counted {
            self.own().count_past_alloc();
        }
        Some(out[0])
    }

    /// Takes one object back from a thread without a cache.
    ///
    /// # Errors
    ///
    /// As for [`Middle::insert_range`].
    pub fn insert_uncached(&self, object: *mut u8) -> Result<(), Misuse> {
        let mut counted = false;
        let inserted = self.insert(&[object], |uncached| {
            counted = true;
            uncached.frees += 1;
        });
        if !counted {
            self.count_free_elsewhere();
        }
        inserted
    }

    /// Counts the free of an object that goes elsewhere, or waits: when it comes here it is not counted again. Takes no
    /// lock.
    pub fn count_free_elsewhere(&self) {
        self.own().count_past_free();
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
                let removed = transfer.remove_range(&mut objects, |_| ());
                if removed == 0 {
                    break;
                }
                let inserted = self.central.insert_range(self.class, self.tables.pages, &objects[..removed]);
                finding = finding.and(inserted);
            }
        }
        self.central.trim(self.class, self.tables.pages);
        finding
    }

    /// The thread may be in another shard by now: only sums over shards are right.
    fn own(&self) -> &TransferCache {
        self.transfer.get(self.transfer.own(), self.class)
    }

    fn remove(&self, out: &mut [*mut u8], count: impl FnOnce(&mut Uncached)) -> usize {
        let (own, shards) = (self.transfer.own(), self.transfer.count());
        let transfer = self.transfer.get(own, self.class);
        let mut removed = transfer.remove_range(out, count);
        for shard in (own + 1..shards).chain(0..own) {
            if removed == out.len() {
                break;
            }
            let other = self.transfer.get(shard, self.class);
            if !other.looks_empty() {
                removed += other.remove_range(&mut out[removed..], |_| ());
            }
        }
        if removed < out.len() {
            transfer.count_central_visit();
            removed += self.central.remove_range(self.class, self.tables, &mut out[removed..]);
        }
        removed
    }

    fn insert(&self, objects: &[*mut u8], count: impl FnOnce(&mut Uncached)) -> Result<(), Misuse> {
        let transfer = self.own();
        let inserted = transfer.insert_range(self.class, self.tables, objects, count);
        if inserted == objects.len() {
            return Ok(());
        }
        if this_thread::went_without() {
            // SAFETY: the objects are nobody's.
            unsafe { emergency::defer_all(&objects[inserted..]) };
            return Ok(());
        }
        transfer.count_central_visit();
        self.central.insert_range(self.class, self.tables.pages, &objects[inserted..])
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::config::CLAIMED_BYTES;
    use crate::middle::back_end::BackEnd;
    use crate::middle::transfer_cache::capacity;
    use crate::os;
    use crate::page_heap::source::Mmap;
    use core::alloc::Layout;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    /// Tiers of their own.
    struct Tiers(Box<BackEnd<Mmap>>);

    impl Tiers {
        fn new() -> Tiers {
            let tiers = Box::new(BackEnd::new(Mmap::new(), 16 << 20));
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

    /// Whether the kernel's page is resident that an object begins on.
    fn is_resident(object: *mut u8) -> bool {
        let page = object.map_addr(|address| address & !(os::page_size() - 1));
        let mut vector = 0;
        // SAFETY: a page of the heap, and a byte for it.
        assert_eq!(unsafe { libc::mincore(page.cast(), 1, &raw mut vector) }, 0);
        vector & 1 == 1
    }

    /// What another CPU is to have is written to, if it is small and a transfer cache keeps it: what nobody has touched
    /// before is resident then. What goes back to spans is left alone.
    #[test]
    fn what_waits_for_another_cpu_is_claimed() {
        let is_small = |class: &SizeClass| class.size() <= CLAIMED_BYTES;
        let (largest, next) =
            (SizeClass::all().filter(is_small).last(), SizeClass::all().find(|class| !is_small(class)));
        for class in [largest, next].map(|class| class.expect("such a class")) {
            let tiers = Tiers::new();
            let middle = tiers.0.middle(class);
            let room = capacity(middle.class);
            let mut objects = vec![ptr::null_mut(); 2 * room];
            assert_eq!(middle.remove_range(&mut objects), objects.len());
            assert!(!objects.iter().any(|&object| is_resident(object)));
            objects.sort_unstable();
            for object in &objects {
                // SAFETY: an object of the class that nobody has.
                unsafe { middle.hand_on(core::slice::from_ref(object)) }.expect("an object of the class");
            }
            let (kept, rest) = objects.split_at(room);
            assert!(kept.iter().all(|&object| is_resident(object) == is_small(&class)));
            let apart = rest.iter().filter(|object| object.addr() - kept[room - 1].addr() >= os::page_size());
            assert!(!apart.copied().any(is_resident));
        }
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
}
