//! Rung 7: memory is pages, and a run of them is whatever it is needed for.
//!
//! ```text
//!   page     0     1          2     3          4          5     6
//!            ·   │ span of  │ free      │ span of  │ a large   │ never used ...
//!                │ class 3  │           │ class 20 │ block     │
//! ```
//!
//! A table says of each page whether it is in use. Free neighbours are one run, because nothing says that they are two.
//! The objects of spans are in `spans.rs`.

use std::ptr;

use crate::kernel;
use crate::per_cpu::PerCpu;
use crate::spans::Spans;
use crate::transfer_cache::TransferCache;

/// Bytes of a page: two of the kernel's usual ones.
pub const PAGE: usize = 8 << 10;
/// Pages of address space: 16 GiB, reserved at once. Page 0 is not used, so that 0 can say that there is none.
pub const PAGES: usize = (16 << 30) / PAGE;
/// The heap begins on a multiple of so many bytes. What is to be more aligned is refused.
pub const MOST_ALIGN: usize = 2 << 20;

/// What the table says of a page. Zeros: it is free and was never used.
#[derive(Clone, Copy, Debug)]
struct Page {
    in_use: bool,
    /// For who gives pages back to the kernel. 0 when the page was freed.
    note: u8,
}

/// Finds runs of free pages. For one thread at a time.
#[derive(Debug)]
pub struct PageHeap {
    base: *mut u8,
    table: *mut Page,
    /// From this page on none was ever used.
    end: usize,
    /// Below this page none is free.
    lowest: usize,
}

// SAFETY: memory and table are this heap's own.
unsafe impl Send for PageHeap {}

impl PageHeap {
    /// A heap without address space. It reserves some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        PageHeap { base: ptr::null_mut(), table: ptr::null_mut(), end: 1, lowest: 1 }
    }

    /// Reserves what this heap may ever have. `None`: there is not so much address space (`ulimit -v`).
    fn reserve(&mut self) -> Option<()> {
        if self.table.is_null() {
            self.table = kernel::reserve(PAGES * size_of::<Page>(), align_of::<Page>())?.as_ptr().cast();
        }
        if self.base.is_null() {
            self.base = kernel::reserve(PAGES * PAGE, MOST_ALIGN)?.as_ptr();
        }
        Some(())
    }

    fn page(&mut self, page: usize) -> &mut Page {
        assert!(page < PAGES && !self.table.is_null());
        // SAFETY: in the table, whose zeros are a valid `Page`, and only who has the heap has it.
        unsafe { &mut *self.table.add(page) }
    }

    /// Takes the first run of `pages` free ones that begins on a multiple of `align` pages; returns its first page.
    /// `None`: there is no more memory.
    pub fn take(&mut self, pages: usize, align: usize) -> Option<usize> {
        self.reserve()?;
        let mut first = self.lowest.next_multiple_of(align);
        loop {
            let end = first.checked_add(pages).filter(|end| *end <= PAGES)?;
            // From behind: where the last of them is in use, no run begins before it either.
            match (first..end.min(self.end)).rev().find(|page| self.page(*page).in_use) {
                Some(used) => first = (used + 1).next_multiple_of(align),
                None => break,
            }
        }
        (first..first + pages).for_each(|page| self.page(page).in_use = true);
        self.end = self.end.max(first + pages);
        if first == self.lowest {
            self.lowest += pages;
        }
        Some(first)
    }

    /// Takes a run back.
    ///
    /// # Safety
    ///
    /// * It came from [`PageHeap::take`], and nobody uses it.
    pub unsafe fn give(&mut self, first: usize, pages: usize) {
        for page in first..first + pages {
            *self.page(page) = Page { in_use: false, note: 0 };
        }
        self.lowest = self.lowest.min(first);
    }

    /// Where a page is.
    #[must_use]
    pub fn address(&self, page: usize) -> *mut u8 {
        self.base.wrapping_add(page * PAGE)
    }

    /// Which page an address of this heap is in.
    #[must_use]
    pub fn page_of(&self, address: *mut u8) -> usize {
        (address.addr() - self.base.addr()) / PAGE
    }

    /// Shows `visit` the address and the note of every free page that is not beyond all used ones, lowest first.
    pub fn for_each_free(&mut self, mut visit: impl FnMut(*mut u8, &mut u8)) {
        for page in 1..self.end {
            let address = self.address(page);
            let page = self.page(page);
            if !page.in_use {
                visit(address, &mut page.note);
            }
        }
    }
}

/// This rung: caches of CPUs over transfer caches over spans of objects.
pub type Rung = PerCpu<TransferCache<Spans>>;

/// Makes it.
#[must_use]
pub const fn rung() -> Rung {
    PerCpu::new(TransferCache::new(Spans::empty()))
}
