//! The process's page map: any address to what lies there, by two loads and without a lock.
//!
//! ```text
//! address  │ leaf: 15 or 16 bits │ page in it: 19 bits │ offset: 13 bits │
//!               │                       │
//!   leaves ──►[ leaf ]──► classes [ a byte a page ]      what `free` needs to know of most blocks
//!                         huge pages [ counts, map ]──► [ a span number a page ]
//! ```
//!
//! The heap's memory is wherever the kernel has room, so a page's number is its address divided by the page size. The
//! first table has an entry for every 4 GiB that a program can have ([`ADDRESS_BITS`]): an address's lower half is its place
//! in a leaf. The table is zero in the program's file and only touched where there is heap. A **leaf** says of 4 GiB what
//! is small, and has for each huge page a place for the rest, which comes with the first memory there: a heap of blocks that
//! are GiB apart has small tables.
//!
//! An entry is how far its leaf is from a leaf of nothing, so that zero is a leaf as well and `free` need not ask. Beyond
//! the last leaf it does: addresses there are nobody's.
//!
//! # Readers without a lock
//!
//! Anyone may ask for any address at any time, null and other allocators' addresses included. Tables are never unmapped
//! and never serve other addresses, so a reader that is late finds an older answer, not another's memory. Memory that
//! goes back to the kernel leaves class bytes that are 0 and map entries whose spans do not cover them: nobody's. Who
//! asks for a block had its address from someone who took it after the entry was written (release, and acquire of the
//! same pointers here), or handed it over with an ordering of his own.

use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::PAGE_SIZE;
use crate::names::{self, Name};
use crate::os::{self, ADDRESS_BITS};
use crate::page_heap::huge_pages::{HugePage, HugePageLayout, PAGES_PER_HUGE};
use crate::page_heap::span::{Span, SpanId, SpanLayout};
use crate::place::{Extent, Place, bytes};
use crate::size_class::SizeClass;

/// Bytes of address space that a leaf covers.
const LEAF_BYTES: usize = 1 << 32;
const PAGES_PER_LEAF: usize = LEAF_BYTES / PAGE_SIZE;
const HUGE_PER_LEAF: usize = PAGES_PER_LEAF / PAGES_PER_HUGE;
const LEAVES: usize = 1 << (ADDRESS_BITS - LEAF_BYTES.trailing_zeros());
/// One past the last page that the map can name.
pub const LAST_PAGE: usize = LEAVES * PAGES_PER_LEAF;

/// Records of the first segment of spans; each of the others is twice the one before it. A span's place is this and its
/// number: the segment of 2^n records has the places from 2^n on.
const FIRST_SEGMENT: u32 = 64;
/// One past the last segment that is made, as spans' numbers go: 30 bits and a little.
const LAST_SEGMENT: usize = 31;

/// For each page of a leaf the class of the small span it is in, plus one, or 0.
type Classes = [AtomicU8; PAGES_PER_LEAF];

/// What is known of 4 GiB. Zero is its first value.
#[repr(C)]
struct Leaf {
    classes: Classes,
    huge: [HugePage; HUGE_PER_LEAF],
}

/// The numbers of the spans of one huge page's pages.
type Map = [AtomicU32; PAGES_PER_HUGE];

/// Bytes of tables that a huge page takes: a part of its leaf, and its map.
const PER_HUGE: usize = PAGES_PER_HUGE + size_of::<HugePage>() + size_of::<Map>();

/// All tables of the process's heap. Changed under the page heap's lock.
pub struct Directory {
    /// How many bytes after `nothing` each leaf is; 0 where there is none.
    leaves: [AtomicUsize; LEAVES],
    /// The first leaf there is, and one past the last.
    first: AtomicUsize,
    end: AtomicUsize,
    /// The classes of a leaf that has none. Never written.
    nothing: Classes,
    /// Where each segment would begin if it had all places before it: so a place is found by one addition.
    segments: [AtomicPtr<Span>; u32::BITS as usize],
    /// Huge pages that have tables.
    covered: AtomicUsize,
    /// Memory for tables: where it begins and ends. See [`Directory::take`].
    next: AtomicUsize,
    limit: AtomicUsize,
}

