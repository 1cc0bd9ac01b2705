//! Objects of one class on their way from one cache to another: an array of pointers under one lock.
//!
//! A batch that one CPU gives back is a batch another fetches, without a look at spans.

use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::config::{LINE, TRANSFER_BATCHES, TRANSFER_BYTES};
use crate::lock_order::Rank;
use crate::message::law;
use crate::middle::tables::Tables;
use crate::page_heap::source::PageSource;
use crate::place::bytes;
use crate::size_class::{CLASSES, ClassInfo, SizeClass, TABLE};
use crate::sync::Mutex;

/// The pointers of one class in one shard.
pub struct TransferCache {
    state: Mutex<State>,
    /// Of `state`, so that an empty one is passed by without its lock.
    length: AtomicUsize,
    /// Times that threads of this shard went on to the central free list.
    central_visits: AtomicU64,
    /// What passed by without the lock, beside `State::uncached`. Allocations wrap below zero: one may be taken off here
    /// that is counted there.
    past_allocs: AtomicU64,
    past_frees: AtomicU64,
}

struct State {
    /// `capacity(class)` pointers, allocated at the first insert; null before.
    objects: *mut *mut u8,
    length: usize,
    uncached: Uncached,
}

/// Single objects for threads that had no cache to use.
#[derive(Clone, Copy)]
pub struct Uncached {
    pub allocs: u64,
    pub frees: u64,
}

// SAFETY: `objects` is this structure's own memory.
unsafe impl Send for State {}

/// What went through, in objects, and through which door.
#[derive(Clone, Copy, Default)]
pub struct TransferCounts {
    /// Single objects for threads that had no cache to use.
    pub uncached_allocs: u64,
    pub uncached_frees: u64,
    /// Objects now in the array.
    pub length: usize,
    /// Times the central free list was asked or given to.
    pub central_visits: u64,
}

/// Where a transfer cache has what it counts, in bytes from its beginning. All are words of 64 bits, but for the lock.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TransferCacheLayout {
    /// 32 bits: 0 while nobody has the lock.
    pub lock: u32,
    /// The address of its array; 0 before the first insert. Under the lock.
    pub objects: u32,
    /// Objects in it. Under the lock, as the next two.
    pub length: u32,
    /// Allocations that went past the caches.
    pub uncached_allocs: u32,
    /// Frees that went past the caches.
    pub uncached_frees: u32,
    /// More of them that had no lock, less those that found no memory: to be added, wrapping.
    pub past_allocs: u32,
    /// More of them that had no lock.
    pub past_frees: u32,
    /// Times the central free list was asked or given to.
    pub central_visits: u32,
}

impl TransferCache {
    /// See [`TransferCacheLayout`].
    pub const LAYOUT: TransferCacheLayout = {
        let state = offset_of!(TransferCache, state);
        let value = state + Mutex::<State>::VALUE_AT;
        let uncached = value + offset_of!(State, uncached);
        TransferCacheLayout {
            lock: bytes(state + Mutex::<State>::WORD_AT),
            objects: bytes(value + offset_of!(State, objects)),
            length: bytes(value + offset_of!(State, length)),
            uncached_allocs: bytes(uncached + offset_of!(Uncached, allocs)),
            uncached_frees: bytes(uncached + offset_of!(Uncached, frees)),
            past_allocs: bytes(offset_of!(TransferCache, past_allocs)),
            past_frees: bytes(offset_of!(TransferCache, past_frees)),
            central_visits: bytes(offset_of!(TransferCache, central_visits)),
        }
    };

    pub const fn new() -> Self {
        let state = State { objects: ptr::null_mut(), length: 0, uncached: Uncached { allocs: 0, frees: 0 } };
        TransferCache {
            state: Mutex::new(Rank::TransferCache, state),
            length: AtomicUsize::new(0),
            central_visits: AtomicU64::new(0),
            past_allocs: AtomicU64::new(0),
            past_frees: AtomicU64::new(0),
        }
    }

    /// Takes out the newest objects, as many as there are and `out` has room for; returns how many. `count` has the
    /// lock.
    pub fn remove_range(&self, out: &mut [*mut u8], count: impl FnOnce(&mut Uncached)) -> usize {
        let Some(mut state) = self.state.lock_unless_forking() else { return 0 };
        count(&mut state.uncached);
        let removed = state.remove_range(out);
        self.length.store(state.length, Relaxed); // a hint
        removed
    }

