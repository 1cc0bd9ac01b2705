//! The address space of a heap with its own source: a few regions, each with the tables of its pages.
//!
//! ```text
//! │ pages: committed │ pages: reserved │ huge pages │ page map │ spans │
//! ```
//!
//! A region is one reservation of the source's. Its tables are sized for all its pages and committed when it is taken;
//! they stand behind the pages, so that no two regions' pages are neighbours. Each region is as long as half of all
//! before it, or what is asked for, so a heap has few, and an address is looked up by trying each: this is not for the
//! process's heap, whose lookups are `free`'s.
//!
//! A region stays until the heap is dropped: a reader without a lock may look at its tables at any time.

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::{HUGE_PAGE, PAGE_SIZE};
use crate::page_heap::free_pages::SPARE_RECORDS;
use crate::page_heap::huge_pages::{HugePage, PAGES_PER_HUGE, huge_of};
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Span, SpanId};

/// Most regions of a heap: each adds half of what there is, so these reach any bound.
const REGIONS: usize = 64;
/// Records of spans of a region beside one for each page: what an operation has to spare.
const SPARE: usize = SPARE_RECORDS as usize;

/// All regions of one heap. Added to under the page heap's lock.
pub struct Regions {
    all: [Region; REGIONS],
    count: AtomicUsize,
}

/// One reservation: written before it counts, and not after.
struct Region {
    first_page: AtomicUsize,
    pages: AtomicUsize,
    /// [`HugePage`]s, from the one that the first page lies in.
    huge: AtomicUsize,
    /// Numbers of spans.
    map: AtomicUsize,
    /// [`Span`]s, from number `first_span` on.
    spans: AtomicUsize,
    first_span: AtomicUsize,
    /// What the source gave.
    start: AtomicUsize,
    length: AtomicUsize,
}

/// Where the parts of a reservation begin.
struct Layout {
    base: usize,
    huge: usize,
    map: usize,
    spans: usize,
    end: usize,
    pages: usize,
}

impl Regions {
    pub const fn new() -> Self {
        Regions { all: [const { Region::new() }; REGIONS], count: AtomicUsize::new(0) }
    }

    fn all(&self) -> &[Region] {
        &self.all[..self.count.load(Acquire)] // pairs with `add`
    }

    fn of(&self, page: usize) -> Option<&Region> {
        self.all().iter().find(|region| page.wrapping_sub(get(&region.first_page)) < get(&region.pages))
    }

    /// Takes `bytes` of address space for pages and tables: the pages, as first and number. `None` if the source has
    /// none, or they hold less than one page.
    pub fn add<S: PageSource>(&self, source: &S, bytes: usize) -> Option<(usize, usize)> {
        let count = self.count.load(Relaxed);
        let region = self.all.get(count)?;
        let start = source.reserve(bytes)?;
        let address = start.as_ptr() as usize;
        let usable = lay_out(address, bytes, S::GRANULE).filter(|layout| {
            let tables = NonNull::new(layout.huge as *mut u8);
            // SAFETY: reserved a moment ago, and ours.
            tables.is_some_and(|tables| unsafe { source.commit(tables, layout.end - layout.huge) })
        });
        let Some(layout) = usable else {
            // SAFETY: reserved a moment ago, and nobody knows of it.
            unsafe { source.unreserve(start, bytes) };
            return None;
        };
        region.first_page.store(layout.base / PAGE_SIZE, Relaxed);
        region.pages.store(layout.pages, Relaxed);
        region.huge.store(layout.huge, Relaxed);
        region.map.store(layout.map, Relaxed);
        region.spans.store(layout.spans, Relaxed);
        region.first_span.store(self.spans() + 1, Relaxed);
        region.start.store(address, Relaxed);
        region.length.store(bytes, Relaxed);
        self.count.store(count + 1, Release);
        Some((layout.base / PAGE_SIZE, layout.pages))
    }

    /// Gives everything back.
    ///
    /// # Safety
    ///
    /// * Nobody uses the regions, now or later, and they are `source`'s.
    pub unsafe fn give_back<S: PageSource>(&mut self, source: &S) {
        for region in self.all() {
            if let Some(start) = NonNull::new(get(&region.start) as *mut u8) {
                // SAFETY: by our own contract.
                unsafe { source.unreserve(start, get(&region.length)) };
            }
        }
    }

    /// Bytes of address space for pages.
    pub fn bytes(&self) -> usize {
        self.all().iter().map(|region| get(&region.pages)).sum::<usize>() * PAGE_SIZE
    }

    /// Records of spans: one for each page and some that are spare; numbers begin with 1.
    pub fn spans(&self) -> usize {
        self.all().iter().map(Region::spans).sum()
    }

    /// The record of a span.
    pub fn span(&self, id: SpanId) -> &Span {
        let place = |region: &&Region| (id.0 as usize).wrapping_sub(get(&region.first_span)) < region.spans();
        // Number 0 is in no region; what is read of it is nothing, as of any span that is not in use.
        let region = self.all().iter().find(place).unwrap_or(&self.all[0]);
        let place = (id.0 as usize).saturating_sub(get(&region.first_span));
        // SAFETY: the table has a record for each number of the region, zero is a value of it, and it lives as long as
        // the heap.
        unsafe { &*(get(&region.spans) as *const Span).add(place) }
    }

    /// A page's entry: the number of its span.
    pub fn entry(&self, page: usize) -> Option<&AtomicU32> {
        let region = self.of(page)?;
        // SAFETY: the map has an entry for every page of the region, and lives as long as the heap.
        Some(unsafe { &*(get(&region.map) as *const AtomicU32).add(page - get(&region.first_page)) })
    }

