//! One reservation: pages, and the tables that say what they are.
//!
//! ```text
//! │ pages: committed │ pages: reserved │ huge pages │ classes │ page map │ spans │
//! ```
//!
//! The tables are sized for all pages and committed along with them, so an address is looked up without a lock: one
//! comparison, one load from the page map, one from the span. The classes are a byte a page, that of its small objects:
//! all that `free` needs to know of most blocks.
//!
//! The small tables stand first, so that what a small heap uses of all four is near: the kernel's own tables for an
//! address then serve several, and a short process makes and drops fewer.

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::{GROW_PAGES, HUGE_PAGE, PAGE_SIZE};
use crate::page_heap::huge_pages::{HugePage, PAGES_PER_HUGE};
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Span, SpanId};
use crate::sync::Padded;

/// Below this many bytes, the start is not aligned to a huge page.
const ALIGNED_FROM: usize = 64 << 20;

/// A reservation and its source.
pub struct Region<S> {
    tables: Padded<Tables>,
    pub source: S,
}

/// Where everything is: read without a lock to find a block's span. Set once by `reserve`, but for `committed`.
struct Tables {
    base: AtomicUsize,
    /// `SpanId` of each page.
    map: AtomicUsize,
    /// `Span`s by `SpanId`.
    spans: AtomicUsize,
    /// For each page a byte: the class of the small span it is in, plus one, or 0.
    classes: AtomicUsize,
    /// Bytes from `base` on that are committed, with their part of the tables. Grows only.
    committed: AtomicUsize,
    /// Bytes of pages.
    reserved: AtomicUsize,
    /// `HugePage`s.
    huge: AtomicUsize,
    /// Pages of the first huge page that lie before `base`.
    offset: AtomicUsize,
    /// What the source gave.
    start: AtomicUsize,
    length: AtomicUsize,
}

/// Where the parts of a reservation begin.
struct Layout {
    base: usize,
    map: usize,
    spans: usize,
    classes: usize,
    huge: usize,
    pages: usize,
}

impl<S: PageSource> Region<S> {
    pub const fn new(source: S) -> Self {
        Region {
            tables: Padded(Tables {
                base: AtomicUsize::new(0),
                map: AtomicUsize::new(0),
                spans: AtomicUsize::new(0),
                classes: AtomicUsize::new(0),
                committed: AtomicUsize::new(0),
                reserved: AtomicUsize::new(0),
                huge: AtomicUsize::new(0),
                offset: AtomicUsize::new(0),
                start: AtomicUsize::new(0),
                length: AtomicUsize::new(0),
            }),
            source,
        }
    }

    /// Reserves `length` bytes for pages and tables. False if the source has none, or they hold less than one page.
    pub fn reserve(&self, length: usize) -> bool {
        let Some(start) = self.source.reserve(length) else { return false };
        let address = start.as_ptr() as usize;
        let Some(layout) = lay_out(address, length, S::GRANULE) else {
            // SAFETY: reserved a moment ago, and nobody knows of it.
            unsafe { self.source.unreserve(start, length) };
            return false;
        };
        let tables = &self.tables;
        tables.base.store(layout.base, Relaxed);
        tables.map.store(layout.map, Relaxed);
        tables.spans.store(layout.spans, Relaxed);
        tables.classes.store(layout.classes, Relaxed);
        tables.huge.store(layout.huge, Relaxed);
        tables.offset.store(layout.base % HUGE_PAGE / PAGE_SIZE, Relaxed);
        tables.start.store(address, Relaxed);
        tables.length.store(length, Relaxed);
        tables.reserved.store(layout.pages * PAGE_SIZE, Relaxed);
        true
    }

    /// Gives everything back.
    ///
    /// # Safety
    ///
    /// * Nobody uses the region, now or later.
    pub unsafe fn unreserve(&mut self) {
        if let Some(start) = NonNull::new(self.tables.start.load(Relaxed) as *mut u8) {
            // SAFETY: by our own contract; the source gave it.
            unsafe { self.source.unreserve(start, self.tables.length.load(Relaxed)) };
        }
    }

    /// Bytes reserved for pages; 0 before `reserve`.
    pub fn reserved_bytes(&self) -> usize {
        self.tables.reserved.load(Relaxed)
    }

    /// The page that `address` lies in, if it is committed.
    #[inline(always)]
    pub fn page_of(&self, address: usize) -> Option<usize> {
        // Acquire, and first: if there is anything, the base and the tables are set, and these bytes' part of them is
        // committed. The other way round, a null pointer freed during the first allocation could lie in page 0.
        let committed = self.tables.committed.load(Acquire);
        let offset = address.wrapping_sub(self.tables.base.load(Relaxed));
        (offset < committed).then_some(offset / PAGE_SIZE)
    }

    /// Address of a page.
    #[inline]
    pub fn address(&self, page: usize) -> usize {
        self.tables.base.load(Relaxed) + page * PAGE_SIZE
    }

    /// A committed page's entry of the page map.
    #[inline]
    pub fn entry(&self, page: usize) -> &AtomicU32 {
        // SAFETY: the map has an entry for every page, and callers name committed ones.
        unsafe { &*(self.tables.map.load(Relaxed) as *const AtomicU32).add(page) }
    }

    /// A committed page's class byte.
    #[inline(always)]
    pub fn class_byte(&self, page: usize) -> &AtomicU8 {
        // SAFETY: the table has an entry for every page, and callers name committed ones.
        unsafe { &*(self.tables.classes.load(Relaxed) as *const AtomicU8).add(page) }
    }

