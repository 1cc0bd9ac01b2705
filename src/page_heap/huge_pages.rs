//! How full each of the kernel's huge pages is: 2 MiB, 256 of our pages.
//!
//! A huge page that is in use in part costs all of it, or stops being one when its free part goes back to the kernel.
//! So the page heap fills the fullest first, and gives whole ones back first.

use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicU64, Ordering::Relaxed};

use crate::config::{HUGE_PAGE, PAGE_SIZE};
use crate::page_heap::source::PageSource;
use crate::page_heap::space::Space;
use crate::place::bytes;

/// Pages of a huge page.
pub const PAGES_PER_HUGE: usize = HUGE_PAGE / PAGE_SIZE;

/// What is known of one huge page. Changed and read under the page heap's lock, so relaxed, but for the map.
#[derive(Default)]
#[repr(C)]
pub struct HugePage {
    /// The process's heap: the numbers of its pages' spans. See `directory`.
    pub map: AtomicPtr<()>,
    used: AtomicU16,
    /// Free pages that hold old data.
    dirty: AtomicU16,
    /// Pages that are the heap's: these, and free ones that read as zero.
    known: AtomicU16,
    /// A bit for each page that begins with another of the kernel's mappings than the page before it, because contents
    /// were moved there.
    seams: [AtomicU64; PAGES_PER_HUGE.div_ceil(64)],
}

/// What a page is counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageUse {
    Used,
    Dirty,
    Known,
}

/// Huge pages by what they hold. Those that were never used do not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HugePageStats {
    /// No page in use.
    pub free: u64,
    /// Some pages in use.
    pub partly_used: u64,
    /// All pages in use.
    pub fully_used: u64,
    /// Of the first two, those with some pages that are resident and some that are not: released, or never touched.
    pub released_in_part: u64,
}

/// Where a huge page has its counts, in bytes from its beginning: 16 bits each, in pages of the allocator's. The map is
/// none of them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HugePageLayout {
    /// Bytes from one to the next.
    pub stride: u32,
    /// Pages that it is.
    pub pages: u32,
    /// A word of 64 bits: the address of 32 bits for each of its pages, which find the page's span; 0 before the heap was
    /// there.
    pub map: u32,
    /// Pages in use. A few runs that were freed last count as used until somebody looks for free ones.
    pub used: u32,
    /// Free pages that are resident.
    pub dirty: u32,
    /// Pages that are the heap's: these, and free ones that read as zero.
    pub known: u32,
}

impl HugePage {
    /// See [`HugePageLayout`].
    pub const LAYOUT: HugePageLayout = HugePageLayout {
        stride: bytes(size_of::<HugePage>()),
        pages: bytes(PAGES_PER_HUGE),
        map: bytes(offset_of!(HugePage, map)),
        used: bytes(offset_of!(HugePage, used)),
        dirty: bytes(offset_of!(HugePage, dirty)),
        known: bytes(offset_of!(HugePage, known)),
    };

    /// Pages in use.
    pub fn used(&self) -> usize {
        self.count(PageUse::Used)
    }

    /// Pages that count as this.
    pub fn count(&self, as_what: PageUse) -> usize {
        self.counter(as_what).load(Relaxed) as usize
    }

    fn counter(&self, as_what: PageUse) -> &AtomicU16 {
        match as_what {
            PageUse::Used => &self.used,
            PageUse::Dirty => &self.dirty,
            PageUse::Known => &self.known,
        }
    }
}

/// The huge page that `page` lies in, by number, and the place in it.
#[inline]
pub fn huge_of(page: usize) -> (usize, usize) {
    (page / PAGES_PER_HUGE, page % PAGES_PER_HUGE)
}

/// The part of a run of pages that is whole huge pages, as first page and number.
pub fn whole_huge_pages(first: usize, pages: usize) -> (usize, usize) {
    let start = first.next_multiple_of(PAGES_PER_HUGE);
    let end = (first + pages) / PAGES_PER_HUGE * PAGES_PER_HUGE;
    (start, end.saturating_sub(start))
}

impl<S: PageSource> Space<S> {
    /// Counts a run of pages in (`true`) or out.
    pub fn count(&self, first: usize, pages: usize, as_what: PageUse, into: bool) {
        let (mut page, end) = (first, first + pages);
        while page < end {
            let (number, place) = huge_of(page);
            let part = (PAGES_PER_HUGE - place).min(end - page);
            if let Some(huge) = self.huge(number) {
                let counter = huge.counter(as_what);
                let before = counter.load(Relaxed);
                counter.store(if into { before + part as u16 } else { before - part as u16 }, Relaxed);
            }
            page += part;
        }
    }

    /// Looks at every huge page.
    pub fn huge_page_stats(&self) -> HugePageStats {
        let mut stats = HugePageStats::default();
        self.for_each_huge(|huge| {
            let [used, dirty, known] = [PageUse::Used, PageUse::Dirty, PageUse::Known].map(|what| huge.count(what));
            match used {
                0 if known == 0 => return,
                0 => stats.free += 1,
                PAGES_PER_HUGE => stats.fully_used += 1,
                _ => stats.partly_used += 1,
            }
            let resident = used + dirty;
            stats.released_in_part += u64::from(resident > 0 && resident < known);
        });
        stats
    }

    /// Notes that the run from `first` is a mapping of its own: contents were moved there. Returns by how many the seams
    /// of the heap's memory changed.
    pub fn note_moved(&self, first: usize, pages: usize) -> isize {
        let mut change = self.forget_seams(first, pages);
        for page in [first, first + pages] {
            let (number, place) = huge_of(page);
            let Some(huge) = self.huge(number) else { continue };
            let word = &huge.seams[place / 64];
            let old = word.load(Relaxed);
            word.store(old | 1 << (place % 64), Relaxed);
            change += isize::from(old & 1 << (place % 64) == 0);
        }
        change
    }

    /// Notes that the run from `first` is one mapping, or none. As [`Space::note_moved`].
    pub fn forget_seams(&self, first: usize, pages: usize) -> isize {
        let (mut page, end, mut change) = (first, first + pages, 0);
        while page < end {
            let (number, place) = huge_of(page);
            let part = (64 - place % 64).min(end - page).min(PAGES_PER_HUGE - place);
            if let Some(huge) = self.huge(number) {
                let word = &huge.seams[place / 64];
                let old = word.load(Relaxed);
                let mask = (u64::MAX >> (64 - part)) << (place % 64);
                word.store(old & !mask, Relaxed);
                change -= (old & mask).count_ones() as isize;
            }
            page += part;
        }
        change
    }
}