/// The process's.
pub static DIRECTORY: Directory = Directory::new();

/// The first tables: a short process asks the kernel for no others.
const FIRST_TABLES: usize = 768 << 10;
/// Bytes that are asked for at a time.
const TABLE_STEP: usize = 256 << 10;

#[repr(align(4096))]
struct Raw(UnsafeCell<MaybeUninit<[u8; FIRST_TABLES]>>);

// SAFETY: it is handed out once, by the directory.
unsafe impl Sync for Raw {}

static RAW: Raw = Raw(UnsafeCell::new(MaybeUninit::zeroed()));

/// The class of the small span of the process's heap that `address` lies in. `None` if it is not in one.
#[inline(always)]
pub fn class_at(address: usize) -> Option<SizeClass> {
    let number = address / LEAF_BYTES;
    // Relaxed, as the address of a block was handed over after all this was written. Of any other, only what is zero or
    // older is seen. The end is asked for and not a constant: one comparison with memory is shorter than two shifts.
    if number >= DIRECTORY.end.load(Relaxed) {
        return None;
    }
    // SAFETY: the end is at most the length.
    let leaf = unsafe { DIRECTORY.leaves.get_unchecked(number) }.load(Acquire); // pairs with `cover`: the leaf is zero
    let classes = DIRECTORY.nothing.as_ptr().wrapping_byte_add(leaf);
    // SAFETY: the classes of a leaf, which lives for ever, or of none; there is one for each page.
    SizeClass::from_number(unsafe { &*classes.wrapping_add(address % LEAF_BYTES / PAGE_SIZE) }.load(Relaxed))
}

/// Where the directory and its leaves have what is known of huge pages, and where the records of spans are.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DirectoryLayout {
    /// A word of 64 bits for each leaf there can be: how many bytes after `nothing` it is, or 0.
    pub leaves: Place,
    /// All that finds leaves and records, and the classes of a leaf that has none.
    pub itself: Extent,
    /// Two words of 64 bits: the number of the first leaf there is, and one past that of the last.
    pub first: Place,
    /// See `first`.
    pub end: Place,
    /// See `leaves`.
    pub nothing: Place,
    /// Bytes of address space that a leaf stands for, each beginning at a multiple.
    pub leaf_bytes: u64,
    /// Where in a leaf its huge pages begin, and how many there are.
    pub huge: u32,
    /// See `huge`.
    pub huge_count: u32,
    /// What is in each.
    pub huge_page: HugePageLayout,
    /// For each segment of records, a word of 64 bits with the address at which it would begin if it had all places before
    /// it, or 0. The segment of 2^n records has the places from 2^n on.
    pub segments: Place,
    /// The place of a span's record is its number, from 1, and this.
    pub first_segment: u32,
    /// What is in each record.
    pub span: SpanLayout,
}

impl Directory {
    /// See [`DirectoryLayout`].
    pub const fn layout(&'static self) -> DirectoryLayout {
        DirectoryLayout {
            leaves: Place::of(&raw const self.leaves),
            itself: Extent::of(&raw const *self),
            first: Place::of(&raw const self.first),
            end: Place::of(&raw const self.end),
            nothing: Place::of(&raw const self.nothing),
            leaf_bytes: LEAF_BYTES as u64,
            huge: bytes(offset_of!(Leaf, huge)),
            huge_count: bytes(HUGE_PER_LEAF),
            huge_page: HugePage::LAYOUT,
            segments: Place::of(&raw const self.segments),
            first_segment: FIRST_SEGMENT,
            span: Span::LAYOUT,
        }
    }

