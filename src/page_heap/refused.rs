//! What the kernel does not take back: pages that the program locked (`mlock`, `mlockall`) and freed, or all, where a
//! filter refuses the call.
//!
//! They are passed over. A run that is refused as a whole is halved until what is refused is one page, and the others go
//! back. Where many are refused in a row, as all are under `mlockall`, the steps grow with the row: so a run costs some
//! hundred calls at most, and at most a 32nd more than what is refused is passed over with it.
//!
//! What was refused is free memory like other old data, but not tried again by itself ([`Contents::Refused`]): only if
//! what is beside it becomes free, which makes one run of both, or if all is asked for. A thread that has other things
//! to do makes a bounded number of calls in vain; the next pass goes on.

use core::ptr::NonNull;

use crate::config::PAGE_SIZE;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, SpanId};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

/// Of a row of refused pages, so large a part is tried at a time as its next.
const PART_OF_ROW: usize = 32;

/// One walk over what is free.
pub(crate) struct Pass {
    /// Pages to be released.
    most: usize,
    /// Pages to be released or refused.
    due: usize,
    /// Calls that may be refused.
    bound: usize,
    released: usize,
    refused: usize,
    refusals: usize,
}

impl Pass {
    /// Releases up to so many pages, and tries those again that were refused.
    pub fn new(most: usize) -> Pass {
        Pass { most, due: usize::MAX, bound: usize::MAX, released: 0, refused: 0, refusals: 0 }
    }

    /// Of so many pages, those that are refused among them.
    pub fn of(self, due: usize) -> Pass {
        Pass { due, ..self }
    }

    /// With at most so many calls in vain, and none for what was refused before.
    pub fn within(self, bound: usize) -> Pass {
        Pass { bound, ..self }
    }

    pub fn goes_on(&self) -> bool {
        self.left() > 0 && !self.is_spent()
    }

    fn is_spent(&self) -> bool {
        self.refusals >= self.bound
    }

    /// Pages still to be released.
    pub fn left(&self) -> usize {
        let due = self.due.saturating_sub(self.released).saturating_sub(self.refused);
        self.most.saturating_sub(self.released).min(due)
    }

    pub fn tries_all(&self) -> bool {
        self.bound == usize::MAX
    }

    pub fn is_of_all(&self) -> bool {
        self.most == usize::MAX
    }

    pub fn released(&self) -> usize {
        self.released
    }
}

impl State {
    /// Fewest free pages with old data since the period began, and how many of these may go back.
    pub(crate) fn least_dirty(&self) -> (usize, usize) {
        (self.least_dirty, self.least_dirty.saturating_sub(self.refused))
    }
}

impl<S: PageSource> PageHeap<S> {
    /// Gives a dirty run back that is on its way, but for what is refused.
    pub(crate) fn release_parts(&self, id: SpanId, pass: &mut Pass) {
        let (span, unit) = (self.span(id), self.release_unit());
        // Of the first so many pages some are refused.
        let mut suspect = usize::MAX;
        let mut row = 0;
        loop {
            let (first, pages) = (span.first_page(), span.pages());
            let length = match row {
                0 if suspect > pages => pages,
                0 => suspect / 2 / unit * unit,
                _ => row / PART_OF_ROW / unit * unit,
            };
            let length = length.max(unit).min(pages);
            let done = suspect > unit && self.give_back(first, length);
            pass.refusals += usize::from(!done);
            let halves = !done && row == 0 && length > unit;
            if halves && !pass.is_spent() {
                suspect = length;
                continue;
            }
            let Some(mut heap) = self.state.lock_unless_orphaned() else { return };
            if halves {
                return self.put_back(&mut heap, id);
            }
            let is_last = length == pages;
            if !is_last && !self.spare_records(&mut heap, 1) {
                // No record for a part, so all of it stays, whatever has gone back.
                heap.totals.leaving -= pages;
                return self.put_refused(&mut heap, id, pass);
            }
            let mut part = id;
            if !is_last {
                part = self.new_span(&mut heap, first, length, Contents::Old);
                span.set_extent(first + length, pages - length);
            }
            heap.totals.leaving -= length;
            if done {
                pass.released += length;
                suspect -= if suspect > pages { 0 } else { length };
                row = 0;
                self.put_released(heap, part);
            } else {
                suspect = usize::MAX;
                row += length;
                self.put_refused(&mut heap, part, pass);
            }
            if is_last {
                return;
            }
            // Not within a row, which the rest would be joined with.
            if done && pass.is_spent() {
                let Some(mut heap) = self.state.lock_unless_orphaned() else { return };
                return self.put_back(&mut heap, id);
            }
        }
    }

