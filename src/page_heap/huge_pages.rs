//! How full each of the kernel's huge pages is: 2 MiB, 256 of our pages.
//!
//! A huge page that is in use in part costs all of it, or stops being one when its free part goes back to the kernel.
//! So the page heap fills the fullest first, and gives whole ones back first.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::config::{HUGE_PAGE, PAGE_SIZE};
use crate::page_heap::region::Region;
use crate::page_heap::source::PageSource;

/// Pages of a huge page.
pub const PAGES_PER_HUGE: usize = HUGE_PAGE / PAGE_SIZE;

/// What is known of one huge page. Changed and read under the page heap's lock, so relaxed.
#[derive(Default)]
pub struct HugePage {
    used: AtomicU16,
    /// Free pages that hold old data.
    dirty: AtomicU16,
}

/// What a page is counted as. Free ones that read as zero are the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageUse {
    Used,
    Dirty,
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

impl HugePage {
    /// Pages in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed) as usize
    }
}

impl<S: PageSource> Region<S> {
    /// Counts a run of pages in (`true`) or out.
    pub fn count(&self, first: usize, pages: usize, as_what: PageUse, into: bool) {
        let (mut page, end) = (first, first + pages);
        while page < end {
            let (number, place) = self.huge_of(page);
            let part = (PAGES_PER_HUGE - place).min(end - page);
            let huge = self.huge(number);
            let counter = if as_what == PageUse::Used { &huge.used } else { &huge.dirty };
            let before = counter.load(Relaxed);
            counter.store(if into { before + part as u16 } else { before - part as u16 }, Relaxed);
            page += part;
        }
    }

    /// Looks at every huge page among the first `pages_used` pages.
    pub fn huge_page_stats(&self, pages_used: usize) -> HugePageStats {
        let mut stats = HugePageStats::default();
        let mut page = 0;
        while page < pages_used {
            let (number, place) = self.huge_of(page);
            let pages = (PAGES_PER_HUGE - place).min(pages_used - page);
            let (used, dirty) = (self.huge(number).used(), self.huge(number).dirty.load(Relaxed) as usize);
            match used {
                0 => stats.free += 1,
                PAGES_PER_HUGE => stats.fully_used += 1,
                _ => stats.partly_used += 1,
            }
            let resident = used + dirty;
            stats.released_in_part += u64::from(resident > 0 && resident < pages);
            page += pages;
        }
        stats
    }

    /// The part of a run of pages that is whole huge pages, as first page and number.
    pub fn whole_huge_pages(&self, first: usize, pages: usize) -> (usize, usize) {
        let to_border = |page| (PAGES_PER_HUGE - self.huge_of(page).1) % PAGES_PER_HUGE;
        let start = first + to_border(first);
        let end = first + pages;
        let end = end - self.huge_of(end).1.min(end);
        (start, end.saturating_sub(start))
    }
}