    const fn new() -> Self {
        Directory {
            leaves: [const { AtomicUsize::new(0) }; LEAVES],
            first: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            nothing: [const { AtomicU8::new(0) }; PAGES_PER_LEAF],
            segments: [const { AtomicPtr::new(ptr::null_mut()) }; u32::BITS as usize],
            covered: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn leaf(&self, number: usize) -> Option<&Leaf> {
        let leaf = self.leaves.get(number)?.load(Acquire); // pairs with `cover`: the leaf is zero
        let address = self.nothing.as_ptr().wrapping_byte_add(leaf).cast::<Leaf>();
        // SAFETY: a leaf, which lives for ever.
        (leaf != 0).then(|| unsafe { &*address })
    }

    /// Says of which class the small objects of a page are, or with 0 that there are none. The page is covered.
    pub fn set_class(&self, page: usize, number: u8) {
        if let Some(leaf) = self.leaf(page / PAGES_PER_LEAF) {
            // Who frees an object of the span had its address from someone who took it after this.
            leaf.classes[page % PAGES_PER_LEAF].store(number, Relaxed);
        }
    }

    /// What is known of a huge page, by its number; `None` where the heap never was.
    #[inline]
    pub fn huge(&self, number: usize) -> Option<&HugePage> {
        Some(&self.leaf(number / HUGE_PER_LEAF)?.huge[number % HUGE_PER_LEAF])
    }

    /// A page's entry: the number of its span. `None` where the heap never was.
    #[inline]
    pub fn entry(&self, page: usize) -> Option<&AtomicU32> {
        let map = self.huge(page / PAGES_PER_HUGE)?.map.load(Acquire).cast::<Map>(); // pairs with `cover`
        // SAFETY: null, or a map, which lives for ever.
        unsafe { map.as_ref() }.map(|map| &map[page % PAGES_PER_HUGE])
    }

    /// The numbers of all huge pages that may be known.
    pub fn known(&self) -> core::ops::Range<usize> {
        self.first.load(Relaxed) * HUGE_PER_LEAF..self.end.load(Relaxed) * HUGE_PER_LEAF
    }

    /// Bytes of tables that are or may be resident, without the records of spans.
    pub fn bytes(&self) -> usize {
        self.covered.load(Relaxed) * PER_HUGE
    }

    /// Most bytes of tables that so many pages can need.
    pub fn most_bytes(pages: usize) -> usize {
        (pages / PAGES_PER_HUGE + 2) * PER_HUGE
    }

    /// Bytes of tables that pages from `first` to `end` need and do not have.
    pub fn missing(&self, first: usize, end: usize) -> usize {
        let has = |number: &usize| self.huge(*number).is_some_and(|huge| !huge.map.load(Relaxed).is_null());
        (first / PAGES_PER_HUGE..end.div_ceil(PAGES_PER_HUGE)).filter(|number| !has(number)).count() * PER_HUGE
    }

    /// Makes tables for pages from `first` to `end`. False if there is no memory.
    pub fn cover(&self, first: usize, end: usize) -> bool {
        if end > LAST_PAGE {
            return false;
        }
        for number in first / PAGES_PER_LEAF..end.div_ceil(PAGES_PER_LEAF) {
            if self.leaf(number).is_some() {
                continue;
            }
            let Some(leaf) = self.take(size_of::<Leaf>()) else { return false };
            let (from, to) = (self.first.load(Relaxed), self.end.load(Relaxed));
            self.first.store(if to == 0 { number } else { from.min(number) }, Relaxed);
            self.end.store(to.max(number + 1), Relaxed);
            let distance = (leaf.as_ptr() as usize).wrapping_sub(self.nothing.as_ptr() as usize);
            self.leaves[number].store(distance, Release);
        }
        let numbers = first / PAGES_PER_HUGE..end.div_ceil(PAGES_PER_HUGE);
        numbers.into_iter().all(|number| {
            let Some(huge) = self.huge(number) else { return false };
            if huge.map.load(Relaxed).is_null() {
                let Some(map) = self.take(size_of::<Map>()) else { return false };
                huge.map.store(map.as_ptr().cast(), Release);
                self.covered.fetch_add(1, Relaxed);
            }
            true
        })
    }

    /// The record of a span.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        let place = id.0 + FIRST_SEGMENT;
        // At least the first segment, and no test for 0, of which there is no logarithm.
        let segment = u32::BITS - 1 - (place | FIRST_SEGMENT).leading_zeros();
        let before = self.segments[segment as usize].load(Relaxed);
        // SAFETY: numbers are given out for records that `make_record` made, which live for ever.
        unsafe { &*before.wrapping_add(place as usize) }
    }

    /// Makes the record of the span of this number, all those before it being made. False if there is no memory.
    pub fn make_record(&self, id: SpanId) -> bool {
        let segment = (id.0 + FIRST_SEGMENT).ilog2();
        let Some(records) = self.segments[..LAST_SEGMENT].get(segment as usize) else { return false };
        if records.load(Relaxed).is_null() {
            let Some(memory) = self.take(size_of::<Span>() << segment) else { return false };
            let before = memory.as_ptr().cast::<Span>().wrapping_sub(1 << segment);
            // Who learns of a number learns of it through a map entry, which is stored with release after this.
            records.store(before, Relaxed);
        }
        true
    }

    /// Zeroed memory for tables, for ever, aligned to a line. Under the page heap's lock.
    fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.next_multiple_of(size_of::<Span>());
        if self.limit.load(Relaxed) == 0 {
            self.next.store(RAW.0.get() as usize, Relaxed);
            self.limit.store(RAW.0.get() as usize + FIRST_TABLES, Relaxed);
        }
        if self.limit.load(Relaxed) - self.next.load(Relaxed) < bytes {
            let length = bytes.next_multiple_of(os::MAX_OS_PAGE).max(TABLE_STEP);
            let start = os::map_anywhere(length, os::MAX_OS_PAGE)?;
            // SAFETY: mapped just now.
            unsafe { names::give(Name::Tables, start, length) };
            if bytes * 2 > length {
                return Some(start); // what is left of the last step serves smaller ones
            }
            self.next.store(start.as_ptr() as usize, Relaxed);
            self.limit.store(start.as_ptr() as usize + length, Relaxed);
        }
        NonNull::new(self.next.fetch_add(bytes, Relaxed) as *mut u8)
    }
}

