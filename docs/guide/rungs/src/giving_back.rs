//! Rung 8: what nobody needs for a while goes back to the kernel.
//!
//! ```text
//!   page is freed ──► free at one look ──► free at the next: back to the kernel ──► used again: reads as zero
//!                        a period              a period
//! ```
//!
//! There is no thread for this. Batches pass by now and then, and with each of them somebody looks at the clock.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::kernel;
use crate::page_heap::PAGE;
use crate::per_cpu::PerCpu;
use crate::spans::Spans;
use crate::tier::Tier;
use crate::transfer_cache::TransferCache;

/// Milliseconds from one look to the next. perseq has 2000; this is for programs that run for a moment.
pub const PERIOD_MS: u64 = 50;

/// What a page's note says: 0 that it was freed since the last look.
const SEEN: u8 = 1;
/// The kernel has its memory.
const BACK: u8 = 2;

/// The tiers behind the caches, with somebody who looks at the clock.
#[derive(Debug)]
struct Watched {
    tiers: TransferCache<Spans>,
    /// When the next look is due, in milliseconds. 0: there was none.
    due: AtomicU64,
}

impl Watched {
    /// After each batch. No lock is held.
    fn tend(&self) {
        let (now, due) = (kernel::milliseconds(), self.due.load(Relaxed));
        // One thread looks: who exchanges the time. The numbers publish nothing.
        if now < due || self.due.compare_exchange(due, now + PERIOD_MS, Relaxed, Relaxed).is_err() {
            return;
        }
        if due > 0 {
            self.tiers.drain(); // an object in an array keeps its span from being free pages
            self.release(SEEN);
        }
    }

    /// Gives free pages back whose note is `least` or more, and notes that the others were seen. Returns how many bytes.
    fn release(&self, least: u8) -> usize {
        self.tiers.behind().with_pages(|pages| {
            let (mut start, mut bytes, mut released) = (ptr::null_mut::<u8>(), 0, 0);
            pages.for_each_free(|page, note| {
                let due = *note != BACK && *note >= least;
                *note = if due { BACK } else { (*note).max(SEEN) };
                if due && start.wrapping_add(bytes) != page {
                    // SAFETY: a run of free pages, or nothing. They stay free: the heap is ours meanwhile.
                    released += unsafe { kernel::release(start, bytes) };
                    (start, bytes) = (page, 0);
                }
                bytes += if due { PAGE } else { 0 };
            });
            // SAFETY: as above.
            released + unsafe { kernel::release(start, bytes) }
        })
    }
}

impl Tier for Watched {
    fn take(&self, class: usize, out: &mut [*mut u8]) -> usize {
        let taken = self.tiers.take(class, out);
        self.tend();
        taken
    }

    unsafe fn give(&self, class: usize, objects: &[*mut u8]) {
        // SAFETY: by our own contract.
        unsafe { self.tiers.give(class, objects) };
        self.tend();
    }

    fn take_large(&self, layout: Layout) -> *mut u8 {
        let block = self.tiers.take_large(layout);
        self.tend();
        block
    }

    unsafe fn give_large(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by our own contract.
        unsafe { self.tiers.give_large(block, layout) };
        self.tend();
    }
}

/// All rungs: caches of CPUs over transfer caches over spans of objects over pages that go back.
#[derive(Debug)]
pub struct GivingBack(PerCpu<Watched>);

impl GivingBack {
    /// An allocator without memory. It takes some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        GivingBack(PerCpu::new(Watched { tiers: TransferCache::new(Spans::empty()), due: AtomicU64::new(0) }))
    }

    /// Gives back all that is free, now; returns how many bytes. Caches of CPUs that the kernel does not let us empty
    /// stay as they are.
    pub fn release(&self) -> usize {
        let _ = self.0.drain(); // what it was refused for stays, as said
        self.0.behind().tiers.drain();
        self.0.behind().release(0)
    }
}

// SAFETY: by the implementation for the caches.
unsafe impl GlobalAlloc for GivingBack {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by our own contract.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by our own contract.
        unsafe { self.0.dealloc(pointer, layout) };
    }
}
