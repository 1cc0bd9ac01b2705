//! When memory goes back to the kernel.
//!
//! Free pages that hold old data are resident, and cheap to use again. Those that nobody used for a whole **period** go
//! back: at its end, the fewest pages that were free at any moment of it. Runs with whole huge pages go first, the
//! longest before others.
//!
//! And when a long run has to be taken from fresh memory because what is free lies in pieces, as many free pages go back
//! first: a program that goes from small objects to large ones does not hold both.
//!
//! There is no thread for this unless one is asked for: slow paths look at the clock. So a process that goes completely
//! idle keeps what it had free, until its next slow path. `PERSEQ_BACKGROUND=1` starts a thread for that.
//!
//! Whole huge pages of the process's heap are unmapped then, so that neither address space nor what the kernel accounts
//! for stays; what is free beside them goes with them. Smaller pieces stay mapped: each hole is a mapping more.
//!
//! The kernel is called without the page heap's lock, on a run that is on no list meanwhile. One thread releases at a
//! time; a fork waits for it. In a child process where the heap's lock is nobody's, what was on its way stays there.
//! What the kernel refuses is passed over: `refused.rs`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use crate::config::{MAX_HOLES, PAGE_SIZE, RELEASE_PERIOD_MS, RELEASE_REFUSALS, RELEASE_STEP_PAGES};
use crate::lock_order::Rank;
use crate::os;
use crate::page_heap::free_pages::SPARE_RECORDS;
use crate::page_heap::free_runs::ABOVE_ALL;
use crate::page_heap::huge_pages::{PAGES_PER_HUGE, whole_huge_pages};
use crate::page_heap::refused::Pass;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};
use crate::sync::{Guard, Mutex};

/// When free pages go back to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// After nobody used them for this long: to the millisecond, at most 49 days.
    After(Duration),
    /// At the next slow path.
    Now,
    /// Only when [`crate::release()`] is called, a limit is exceeded or memory is exhausted.
    Never,
}

impl Policy {
    /// The value of `PERSEQ_RELEASE`: milliseconds, `now` or `never`.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Policy> {
        match text {
            "now" => Some(Policy::Now),
            "never" => Some(Policy::Never),
            _ => {
                let period = text.parse::<u32>().ok().filter(|&period| 0 < period && period < NEVER)?;
                Some(Policy::After(Duration::from_millis(period.into())))
            }
        }
    }
}

const NEVER: u32 = u32::MAX;

/// The state of releasing.
pub struct Releases {
    /// Held by the thread that releases.
    pass: Mutex<()>,
    /// Milliseconds; 0 is at once.
    period: AtomicU32,
    /// When the period ends, in [`os::milliseconds`]; 0 before the first begins.
    end: AtomicU64,
}

impl Releases {
    pub const fn new() -> Self {
        Releases {
            pass: Mutex::new(Rank::Release, ()),
            period: AtomicU32::new(RELEASE_PERIOD_MS),
            end: AtomicU64::new(0),
        }
    }

    /// Relaxed: the next look at the clock sees it.
    pub fn set_policy(&self, policy: Policy) {
        let period = match policy {
            Policy::After(period) => period.as_millis().clamp(1, u128::from(NEVER) - 1) as u32,
            Policy::Now => 0,
            Policy::Never => NEVER,
        };
        self.period.store(period, Relaxed);
        self.end.store(0, Relaxed);
    }

    /// Milliseconds of a period; `None` if nothing goes back by itself.
    pub fn period(&self) -> Option<u32> {
        Some(self.period.load(Relaxed)).filter(|period| *period != NEVER)
    }

    pub(crate) fn mutex(&self) -> &Mutex<()> {
        &self.pass
    }
}

impl<S: PageSource> PageHeap<S> {
    /// Looks at the clock and releases what is due. The caller holds no lock.
    pub fn tend(&self) {
        let Some(period) = self.releases.period() else { return };
        if self.dirty_pages() == 0 {
            return;
        }
        if period == 0 {
            self.release_some(usize::MAX);
            return;
        }
        let now = os::milliseconds();
        let end = self.releases.end.load(Relaxed);
        if end != 0 && now < end {
            return;
        }
        // Whoever holds the lock does it; if it is for another reason, the next slow path will.
        let Some(pass) = self.releases.pass.try_lock() else { return };
        let Some((least, due)) = self.state.lock_unless_orphaned().map(|heap| heap.least_dirty()) else { return };
        let due = if end == 0 { 0 } else { due };
        let released = self.release_under(Pass::new(due.min(RELEASE_STEP_PAGES)).of(due).within(RELEASE_REFUSALS));
        let Some(mut heap) = self.state.lock_unless_orphaned() else { return };
        if due > RELEASE_STEP_PAGES && released > 0 {
            heap.least_dirty = heap.least_dirty.min(least - released); // the rest is the next slow path's
        } else {
            heap.least_dirty = heap.totals.free;
            self.releases.end.store(now + u64::from(period), Relaxed);
        }
        drop((heap, pass));
    }

    /// Gives all free pages back to the kernel; returns how many bytes.
    pub fn release_free(&self) -> usize {
        self.release_pages(usize::MAX) * PAGE_SIZE
    }

    /// Gives up to `most` free pages back, those with whole huge pages first; returns how many.
    pub fn release_pages(&self, most: usize) -> usize {
        let Some(_pass) = self.releases.pass.lock_unless_forking() else { return 0 };
        self.release_under(Pass::new(most))
    }