    /// The table entry of `id`.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        // SAFETY: the table has an entry for every page and one more, ids are given out below that, zero is a
        // value of an entry, and the table lives as long as the heap.
        unsafe { &*(self.tables.spans.load(Relaxed) as *const Span).add(id.0 as usize) }
    }

    /// The huge page that `page` lies in, by number, and the place in it.
    #[inline]
    pub fn huge_of(&self, page: usize) -> (usize, usize) {
        let page = page + self.tables.offset.load(Relaxed);
        (page / PAGES_PER_HUGE, page % PAGES_PER_HUGE)
    }

    /// The table entry of a huge page with a committed page.
    #[inline]
    pub fn huge(&self, number: usize) -> &HugePage {
        // SAFETY: the table has an entry for every huge page, and zero is a value of it.
        unsafe { &*(self.tables.huge.load(Relaxed) as *const HugePage).add(number) }
    }

    /// Commits the pages from `first` to `end` and their part of the tables. False if memory is exhausted. What is
    /// before `first` is committed, and calls are made by one thread at a time.
    pub fn commit(&self, first: usize, end: usize) -> bool {
        let tables = &self.tables;
        let part = |table: &AtomicUsize, entry: usize, from: usize, to: usize| {
            let table = table.load(Relaxed);
            let from = if first == 0 { table } else { (table + from * entry).next_multiple_of(S::GRANULE) };
            let to = (table + to * entry).next_multiple_of(S::GRANULE);
            let start = NonNull::new(from as *mut u8);
            // SAFETY: within our reservation, ours alone.
            from >= to || start.is_some_and(|start| unsafe { self.source.commit(start, to - from) })
        };
        let huge = |page: usize| self.huge_of(page).0 + 1;
        // Span numbers start at 1, so their table has one entry more.
        let done = part(&tables.map, size_of::<u32>(), first, end)
            && part(&tables.spans, size_of::<Span>(), first + 1, end + 1)
            && part(&tables.classes, size_of::<u8>(), first, end)
            && part(&tables.huge, size_of::<HugePage>(), huge(first.max(1) - 1), huge(end - 1))
            && part(&tables.base, PAGE_SIZE, first, end);
        if !done {
            return false;
        }
        if let Some(start) = NonNull::new(self.address(first) as *mut u8) {
            // SAFETY: committed a moment ago.
            unsafe { self.source.committed(start, (end - first) * PAGE_SIZE, first * PAGE_SIZE) };
        }
        tables.committed.store(end * PAGE_SIZE, Release); // pairs with `page_of`
        true
    }
}

/// Divides `length` bytes at `start` among as many pages as they hold, and their tables.
fn lay_out(start: usize, length: usize, granule: usize) -> Option<Layout> {
    let unit = if length >= ALIGNED_FROM { HUGE_PAGE } else { granule.max(PAGE_SIZE) };
    let base = start.checked_next_multiple_of(unit)?;
    let room = start.checked_add(length)?.checked_sub(base)?;
    // Per huge page there is less than a byte a page; to begin four tables on a granule costs one each.
    let per_page = PAGE_SIZE + size_of::<u32>() + size_of::<Span>() + size_of::<u8>() + 1;
    let once = 5 * granule + size_of::<Span>() + 2 * size_of::<HugePage>();
    let pages = (room.checked_sub(once)? / per_page).min((1 << 31) - GROW_PAGES);
    if pages == 0 {
        return None;
    }
    let huge = (base + pages * PAGE_SIZE).next_multiple_of(granule);
    let classes = (huge + (pages / PAGES_PER_HUGE + 2) * size_of::<HugePage>()).next_multiple_of(granule);
    let map = (classes + pages).next_multiple_of(granule);
    let spans = (map + pages * size_of::<u32>()).next_multiple_of(granule);
    Some(Layout { base, map, spans, classes, huge, pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_and_do_not_overlap() {
        for granule in [4096, 65_536, HUGE_PAGE] {
            for start in [0x7000_0000_0000_usize, 0x7000_0000_0100, 0x7000_0000_1000, 0x7000_001f_e000] {
                for length in [16_384, 65_536, 1 << 20, (8 << 20) + 4096, 64 << 20, 200_000_000, 64 << 30, 8 << 40] {
                    let Some(layout) = lay_out(start, length, granule) else {
                        assert!(length < 9 * granule, "{length} bytes hold no page of {granule}");
                        continue;
                    };
                    let huge_pages = layout.pages / PAGES_PER_HUGE + 2;
                    let end = (layout.spans + (layout.pages + 1) * size_of::<Span>()).next_multiple_of(granule);
                    assert!(start <= layout.base && layout.base.is_multiple_of(PAGE_SIZE));
                    assert!(layout.base + layout.pages * PAGE_SIZE <= layout.huge);
                    assert!(layout.huge + huge_pages * size_of::<HugePage>() <= layout.classes);
                    assert!(layout.classes + layout.pages <= layout.map);
                    assert!(layout.map + layout.pages * 4 <= layout.spans);
                    assert!(end <= start + length, "{granule} {start:#x} {length}");
                    // What tables take and alignment costs, no more.
                    let least = length / (PAGE_SIZE + 80);
                    let slack = 6 * granule.max(if length >= ALIGNED_FROM { HUGE_PAGE } else { PAGE_SIZE }) / PAGE_SIZE;
                    assert!(layout.pages + slack >= least, "{} pages of {least}", layout.pages);
                }
            }
        }
    }
}
