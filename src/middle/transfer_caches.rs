//! The transfer caches of all classes, in shards.
//!
//! Where CPUs share last-level caches in groups, each group has arrays of its own, its shard, so that an object that
//! comes back comes back to those whose cache may still hold it.

use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::LINE;
use crate::decided;
use crate::middle::tables::Tables;
use crate::middle::topology::MAX_GROUPS;
use crate::middle::transfer_cache::{CAPACITIES, TransferCache, TransferCacheLayout, TransferCounts};
use crate::page_heap::source::PageSource;
use crate::place::{Extent, Place, bytes};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;

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

/// Where the transfer caches are: shards, each with a transfer cache for each class.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TransferLayout {
    /// The first shard.
    pub first: Place,
    /// A word of 64 bits with the address of the other shards, which follow one another.
    pub others: Place,
    /// A word of 64 bits: shards there are, the first included.
    pub count: Place,
    /// All that says which shard is whose, and the first.
    pub itself: Extent,
    /// A word of 64 bits with the address of a table of bytes, one for each CPU; 0 while there is one shard.
    pub of_cpu: Place,
    /// A word of 64 bits: how many bytes it has.
    pub cpus: Place,
    /// For each class 32 bits: pointers that an array of it has room for.
    pub capacities: Place,
    /// Bytes from the transfer cache of one class to that of the next.
    pub stride: u32,
    /// What is in each.
    pub cache: TransferCacheLayout,
}

impl TransferCaches {
    /// See [`TransferLayout`].
    pub const fn layout(&'static self) -> TransferLayout {
        TransferLayout {
            first: Place::of(&raw const self.first),
            others: Place::of(&raw const self.others),
            count: Place::of(&raw const self.count),
            itself: Extent::of(&raw const *self),
            of_cpu: Place::of(&raw const self.of_cpu),
            cpus: Place::of(&raw const self.cpus),
            capacities: Place::of(&raw const CAPACITIES),
            stride: bytes(size_of::<Padded<TransferCache>>()),
            cache: TransferCache::LAYOUT,
        }
    }

    pub const fn new() -> Self {
        TransferCaches {
            first: [const { Padded(TransferCache::new()) }; CLASSES],
            others: AtomicPtr::new(ptr::null_mut()),
            count: AtomicUsize::new(1),
            of_cpu: AtomicPtr::new(ptr::null_mut()),
            cpus: AtomicUsize::new(0),
        }
    }

    /// Makes as many shards as `assign` says, which gives each CPU below `cpus` one. One shard if memory is exhausted.
    /// By one thread at a time; others may use the first shard meanwhile, and what is in it stays there.
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
    pub fn own(&self) -> usize {
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
    pub fn get(&self, shard: usize, class: SizeClass) -> &TransferCache {
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
        (0..self.count()).for_each(|shard| self.get(shard, class).check(class, &is_out));
    }

    /// What the class's arrays hold and did, in all shards.
    pub fn counts(&self, class: SizeClass) -> TransferCounts {
        let mut sum = TransferCounts::default();
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

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::middle::back_end::BackEnd;
    use crate::page_heap::source::Mmap;
    use std::boxed::Box;
    use std::vec::Vec;

    #[test]
    fn cpus_have_the_shards_they_were_given() {
        let tiers = Box::new(BackEnd::new(Mmap::new(), 16 << 20));
        tiers.transfer.split(6, tiers.tables(), |table| {
            table.copy_from_slice(&[0, 1, 2, 1, 0, 200]);
            3
        });
        let of: Vec<_> = (0..8).map(|cpu| tiers.transfer.of(cpu)).collect();
        assert_eq!(of, [0, 1, 2, 1, 0, 2, 0, 0]);
        assert_eq!(tiers.transfer.all().count(), 3 * CLASSES);
    }
}