const _: () = assert!(PAGE_SIZE <= LEAF_BYTES && PAGES_PER_HUGE > 0);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn records_of_spans_are_apart_and_stay() {
        static APART: Directory = Directory::new();
        let directory = &APART;
        directory.limit.store(1, Relaxed); // the first tables are the process's
        directory.next.store(1, Relaxed);
        let mut places = BTreeSet::new();
        for number in 0..10_000 {
            assert!(directory.make_record(SpanId(number)));
            assert!(places.insert(directory.span(SpanId(number)) as *const Span as usize));
        }
        let apart = |(one, next): (&usize, &usize)| next - one >= size_of::<Span>();
        assert!(places.iter().zip(places.iter().skip(1)).all(apart));
        let again = |number| places.contains(&(directory.span(SpanId(number)) as *const Span as usize));
        assert!((0..10_000).all(again));
    }

    #[test]
    fn what_the_heap_never_had_is_nobodys() {
        let on_stack = 0_u8;
        for address in [0, 1, 4096, &raw const on_stack as usize, usize::MAX, 1 << 47, 1 << 48, 1 << 56, !0 << 47] {
            assert_eq!(class_at(address).map(SizeClass::index), None, "{address:#x}");
            assert!(DIRECTORY.entry(address / PAGE_SIZE).is_none(), "{address:#x}");
        }
    }
}