    /// What is known of a huge page, by number. A huge page that two regions share, the first's.
    pub fn huge(&self, number: usize) -> Option<&HugePage> {
        self.all().iter().find_map(|region| region.huge(number))
    }

    pub fn for_each_huge(&self, mut f: impl FnMut(&HugePage)) {
        for region in self.all() {
            let (first, last) = region.huge_pages();
            (first..=last).filter_map(|number| region.huge(number)).for_each(&mut f);
        }
    }
}

impl Region {
    const fn new() -> Self {
        Region {
            first_page: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            huge: AtomicUsize::new(0),
            map: AtomicUsize::new(0),
            spans: AtomicUsize::new(0),
            first_span: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
        }
    }

    fn spans(&self) -> usize {
        get(&self.pages) + SPARE
    }

    /// The first and the last.
    fn huge_pages(&self) -> (usize, usize) {
        let (first, pages) = (get(&self.first_page), get(&self.pages));
        (huge_of(first).0, huge_of(first + pages - 1).0)
    }

    fn huge(&self, number: usize) -> Option<&HugePage> {
        let (first, last) = self.huge_pages();
        // SAFETY: the table has an entry for every huge page of the region, and zero is a value of it.
        (first..=last).contains(&number).then(|| unsafe { &*(get(&self.huge) as *const HugePage).add(number - first) })
    }
}

/// What a region is does not change once it counts, which is stored with release after it.
fn get(field: &AtomicUsize) -> usize {
    field.load(Relaxed)
}

/// Bytes to ask a source for, so that `pages` pages fit however the source places them.
pub fn bytes_for(pages: usize, granule: usize) -> usize {
    let most = pages * PAGE_SIZE / 63 * 64 + (1 << 20); // more than tables take, to count their huge pages
    let tables = pages * (size_of::<u32>() + size_of::<Span>()) + (most / HUGE_PAGE + 4) * size_of::<HugePage>();
    let bytes = pages * PAGE_SIZE + tables + (SPARE + 1) * size_of::<Span>() + 4 * granule.max(PAGE_SIZE);
    bytes.next_multiple_of(granule)
}

/// Divides `length` bytes at `start` among as many pages as they hold, and their tables.
fn lay_out(start: usize, length: usize, granule: usize) -> Option<Layout> {
    let base = start.checked_next_multiple_of(granule.max(PAGE_SIZE))?;
    let limit = start.checked_add(length)?;
    let room = limit.checked_sub(base)?;
    // The tables begin where a granule does and end where one does.
    let per_page = PAGE_SIZE + size_of::<u32>() + size_of::<Span>();
    let once = 2 * granule + (SPARE + 1) * size_of::<Span>() + 3 * size_of::<HugePage>();
    let per_huge = (room / HUGE_PAGE + 1) * size_of::<HugePage>();
    // Whole granules: the last of them is committed, too.
    let unit = (granule / PAGE_SIZE).max(1);
    let pages = (room.checked_sub(once + per_huge)? / per_page).min((1 << 31) - 1) / unit * unit;
    if pages == 0 {
        return None;
    }
    let huge = (base + pages * PAGE_SIZE).next_multiple_of(granule);
    let map = huge + (pages / PAGES_PER_HUGE + 2) * size_of::<HugePage>();
    let spans = (map + pages * size_of::<u32>()).next_multiple_of(size_of::<Span>());
    let end = (spans + (pages + SPARE) * size_of::<Span>()).next_multiple_of(granule);
    debug_assert!(end <= limit);
    Some(Layout { base, huge, map, spans, end, pages })
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
                        assert!(length < 9 * granule.max(PAGE_SIZE), "{length} bytes hold no page of {granule}");
                        continue;
                    };
                    let huge_pages =
                        huge_of(layout.base / PAGE_SIZE + layout.pages - 1).0 - huge_of(layout.base / PAGE_SIZE).0 + 1;
                    assert!(start <= layout.base && layout.base.is_multiple_of(PAGE_SIZE.max(granule)));
                    assert!((layout.pages * PAGE_SIZE).is_multiple_of(granule), "what is committed is whole granules");
                    assert!(layout.base + layout.pages * PAGE_SIZE <= layout.huge);
                    assert!(layout.huge + huge_pages * size_of::<HugePage>() <= layout.map);
                    assert!(layout.map + layout.pages * 4 <= layout.spans);
                    assert!(layout.spans + (layout.pages + SPARE) * size_of::<Span>() <= layout.end);
                    assert!(layout.end <= start + length, "{granule} {start:#x} {length}");
                    // What tables take and alignment costs, no more.
                    let least = length / (PAGE_SIZE + 80);
                    let slack = 6 * granule.max(PAGE_SIZE) / PAGE_SIZE;
                    assert!(layout.pages + slack >= least, "{} pages of {least}", layout.pages);
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_holds_the_pages() {
        for granule in [4096, 65_536, HUGE_PAGE] {
            for start in [0x7000_0000_0000_usize, 0x7000_0000_1000, 0x7000_001f_f000] {
                for pages in (1..200).chain([1000, 8000, 8192, 100_000, 1 << 24]) {
                    let layout = lay_out(start, bytes_for(pages, granule), granule).expect("room for a page");
                    assert!(layout.pages >= pages, "{pages} pages, {granule}, {start:#x}: {}", layout.pages);
                }
            }
        }
    }
}
