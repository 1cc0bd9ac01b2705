//! Where a cache has what it counts, for who reads the process's memory from outside.

use core::mem::offset_of;

use super::{Cache, ListCounts};
use crate::front_end::hits::{self, Hits};
use crate::front_end::registry;
use crate::middle::spare_arrays;
use crate::place::{Place, bytes};

/// Where the caches are, and what is where in each, in bytes from its beginning. Words of 64 bits unless said
/// otherwise.
///
/// A cache that was made stays, and so does its place: a reader may follow `next` at any time. What it holds of a class
/// is the distance from the list's lowest slot to its top, eight bytes an object, if that is no more than the list's
/// slots.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CacheLayout {
    /// A word with the address of the newest cache; 0 while there is none.
    pub newest: Place,
    /// A word with the address of a table, which has a word for each index of a CPU or slot: the address of its cache,
    /// or 0.
    pub rows: Place,
    /// A word: how many it has. 0 while there is no table, and in a mode that needs none.
    pub row_count: Place,
    /// Arrays of lists that no list has, by size: the n-th word is the address of the first one of 2^n words, each of
    /// which begins with the address of the next, or is 0.
    pub spare_arrays: Place,
    /// How many sizes there are.
    pub spare_sizes: u32,
    /// Bytes of a cache.
    pub bytes: u32,
    /// The address of the cache that was made before it; 0 in the first.
    pub next: u32,
    /// 32 bits: the number of its CPU, thread or slot.
    pub owner: u32,
    /// 8 bits: not 0 while it has an owner. One without has no objects.
    pub in_use: u32,
    /// Times a thread came to it from another CPU or concurrency id.
    pub index_changes: u32,
    /// Times it was emptied because it was idle.
    pub idle_drains: u32,
    /// Times it gave budget to another cache.
    pub lendings: u32,
    /// Bytes that its lists have room for.
    pub capacity_bytes: u32,
    /// For each class the address of the first free slot of its list.
    pub tops: u32,
    /// For each class the address of the lowest slot of its list.
    pub bases: u32,
    /// For each class 32 bits: slots of its list.
    pub capacities: u32,
    /// For each class what its list did, so many bytes apart.
    pub counts: u32,
    /// See `counts`.
    pub counts_stride: u32,
    /// In each of those: allocations that found the list empty.
    pub underflows: u32,
    /// Frees that found it full.
    pub overflows: u32,
    /// Objects that came from behind.
    pub refilled_objects: u32,
    /// Objects that went there.
    pub flushed_objects: u32,
    /// In the cache, for each class, allocations and frees that its list served; 0 in a build that does not count them.
    pub alloc_hits: u32,
    /// See `alloc_hits`.
    pub free_hits: u32,
}

/// See [`CacheLayout`].
pub const fn layout() -> CacheLayout {
    let hits = offset_of!(Cache, hits);
    CacheLayout {
        newest: registry::newest(),
        rows: registry::rows(),
        row_count: registry::row_count(),
        spare_arrays: spare_arrays::heads(),
        spare_sizes: bytes(spare_arrays::SIZES),
        bytes: bytes(size_of::<Cache>()),
        next: bytes(offset_of!(Cache, next)),
        owner: bytes(offset_of!(Cache, owner)),
        in_use: bytes(offset_of!(Cache, in_use)),
        index_changes: bytes(offset_of!(Cache, arrivals)),
        idle_drains: bytes(offset_of!(Cache, idle_drains)),
        lendings: bytes(offset_of!(Cache, lendings)),
        capacity_bytes: bytes(offset_of!(Cache, capacity_bytes)),
        tops: bytes(offset_of!(Cache, slab) + rseq::slab::TOPS),
        bases: bytes(offset_of!(Cache, base)),
        capacities: bytes(offset_of!(Cache, capacity)),
        counts: bytes(offset_of!(Cache, counts)),
        counts_stride: bytes(size_of::<ListCounts>()),
        underflows: bytes(offset_of!(ListCounts, underflows)),
        overflows: bytes(offset_of!(ListCounts, overflows)),
        refilled_objects: bytes(offset_of!(ListCounts, refilled)),
        flushed_objects: bytes(offset_of!(ListCounts, flushed)),
        alloc_hits: if hits::COUNTED { bytes(hits + Hits::ALLOCS_AT) } else { 0 },
        free_hits: if hits::COUNTED { bytes(hits + Hits::FREES_AT) } else { 0 },
    }
}
