//! Samples that are in use, with the CPU and the thread that allocated each, for who writes the profile.
//!
//! A table of a fixed length, whose entries are taken and given back each by one atomic operation: whole whenever a thread,
//! a signal handler, a child of `fork` or another process looks. A sample that finds no room in it is counted in its site as
//! any, and has no entry.

use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::middle::back_end::BACK_END;
use crate::place::{Place, bytes};

/// Most samples with an entry, a power of two. The table takes 512 KiB, as far as it is used.
pub const ENTRIES: usize = 1 << 15;
/// Entries that a sample tries.
const PROBES: usize = 64;
/// In place of a site: the entry is being written.
const TAKEN: usize = 1;

/// In place of a CPU where the kernel says none.
pub const UNKNOWN_CPU: u32 = u32::MAX;

#[repr(C)]
struct Entry {
    /// The address of the site; 0: the entry is free.
    site: AtomicUsize,
    /// The CPU, and the kernel's number of the thread.
    place: AtomicU64,
}

type Table = [Entry; ENTRIES];

/// The table, which is made when a profile begins.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());
/// The entry that is tried first.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Which entry a sample has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u16);

impl Ticket {
    const NONE: Ticket = Ticket(u16::MAX);

    /// As a number of 16 bits.
    pub fn number(self) -> u16 {
        self.0
    }

    /// What [`number`](Self::number) made.
    pub fn of_number(number: u16) -> Self {
        Ticket(number)
    }
}

const _: () = assert!(ENTRIES <= Ticket::NONE.0 as usize);

/// A sample in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The address of its site.
    pub site: usize,
    /// The CPU that it was allocated on, or [`UNKNOWN_CPU`].
    pub cpu: u32,
    /// The kernel's number of the thread that allocated it.
    pub thread: u32,
}

/// Where the word is that names the table, and where an entry has its site and its place: the CPU in the upper half.
pub const LAYOUT: (Place, [u32; 2]) =
    (Place::of(&raw const TABLE), [bytes(offset_of!(Entry, site)), bytes(offset_of!(Entry, place))]);
/// Bytes of an entry.
pub const ENTRY_BYTES: u32 = bytes(size_of::<Entry>());

/// Makes the table. False if there is no memory for it.
pub fn prepare() -> bool {
    if TABLE.load(Relaxed).is_null() {
        let table = BACK_END.metadata.allocate(&BACK_END.pages, size_of::<Table>(), align_of::<Table>());
        TABLE.store(table.map_or(ptr::null_mut(), |table| table.as_ptr().cast()), Release);
    }
    table().is_some()
}

fn table() -> Option<&'static Table> {
    // SAFETY: zeroed memory of that size, for ever: free entries.
    unsafe { TABLE.load(Acquire).as_ref() }
}

/// Notes a sample, if there is room.
pub fn note(InUse { site, cpu, thread }: InUse) -> Ticket {
    let Some(table) = table() else { return Ticket::NONE };
    for _ in 0..PROBES {
        let number = NEXT.fetch_add(1, Relaxed) % ENTRIES;
        let entry = &table[number];
        if entry.site.compare_exchange(0, TAKEN, Acquire, Relaxed).is_ok() {
            entry.place.store(u64::from(cpu) << 32 | u64::from(thread), Relaxed);
            entry.site.store(site, Release); // pairs with `all`
            return Ticket(number as u16);
        }
    }
    Ticket::NONE
}

/// The sample with this ticket is in use no more.
pub fn forget(ticket: Ticket) {
    if let Some(entry) = table().and_then(|table| table.get(usize::from(ticket.0))) {
        entry.site.store(0, Release);
    }
}

/// Every sample that has an entry. Exact if nothing is allocated or freed meanwhile.
pub fn all() -> impl Iterator<Item = InUse> {
    table().into_iter().flatten().filter_map(|entry| {
        let site = entry.site.load(Acquire);
        let place = entry.place.load(Acquire);
        // Who took the entry since then has another place there.
        let is_whole = site > TAKEN && entry.site.load(Relaxed) == site;
        is_whole.then_some(InUse { site, cpu: (place >> 32) as u32, thread: place as u32 })
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// The only test of this program that profiles.
    #[test]
    fn entries_are_taken_and_given_back() {
        let sample = |number: usize| InUse { site: 64 * (number + 1), cpu: number as u32 % 9, thread: 5 };
        assert_eq!(note(sample(0)), Ticket::NONE, "without a table");
        forget(Ticket::NONE);
        assert!(prepare());
        let tickets: Vec<_> = (0..ENTRIES).map(|number| note(sample(number))).collect();
        assert!(!tickets.contains(&Ticket::NONE));
        assert!(all().eq((0..ENTRIES).map(sample)), "each has its own");
        assert_eq!(note(sample(7)), Ticket::NONE, "there is no room");
        for ticket in tickets.iter().skip(1).step_by(2) {
            forget(Ticket::of_number(ticket.number()));
        }
        assert!(all().eq((0..ENTRIES).step_by(2).map(sample)), "half of them are left");
        assert_ne!(note(sample(1)), Ticket::NONE);
        assert_eq!(all().count(), ENTRIES / 2 + 1);
        tickets.into_iter().for_each(forget);
        assert_eq!(all().count(), 0);
    }
}
