//! Memory for the allocator's own structures: runs of pages of the heap they serve, cut up and never given back.

use core::ptr::NonNull;

use crate::config::{METADATA_PAGES, PAGE_SIZE};
use crate::lock_order::Rank;
use crate::page_heap::PageHeap;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::SpanState;
use crate::sync::Mutex;

/// A bump allocator.
pub struct Metadata(Mutex<Bump>);

struct Bump {
    next: usize,
    end: usize,
}

impl Metadata {
    pub const fn new() -> Self {
        Metadata(Mutex::new(Rank::Metadata, Bump { next: 0, end: 0 }))
    }

    /// Zeroed memory that lives as long as the heap. `None` if there is none, or its lock cannot be had.
    pub fn allocate<S: PageSource>(&self, pages: &PageHeap<S>, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let mut bump = self.0.lock_unless_forking()?;
        let mut start = bump.next.next_multiple_of(align);
        if start + bytes > bump.end || bump.next == 0 {
            let wanted = bytes.div_ceil(PAGE_SIZE).max(METADATA_PAGES);
            let run = pages.allocate(wanted, align, SpanState::Own)?;
            start = pages.start(run.id);
            if !run.zero {
                // SAFETY: the run is ours, and so long.
                unsafe { core::ptr::write_bytes(start as *mut u8, 0, wanted * PAGE_SIZE) };
            }
            bump.end = start + wanted * PAGE_SIZE;
        }
        bump.next = start + bytes;
        NonNull::new(start as *mut u8)
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.0
    }
}
