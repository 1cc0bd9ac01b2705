//! The address space of a heap: how it grows and shrinks, and where its tables are.
//!
//! # The process's heap
//!
//! Nothing is reserved. Memory is mapped readable and writable as the heap grows, in steps of a quarter of what it has,
//! within bounds, and what is free in whole huge pages is unmapped when it goes back: so the address space, what the
//! kernel accounts for, what `mlockall` locks and what a core dump holds are what the heap has, and the limits of all of
//! them are honoured as by any program.
//!
//! ```text
//! │ used │ free │  hole  │ used │ free (zero) │ ahead │         nothing of ours yet
//!                                             ▲       ▲
//!                                          frontier  mapped
//! ```
//!
//! It grows upwards at its **frontier** from a place of its own far below where the kernel puts mappings, so that the
//! last block can grow where it is and huge pages stay whole. A **hole** is a run of address space that went back and may be
//! mapped again: the best fitting one is tried before the frontier moves. Holes and the space beyond the frontier are
//! hopes only: the kernel may give them to others, and then the hole is forgotten, or the frontier moves to where the
//! kernel has room. A mapping of the program's is never replaced.
//!
//! Each hole, and each range whose contents were moved there, is a mapping more, of which a process may have 65,530:
//! both are bounded ([`MAX_HOLES`](crate::config::MAX_HOLES), [`MAX_SEAMS`](crate::config::MAX_SEAMS)). Beyond that, what
//! goes back stays mapped and what grows is copied: `large` says what of it.
//!
//! The tables are the [`Directory`]'s.
//!
//! # A heap with its own source
//!
//! It takes [`Regions`] from its source and commits within the last one, up to a bound on its pages. They stay until the
//! heap is dropped.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

use crate::config::{GROW_PAGES, HUGE_PAGE, MAX_STEP_PAGES, PAGE_SIZE};
use crate::names::{self, Name};
use crate::os::{self, Refusal};
use crate::page_heap::directory::{Directory, LAST_PAGE};
use crate::page_heap::huge_pages::{HugePage, PAGES_PER_HUGE};
use crate::page_heap::regions::{self, Regions};
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Span, SpanId};

/// Pages of the smallest first region.
const FIRST_REGION_PAGES: usize = (32 << 20) / PAGE_SIZE;

/// A heap's address space, with what says what is there.
pub struct Space<S> {
    /// The process's heap.
    pub directory: Option<&'static Directory>,
    /// Any other heap, of at most so many bytes.
    regions: Regions,
    bound: usize,
    pub source: S,
}

/// Where the heap grows next, in pages. Under the page heap's lock.
#[derive(Clone, Copy, Debug)]
pub struct Frontier {
    /// No page from here on is part of a span, until `end`.
    pub next: usize,
    /// Pages up to here are committed.
    pub committed: usize,
    /// The end of the region, or of all addresses.
    pub end: usize,
}

impl Frontier {
    pub const NONE: Frontier = Frontier { next: 0, committed: 0, end: 0 };
}

impl<S: PageSource> Space<S> {
    /// With memory from `source` for pages of `bound` bytes.
    pub const fn bounded(source: S, bound: usize) -> Self {
        Space { directory: None, regions: Regions::new(), bound, source }
    }

    /// The process's, whose tables are in `directory`.
    pub const fn of_process(source: S, directory: &'static Directory) -> Self {
        Space { directory: Some(directory), regions: Regions::new(), bound: usize::MAX, source }
    }

    /// Most pages that the heap may have.
    pub fn most_pages(&self) -> usize {
        match self.directory {
            Some(_) => LAST_PAGE,
            None => {
                // Whole granules, as what is committed.
                let (unit, bound) = ((S::GRANULE / PAGE_SIZE).max(1), self.bound.div_ceil(PAGE_SIZE));
                bound.div_ceil(unit).saturating_mul(unit).min(self.source.most_bytes() / PAGE_SIZE)
            }
        }
    }

    /// Bytes of address space that the heap has, if `committed` pages of it are committed.
    pub fn bytes(&self, committed: usize) -> usize {
        if self.directory.is_some() { committed * PAGE_SIZE } else { self.regions.bytes() }
    }

    /// Whether not even tables are there.
    pub fn has_nothing(&self) -> bool {
        self.directory.is_none() && self.regions.bytes() == 0
    }

    /// A page's entry: the number of its span. `None` if the heap never had the page.
    #[inline]
    pub fn entry(&self, page: usize) -> Option<&AtomicU32> {
        match self.directory {
            Some(directory) => directory.entry(page),
            None => self.regions.entry(page),
        }
    }

