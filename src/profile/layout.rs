//! Where the profile of this process is, for who reads it from outside.

use crate::place::{Place, bytes};
use crate::profile::fate::{AGES, Fates};
use crate::profile::in_use;
use crate::profile::samples;
use crate::profile::sites::{self, PLACES, Site};

/// Where the heap profile is, and what is where in its records, in bytes from their beginning.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProfileLayout {
    /// A word: bytes from one sample to the next, in the mean. 0: no profile is taken.
    pub rate: Place,
    /// 64 bits: samples that were not taken, for want of memory.
    pub lost: Place,
    /// A word: the address of the table of sites, whose words are addresses of sites or 0. 0: there is none.
    pub table: Place,
    /// The site of all samples for whose stacks there was no room.
    pub others: Place,
    /// Words of the table.
    pub places: u32,
    /// Bytes of a site. Its frames are behind it, each a word: where a call returns to, innermost first.
    pub bytes: u32,
    /// A word: how many they are.
    pub depth: u32,
    /// 64 bits each: samples, their bytes, those of them that were freed, and the bytes of those.
    pub counts: [u32; 4],
    /// 64 bits: freed samples that were freed on another CPU than the one they were allocated on.
    pub other_cpu: u32,
    /// 64 bits: those that were freed by another thread.
    pub other_thread: u32,
    /// 64 bits each: those that lived for less than 10 us, from there to 100 us, and so on, the last without an end.
    pub ages: u32,
    /// How many groups of ages there are.
    pub age_groups: u32,
    /// A word: the address of a table of samples in use, of which not all need be in it. 0: there is none.
    pub in_use: Place,
    /// How many entries it has.
    pub in_use_entries: u32,
    /// Bytes of an entry.
    pub in_use_bytes: u32,
    /// 64 bits: the address of its site. Less than 2: the entry is free.
    pub in_use_site: u32,
    /// 32 bits: the kernel's number of the thread that allocated it; and 32 bits: the CPU, or all bits set.
    pub in_use_place: u32,
}

/// See [`ProfileLayout`].
pub const fn layout() -> ProfileLayout {
    let ([rate, lost], [table, others]) = (samples::places(), sites::places());
    let [depth, allocs, alloc_bytes, frees, free_bytes, fates] = Site::LAYOUT;
    let [other_cpu, other_thread, ages] = Fates::LAYOUT;
    let (in_use, [in_use_site, in_use_place]) = in_use::LAYOUT;
    ProfileLayout {
        rate,
        lost,
        table,
        others,
        places: bytes(PLACES),
        bytes: bytes(size_of::<Site>()),
        depth,
        counts: [allocs, alloc_bytes, frees, free_bytes],
        other_cpu: fates + other_cpu,
        other_thread: fates + other_thread,
        ages: fates + ages,
        age_groups: bytes(AGES),
        in_use,
        in_use_entries: bytes(in_use::ENTRIES),
        in_use_bytes: in_use::ENTRY_BYTES,
        in_use_site,
        in_use_place,
    }
}