    /// As [`PageHeap::release_pages`], by a thread that has other things to do.
    pub(crate) fn release_some(&self, most: usize) {
        let Some(_pass) = self.releases.pass.lock_unless_forking() else { return };
        if self.dirty_pages() > 0 {
            self.release_under(Pass::new(most).within(RELEASE_REFUSALS));
        }
    }

    /// Returns when no page is on its way to the kernel that was when it was called.
    pub(crate) fn await_releases(&self) {
        drop(self.releases.pass.lock_unless_forking());
    }

    /// Gives back what `pass` is to, by the holder of the pass; returns how many pages.
    fn release_under(&self, mut pass: Pass) -> usize {
        if !pass.goes_on() {
            return 0;
        }
        let Some(mut heap) = self.state.lock_unless_orphaned() else { return 0 };
        self.settle(&mut heap);
        if pass.tries_all() {
            self.forget_refusals(&mut heap);
        }
        drop(heap);
        while pass.goes_on() && self.release_longest(&mut pass) {}
        if pass.is_of_all() {
            self.unmap_untouched();
        }
        pass.released()
    }

    /// A run on no list went back, and reads as zero.
    pub(crate) fn put_released(&self, mut heap: Guard<'_, State>, id: SpanId) {
        heap.totals.released += self.span(id).pages() as u64;
        self.set_contents(&heap, id, Contents::Zero);
        self.put_free(&mut heap, id);
        heap.least_dirty = heap.least_dirty.min(heap.totals.free);
        self.unmap_whole(heap, id);
    }

    /// Unmaps the whole huge pages of a free run that reads as zero, of the process's heap.
    fn unmap_whole(&self, mut heap: Guard<'_, State>, id: SpanId) {
        let (first, pages) = whole_huge_pages(self.span(id).first_page(), self.span(id).pages());
        if pages == 0 || !self.can_unmap(&mut heap, first, pages) {
            return;
        }
        self.take_free(&mut heap, id);
        self.cut(&mut heap, id, first, pages);
        self.span(id).set_state(SpanState::Own);
        heap.totals.leaving += pages;
        drop(heap);
        // SAFETY: free pages hold nothing anybody needs, and are on no list.
        let done = unsafe { self.space.unmap(first, pages) };
        let Some(mut heap) = self.state.lock_unless_orphaned() else { return };
        heap.totals.leaving -= pages;
        if done {
            self.put_hole(&mut heap, id);
        } else {
            self.put_free(&mut heap, id);
        }
    }

    /// Whether a run may become a hole: one more, or a part of one that it lies beside.
    fn can_unmap(&self, heap: &mut Guard<'_, State>, first: usize, pages: usize) -> bool {
        if !self.space.unmaps() || !self.spare_records(heap, SPARE_RECORDS) {
            return false;
        }
        let hole = |page| self.free_at(page).is_some_and(|id| self.contents(heap, id) == Contents::Nothing);
        heap.holes < MAX_HOLES || hole(first - 1) || hole(first + pages)
    }

    /// Unmaps what was committed ahead and never used, as far as it is whole huge pages.
    fn unmap_untouched(&self) {
        if !self.space.unmaps() {
            return;
        }
        self.retract();
        let mut below = ABOVE_ALL;
        loop {
            let Some(heap) = self.state.lock_unless_orphaned() else { return };
            let Some(id) = heap.free[Contents::Zero as usize].longest_before(&self.space, below) else { return };
            let (first, pages) = (self.span(id).first_page(), self.span(id).pages());
            if pages < PAGES_PER_HUGE {
                return;
            }
            below = (pages, first);
            self.unmap_whole(heap, id);
        }
    }

    /// Gives the part of the longest dirty run back that is to go next: at most what the pass may still release, rounded
    /// up to what the source can take. False if there is no run.
    fn release_longest(&self, pass: &mut Pass) -> bool {
        let Some(mut heap) = self.state.lock_unless_orphaned() else { return false };
        let spare = self.spare_records(&mut heap, SPARE_RECORDS);
        let (unit, most) = (self.release_unit(), pass.left());
        let Some(id) = self.longest_dirty(&heap) else { return false };
        let (first, pages) = (self.span(id).first_page(), self.span(id).pages());
        let (mut from, mut length) = (first, pages);
        let (whole, whole_pages) = whole_huge_pages(first, pages);
        if whole_pages > 0 && most >= PAGES_PER_HUGE {
            (from, length) = (whole, whole_pages.min(most / PAGES_PER_HUGE * PAGES_PER_HUGE));
        } else if unit > 1 {
            from = first.next_multiple_of(unit);
            length = ((first + pages) / unit * unit).saturating_sub(from);
        }
        length = length.min(most.div_ceil(unit).saturating_mul(unit)).min(RELEASE_STEP_PAGES);
        if !spare {
            // No memory for the records of what would be cut off, so all of it goes, or nothing.
            (from, length) = (first, if unit > 1 { 0 } else { pages });
        }
        self.take_free(&mut heap, id);
        if length == 0 {
            // No part of it is a whole one of the source's.
            self.put_refused(&mut heap, id, pass);
            return true;
        }
        self.cut(&mut heap, id, from, length);
        self.span(id).set_state(SpanState::Own);
        heap.totals.leaving += length;
        drop(heap);
        self.release_parts(id, pass);
        true
    }

    /// Pages that go back together: what the source can take.
    pub(crate) fn release_unit(&self) -> usize {
        (self.space.source.release_granule() / PAGE_SIZE).max(1)
    }
}