    /// Has the source take pages on their way.
    fn give_back(&self, first: usize, pages: usize) -> bool {
        NonNull::new((first * PAGE_SIZE) as *mut u8)
            // SAFETY: free pages hold nothing anybody needs, and are on no list.
            .is_some_and(|start| unsafe { self.space.source.release(start, pages * PAGE_SIZE) })
    }

    /// A dirty run that was on its way is free as before.
    fn put_back(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        heap.totals.leaving -= self.span(id).pages();
        self.put_free(heap, id);
    }

    /// A run on no list was refused.
    pub(crate) fn put_refused(&self, heap: &mut Guard<'_, State>, id: SpanId, pass: &mut Pass) {
        pass.refused += self.span(id).pages();
        self.set_contents(heap, id, Contents::Refused);
        self.put_free(heap, id);
    }

    /// What was refused may be tried again.
    pub(crate) fn forget_refusals(&self, heap: &mut Guard<'_, State>) {
        while let Some(id) = heap.free[Contents::Refused as usize].first_from(&self.space, (0, 0)) {
            self.take_free(heap, id);
            self.set_contents(heap, id, Contents::Old);
            self.put_free(heap, id);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::vec::Vec;

    use super::*;
    use crate::config::{RELEASE_REFUSALS, RELEASE_STEP_PAGES};
    use crate::page_heap::huge_pages::PAGES_PER_HUGE;
    use crate::page_heap::source::Mmap;
    use crate::page_heap::span::SpanState;

    /// A source that refuses every range with a locked page in it, as the kernel does.
    struct Locking {
        inner: Mmap,
        locked: Mutex<BTreeSet<usize>>,
        refusals: Mutex<usize>,
    }

    impl Locking {
        fn lock(&self, pages: impl Iterator<Item = usize>) {
            self.locked.lock().expect("no panic").extend(pages);
        }

        fn unlock_all(&self) {
            self.locked.lock().expect("no panic").clear();
        }

        /// Calls in vain since this was asked last.
        fn refusals(&self) -> usize {
            core::mem::take(&mut self.refusals.lock().expect("no panic"))
        }
    }

    // SAFETY: does what `Mmap` does, or nothing.
    unsafe impl PageSource for Locking {
        fn release_granule(&self) -> usize {
            self.inner.release_granule()
        }

        fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
            self.inner.reserve(bytes)
        }

        unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
            // SAFETY: by our own contract, here and below.
            unsafe { self.inner.unreserve(start, bytes) };
        }

        unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
            // SAFETY: as above.
            unsafe { self.inner.commit(start, bytes) }
        }

        unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
            let first = start.addr().get() / PAGE_SIZE;
            if self.locked.lock().expect("no panic").range(first..first + bytes / PAGE_SIZE).next().is_some() {
                *self.refusals.lock().expect("no panic") += 1;
                return false;
            }
            // SAFETY: as above.
            unsafe { self.inner.release(start, bytes) }
        }
    }

    fn heap() -> PageHeap<Locking> {
        let source = Locking { inner: Mmap::new(), locked: Mutex::default(), refusals: Mutex::default() };
        PageHeap::new(source, 1 << 30)
    }

    /// Frees a run of so many pages; its first page.
    fn free_run(heap: &PageHeap<Locking>, pages: usize) -> usize {
        free_run_at(heap, pages, 1)
    }

    fn free_run_at(heap: &PageHeap<Locking>, pages: usize, align: usize) -> usize {
        let run = heap.allocate(pages, align, SpanState::Large).expect("memory");
        let first = heap.span(run.id).first_page();
        // SAFETY: in use, and nobody uses its pages.
        unsafe { heap.release(run.id, false) };
        first
    }

    fn is_whole(heap: &PageHeap<Locking>) {
        let state = heap.state.lock();
        assert_eq!(state.totals.leaving, 0, "nothing is on its way");
        drop(state);
        #[cfg(debug_assertions)]
        heap.check();
    }

    #[test]
    fn all_but_locked_pages_goes_back() {
        // One at the beginning, in the middle, at the end; a few in a row; some apart; every second one.
        let places: [&[usize]; 7] =
            [&[], &[0], &[1700], &[2999], &[10, 11, 12, 13, 14, 15], &[3, 700, 702, 2048, 2049], &[6, 8, 10, 12]];
        for locked in places {
            let heap = heap();
            let first = free_run(&heap, 3000);
            heap.source().lock(locked.iter().map(|page| first + page));
            assert_eq!(heap.release_pages(usize::MAX), 3000 - locked.len(), "{locked:?}");
            let totals = heap.totals();
            assert_eq!((totals.free, totals.zero), (locked.len(), 3000 - locked.len()), "{locked:?}");
            assert!(heap.source().refusals() <= 14 * locked.len(), "{locked:?}");
            is_whole(&heap);
            // They are not tried again by themselves, but for who asks, and nothing is lost when they are unlocked.
            assert_eq!(heap.dirty_pages(), 0);
            heap.release_some(usize::MAX);
            heap.tend();
            assert_eq!((heap.source().refusals(), heap.release_pages(usize::MAX)), (0, 0));
            heap.source().unlock_all();
            assert_eq!((heap.release_pages(usize::MAX), heap.totals().free), (locked.len(), 0));
            is_whole(&heap);
            assert_eq!(free_run(&heap, 3000), first, "all of it is one run");
        }
    }

    #[test]
    fn of_a_long_locked_row_few_calls_are_made() {
        let heap = heap();
        // Whole huge pages: what lies before and behind them would be runs of their own.
        let first = free_run_at(&heap, RELEASE_STEP_PAGES, PAGES_PER_HUGE * PAGE_SIZE);
        let (before, behind) = (100, RELEASE_STEP_PAGES / 8);
        let (locked, others) = (RELEASE_STEP_PAGES - before - behind, before + behind);
        heap.source().lock(first + before..first + before + locked);
        let released = heap.release_pages(usize::MAX);
        assert!((others - locked / PART_OF_ROW..=others).contains(&released), "{released} of {others} went back");
        let calls = heap.source().refusals();
        assert!(calls < 300, "{calls} calls for a row of {locked} pages");
        is_whole(&heap);
        // Locked pages serve as others do, and before fresh ones.
        let again = heap.allocate(locked, 1, SpanState::Large).expect("memory");
        assert!((first..first + RELEASE_STEP_PAGES).contains(&heap.span(again.id).first_page()));
        is_whole(&heap);
    }

    /// More are locked than a pass may try. All of the rest goes back in some passes, and each makes few calls.
    #[test]
    fn one_pass_goes_on_where_another_ended() {
        let heap = heap();
        let runs: Vec<_> = (0..2000).map(|n| heap.allocate(4 + n % 2, 1, SpanState::Large).expect("memory")).collect();
        let walls: Vec<_> = runs.iter().skip(1).step_by(2).collect();
        // Every second run stays in use, and of those of five pages between them all but the last hundred are locked.
        let between: Vec<_> = runs.iter().step_by(2).collect();
        for run in &between[..900] {
            let first = heap.span(run.id).first_page();
            heap.source().lock(first..first + 1);
        }
        for run in &between {
            // SAFETY: in use, and nobody uses its pages.
            unsafe { heap.release(run.id, false) };
        }
        assert_eq!(walls.len(), 1000);
        let mut passes = 0;
        while heap.dirty_pages() > 0 {
            passes += 1;
            assert!(passes < 20, "{} pages left", heap.dirty_pages());
            heap.release_some(usize::MAX);
            let calls = heap.source().refusals();
            assert!(calls <= RELEASE_REFUSALS, "{calls} calls in vain in one pass");
            is_whole(&heap);
        }
        assert_eq!(heap.totals().free, 900);
        // A page more, and the next period tries them again.
        free_run(&heap, 1);
        assert!(heap.dirty_pages() > 0);
    }

    /// Where nothing goes back, what was free for a period is tried once, and then no more.
    #[test]
    fn a_source_that_takes_nothing_is_asked_once() {
        const PAGES: usize = (40 << 20) / PAGE_SIZE;
        let heap = heap();
        let first = free_run(&heap, PAGES);
        heap.source().lock(first..first + PAGES);
        heap.releases.set_policy(crate::page_heap::release::Policy::Now);
        heap.tend();
        let calls = heap.source().refusals();
        assert!((1..=RELEASE_REFUSALS).contains(&calls), "{calls} calls");
        for _ in 0..100 {
            heap.tend();
        }
        assert_eq!((heap.source().refusals(), heap.totals().free), (0, PAGES));
        is_whole(&heap);
        assert_eq!(free_run(&heap, PAGES), first, "as one run");
    }
}