    /// The record of the span `id`.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        match self.directory {
            Some(directory) => directory.span(id),
            None => self.regions.span(id),
        }
    }

    /// What is known of a huge page, by its number. `None` if the heap never had a page of it.
    #[inline]
    pub fn huge(&self, number: usize) -> Option<&HugePage> {
        match self.directory {
            Some(directory) => directory.huge(number),
            None => self.regions.huge(number),
        }
    }

    pub fn for_each_huge(&self, f: impl FnMut(&HugePage)) {
        match self.directory {
            Some(directory) => directory.known().filter_map(|number| directory.huge(number)).for_each(f),
            None => self.regions.for_each_huge(f),
        }
    }

    /// Makes the record of the span of this number, all those before it being made. False if there is no room.
    pub fn make_record(&self, id: SpanId) -> bool {
        match self.directory {
            Some(directory) => directory.make_record(id),
            None => id.0 as usize <= self.regions.spans(),
        }
    }

    /// Bytes of tables that pages from `first` to `end` need and do not have, where those are not part of a region.
    pub fn missing_tables(&self, first: usize, end: usize) -> usize {
        self.directory.map_or(0, |directory| directory.missing(first, end))
    }

    /// As [`Space::missing_tables`], of so many pages wherever they are.
    pub fn most_tables(&self, pages: usize) -> usize {
        if self.directory.is_some() { Directory::most_bytes(pages) } else { 0 }
    }

    /// Pages to commit where `wanted` are needed and the heap has `committed`, so that this is rare.
    pub fn step(&self, wanted: usize, committed: usize) -> usize {
        // A short process has one huge page, and the next come one by one.
        let usual = committed.clamp(PAGES_PER_HUGE, GROW_PAGES.max(PAGES_PER_HUGE));
        wanted.max((committed / 4).clamp(usual, MAX_STEP_PAGES.max(usual)))
    }

    /// Commits pages from `first` to `end`, at the frontier or in a hole, with their tables; `before` were committed
    /// before.
    pub fn commit(&self, first: usize, end: usize, before: usize) -> Result<(), Refusal> {
        let (start, bytes) = (first * PAGE_SIZE, (end - first) * PAGE_SIZE);
        let Some(place) = NonNull::new(start as *mut u8) else { return Err(Refusal::Taken) };
        match self.directory {
            Some(directory) => {
                if end > LAST_PAGE {
                    return Err(Refusal::Taken);
                }
                if !directory.cover(first, end) {
                    return Err(Refusal::NoMemory);
                }
                os::map_at(start, bytes)?;
                // SAFETY: mapped just now.
                unsafe { names::give(Name::Heap, place, bytes) };
            }
            // SAFETY: a part of a region that was never committed.
            None if unsafe { self.source.commit(place, bytes) } => {}
            None => return Err(Refusal::NoMemory),
        }
        // SAFETY: committed just now.
        unsafe { self.source.committed(place, bytes, before * PAGE_SIZE) };
        Ok(())
    }

    /// Whether what goes back can be unmapped.
    pub fn unmaps(&self) -> bool {
        self.directory.is_some()
    }

    /// Unmaps a run of pages of the process's heap. False if the kernel refuses.
    ///
    /// # Safety
    ///
    /// * The pages are the heap's, and nobody uses them.
    pub unsafe fn unmap(&self, first: usize, pages: usize) -> bool {
        NonNull::new((first * PAGE_SIZE) as *mut u8)
            // SAFETY: by our own contract.
            .is_some_and(|start| unsafe { os::unmap(start, pages * PAGE_SIZE) })
    }

    /// A new frontier with room for `pages` that begin on a multiple of `align` bytes, where the heap has `committed`.
    /// `None` if there is no address space.
    pub fn new_frontier(&self, pages: usize, align: usize, committed: usize) -> Option<Frontier> {
        match self.directory {
            Some(directory) => self.map_elsewhere(directory, pages, align, committed),
            None => {
                let left = self.most_pages().checked_sub(self.regions.bytes() / PAGE_SIZE)?;
                let wanted = pages.checked_add(align.max(PAGE_SIZE) / PAGE_SIZE - 1)?;
                let usual = (self.regions.bytes() / PAGE_SIZE / 2).max(FIRST_REGION_PAGES).min(left);
                let sizes = if S::WHOLE { [left, left] } else { [usual.max(wanted), wanted] };
                let most = self.source.most_bytes();
                let (first, pages) = sizes.into_iter().find_map(|pages| {
                    let bytes = regions::bytes_for(pages, S::GRANULE).min(most);
                    self.regions.add(&self.source, bytes)
                })?;
                Some(Frontier { next: first, committed: first, end: first + pages })
            }
        }
    }

    /// Where the process's heap begins, or goes on where the kernel had no room at the frontier.
    fn map_elsewhere(&self, directory: &Directory, pages: usize, align: usize, committed: usize) -> Option<Frontier> {
        let step = self.step(pages, committed).next_multiple_of(PAGES_PER_HUGE);
        let sizes = [(step, align.max(HUGE_PAGE)), (pages, align.max(PAGE_SIZE))];
        sizes.into_iter().find_map(|(pages, align)| {
            let start = os::map_anywhere(pages * PAGE_SIZE, align)?;
            let first = start.as_ptr() as usize / PAGE_SIZE;
            if !directory.cover(first, first + pages) {
                // SAFETY: mapped just now; nobody knows of it.
                unsafe { os::unmap(start, pages * PAGE_SIZE) };
                return None;
            }
            // SAFETY: committed just now, and mapped whole.
            unsafe {
                names::give(Name::Heap, start, pages * PAGE_SIZE);
                self.source.committed(start, pages * PAGE_SIZE, committed * PAGE_SIZE);
            }
            Some(Frontier { next: first, committed: first + pages, end: LAST_PAGE })
        })
    }

    /// Where the frontier of the process's heap is to be tried first.
    pub fn first_frontier(&self) -> Frontier {
        if self.directory.is_none() {
            return Frontier::NONE;
        }
        let first = os::growth_start() / PAGE_SIZE;
        Frontier { next: first, committed: first, end: LAST_PAGE }
    }
}

impl<S: PageSource> Space<S> {
    /// Gives all regions back. What the process's heap has stays.
    ///
    /// # Safety
    ///
    /// * Nobody uses the heap, now or later.
    pub unsafe fn give_back(&mut self) {
        // SAFETY: by our own contract.
        unsafe { self.regions.give_back(&self.source) };
    }
}