    /// Puts objects in while there is room; returns how many. `count` has the lock.
    pub fn insert_range(
        &self,
        class: SizeClass,
        tables: Tables<'_, impl PageSource>,
        objects: &[*mut u8],
        count: impl FnOnce(&mut Uncached),
    ) -> usize {
        let Some(mut state) = self.state.lock_unless_forking() else { return 0 };
        count(&mut state.uncached);
        let inserted = state.insert_range(class, tables, objects);
        self.length.store(state.length, Relaxed); // a hint
        inserted
    }

    /// Whether there seems to be nothing in it, without its lock: what comes in a moment later is not missed.
    pub fn looks_empty(&self) -> bool {
        self.length.load(Relaxed) == 0 // a hint
    }

    /// Whether there seems to be room for `count` objects, without its lock.
    pub fn seems_to_have_room(&self, class: SizeClass, count: usize) -> bool {
        self.length.load(Relaxed) + count <= capacity(class) // a hint
    }

    /// A thread of this shard goes on to the central free list.
    pub fn count_central_visit(&self) {
        self.central_visits.fetch_add(1, Relaxed);
    }

    /// An allocation went past the caches and had no lock.
    pub fn count_past_alloc(&self) {
        self.past_allocs.fetch_add(1, Relaxed);
    }

    /// An allocation that was counted found no memory.
    pub fn discount_alloc(&self) {
        self.past_allocs.fetch_sub(1, Relaxed);
    }

    /// A free went past the caches and had no lock.
    pub fn count_past_free(&self) {
        self.past_frees.fetch_add(1, Relaxed);
    }

    /// Looks at the array: `is_out` says whether an address is an object of `class` that has left its span.
    #[cfg(debug_assertions)]
    pub fn check(&self, class: SizeClass, is_out: impl Fn(usize) -> bool) {
        let state = self.state.lock();
        law!(state.length <= capacity(class), "bounded: a transfer cache holds what it has room for");
        law!(self.length.load(Relaxed) == state.length, "hinted: a transfer cache's length at rest is right");
        for place in 0..state.length {
            // SAFETY: the array holds `length` pointers.
            let object = unsafe { *state.objects.add(place) };
            law!(is_out(object as usize), "conserved: a transfer cache holds objects that have left their spans");
        }
    }

    pub fn counts(&self) -> TransferCounts {
        let state = self.state.lock();
        TransferCounts {
            uncached_allocs: state.uncached.allocs.wrapping_add(self.past_allocs.load(Relaxed)),
            uncached_frees: state.uncached.frees + self.past_frees.load(Relaxed),
            length: state.length,
            central_visits: self.central_visits.load(Relaxed),
        }
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.state
    }
}

/// Pointers a class's array holds.
pub fn capacity(class: SizeClass) -> usize {
    room(class.info())
}

const fn room(info: &ClassInfo) -> usize {
    let (batch, wanted) = (info.batch as usize, TRANSFER_BYTES / info.size as usize);
    if wanted < 2 * batch {
        2 * batch
    } else if wanted > TRANSFER_BATCHES * batch {
        TRANSFER_BATCHES * batch
    } else {
        wanted
    }
}

/// [`capacity`] of each class, for who reads the process's memory from outside.
pub static CAPACITIES: [u32; CLASSES] = {
    let (mut capacities, mut index) = ([0; CLASSES], 0);
    while index < CLASSES {
        capacities[index] = bytes(room(&TABLE[index]));
        index += 1;
    }
    capacities
};

impl State {
    fn remove_range(&mut self, out: &mut [*mut u8]) -> usize {
        law!(self.length == 0 || !self.objects.is_null(), "bounded: what a transfer cache holds is in its array");
        let count = out.len().min(self.length);
        self.length -= count;
        // SAFETY: the array holds `length + count` pointers, and `out` is not part of it.
        unsafe { ptr::copy_nonoverlapping(self.objects.wrapping_add(self.length), out.as_mut_ptr(), count) };
        count
    }

    fn insert_range(&mut self, class: SizeClass, tables: Tables<'_, impl PageSource>, objects: &[*mut u8]) -> usize {
        if self.objects.is_null() {
            let bytes = (capacity(class) * size_of::<*mut u8>()).next_multiple_of(LINE);
            let Some(memory) = tables.allocate(bytes, LINE) else { return 0 };
            self.objects = memory.as_ptr().cast();
        }
        let count = objects.len().min(capacity(class) - self.length);
        // SAFETY: the array has room for `capacity` pointers, `length` of which are used.
        unsafe { ptr::copy_nonoverlapping(objects.as_ptr(), self.objects.add(self.length), count) };
        self.length += count;
        law!(self.length <= capacity(class), "bounded: a transfer cache holds what it has room for");
        count
    }
}
