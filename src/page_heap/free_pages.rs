//! Which free run is taken, and how runs are cut, joined and added. All of it under the page heap's lock.
//!
//! The shortest run that fits is taken, so that whole huge pages stay whole: a run of less than 256 pages has none. Of
//! equal ones it is that in the fullest huge page, of a few, in order of address. A longer run is cut where its end
//! shares a huge page with others.

use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::config::{GROW_PAGES, PAGE_SIZE};
use crate::page_heap::huge_pages::{PAGES_PER_HUGE, PageUse};
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Span, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

/// Runs of equal length that are compared for the fullest huge page.
const COMPARED: usize = 4;

impl<S: PageSource> PageHeap<S> {
    /// Takes the best free run of at least `pages` out of its tree.
    pub(crate) fn take_best(&self, heap: &mut Guard<'_, State>, zero: bool, pages: usize) -> Option<SpanId> {
        let runs = &heap.free[zero as usize];
        let mut best = runs.first_from(&self.region, (pages, 0))?;
        let length = self.span(best).pages();
        if length < PAGES_PER_HUGE {
            let used = |id| self.region.huge(self.region.huge_of(self.span(id).first_page()).0).used();
            let mut last = best;
            for _ in 1..COMPARED {
                let next = runs.first_from(&self.region, (length, self.span(last).first_page() + 1));
                let Some(next) = next.filter(|id| self.span(*id).pages() == length) else { break };
                if used(next) > used(best) {
                    best = next;
                }
                last = next;
            }
        }
        self.take_free(heap, best);
        Some(best)
    }

    /// Where in a free span a run of `pages` goes.
    pub(crate) fn place(&self, heap: &State, span: &Span, pages: usize, align: usize) -> usize {
        let (first, end) = (span.first_page(), span.first_page() + span.pages());
        if align > PAGE_SIZE {
            let start = self.region.address(first);
            return first + (start.next_multiple_of(align) - start) / PAGE_SIZE;
        }
        // The beginning, unless a whole huge page begins there or before the run's end, and the other end has room
        // in a huge page that others use.
        let (_, head) = self.region.huge_of(first);
        let (_, tail) = self.region.huge_of(end);
        let fits_before = head > 0 && PAGES_PER_HUGE - head >= pages;
        let fits_after = tail >= pages && tail < span.pages() && end < heap.pages_used;
        if fits_after && !fits_before { end - pages } else { first }
    }

    /// Makes a span on no list one of the `pages` from `first` on, and free ones of what is around them.
    pub(crate) fn cut(&self, heap: &mut Guard<'_, State>, id: SpanId, first: usize, pages: usize) {
        let span = self.span(id);
        let (start, end) = (span.first_page(), span.first_page() + span.pages());
        // SAFETY: on no list, and we hold the lock.
        let zero = unsafe { span.locked() }.zero;
        span.set_extent(first, pages);
        for (from, to) in [(start, first), (first + pages, end)] {
            if from < to {
                let rest = self.new_span(heap, from, to - from, zero);
                self.insert_free(heap, rest);
            }
        }
    }

    /// Takes `pages` pages from `page` on out of free runs and the unused end. False if they are not free.
    pub(crate) fn absorb(&self, heap: &mut Guard<'_, State>, page: usize, pages: usize) -> bool {
        let Some(end) = page.checked_add(pages).filter(|end| *end <= self.reserved_bytes() / PAGE_SIZE) else {
            return false;
        };
        let (mut next, mut fresh) = (page, 0);
        while next < end.min(heap.pages_used) {
            let Some(id) = self.free_at(next) else { return false };
            // SAFETY: a free span is the lock's, which we hold.
            let zero = unsafe { self.span(id).locked() }.zero;
            fresh += if zero { self.span(id).pages().min(end - next) } else { 0 };
            next += self.span(id).pages();
        }
        fresh += end.saturating_sub(next.max(heap.pages_used));
        let excess = self.limits.excess(heap.held_bytes() + fresh * PAGE_SIZE);
        // Over the soft limit, `allocate` releases what is free before it takes more.
        if (fresh > 0 && (excess.hard > 0 || excess.soft > 0)) || !self.commit_to(heap, end) {
            return false;
        }
        let mut next = page;
        while next < end.min(heap.pages_used) {
            let Some(id) = self.free_at(next) else { return false };
            let length = self.span(id).pages();
            self.take_free(heap, id);
            if next + length > end {
                self.cut(heap, id, next, end - next);
            }
            next += length;
            self.forget(heap, id);
        }
        heap.pages_used = heap.pages_used.max(end);
        true
    }

    /// The free span that begins at `page`, below `pages_used`.
    fn free_at(&self, page: usize) -> Option<SpanId> {
        // By **mapped**, the entry of a page at the border of a free span is right; any other entry names a
        // span whose state or extent says that it is not such a one.
        let id = SpanId(self.region.entry(page).load(Relaxed));
        let free = id != SpanId::NONE && self.span(id).state() == SpanState::Free && self.span(id).covers(page);
        free.then_some(id)
    }

    /// Extends the used part of the reservation so that a free run of `pages`, so aligned, ends there. Free pages that
    /// read as zero and are there already become part of it. The run is on no list.
    pub(crate) fn grow(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<SpanId> {
        let used = heap.pages_used;
        let last = used.checked_sub(1).and_then(|page| self.free_at(page));
        // SAFETY: a free span is the lock's, which we hold.
        let last = last.filter(|id| unsafe { self.span(*id).locked() }.zero);
        let first = last.map_or(used, |id| self.span(id).first_page());
        let start = self.region.address(first);
        let spare = (start.checked_next_multiple_of(align.max(PAGE_SIZE))? - start) / PAGE_SIZE;
        let end = first.checked_add(pages)?.checked_add(spare)?.max(used);
        if !self.commit_to(heap, end) {
            return None;
        }
        heap.pages_used = end;
        match last {
            Some(id) => {
                self.take_free(heap, id);
                self.span(id).set_extent(first, end - first);
                Some(id)
            }
            None => Some(self.new_span(heap, first, end - first, true)),
        }
    }

    /// Commits pages up to `end`, if they are not. False if memory is exhausted.
    fn commit_to(&self, heap: &mut Guard<'_, State>, end: usize) -> bool {
        let limit = self.reserved_bytes() / PAGE_SIZE;
        if end <= heap.pages_committed {
            return true;
        }
        let rounded = end.next_multiple_of(GROW_PAGES).min(limit);
        if end > limit || !self.region.commit(heap.pages_committed, rounded) {
            return false;
        }
        heap.pages_committed = rounded;
        true
    }

    /// A span over pages that belong to no other. Every span has a page of its own, so the table suffices.
    pub(crate) fn new_span(&self, heap: &mut Guard<'_, State>, first: usize, pages: usize, zero: bool) -> SpanId {
        let mut id = heap.unused;
        if id == SpanId::NONE {
            heap.spans_used += 1; // from 1: 0 is no span
            id = SpanId(heap.spans_used);
        } else {
            // SAFETY: unused entries belong to the lock, which we hold.
            heap.unused = unsafe { self.span(id).locked() }.next;
        }
        let span = self.span(id);
        span.set_extent(first, pages);
        // SAFETY: nobody else knows of the entry.
        unsafe { span.locked() }.zero = zero;
        id
    }

    /// Gives a table entry back whose span has no pages any more.
    fn forget(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.span(id).set_state(SpanState::Unused);
        // SAFETY: on no list, and we hold the lock.
        unsafe { self.span(id).locked() }.next = heap.unused;
        heap.unused = id;
    }

    /// Joins a span on no list with its free neighbours of the same kind and puts it on its list.
    pub(crate) fn put_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        // SAFETY: the span is on no list and in nobody's use; we hold the lock.
        let zero = unsafe { span.locked() }.zero;
        let before = span.first_page().checked_sub(1);
        let after = Some(span.first_page() + span.pages()).filter(|page| *page < heap.pages_used);
        for page in [before, after].into_iter().flatten() {
            let Some(neighbour) = self.free_at(page) else { continue };
            let other = self.span(neighbour);
            // SAFETY: a free span is the lock's, which we hold.
            if unsafe { other.locked() }.zero != zero {
                continue;
            }
            self.take_free(heap, neighbour);
            span.set_extent(span.first_page().min(other.first_page()), span.pages() + other.pages());
            self.forget(heap, neighbour);
        }
        self.insert_free(heap, id);
    }

    fn insert_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.span(id).set_state(SpanState::Free);
        let (first, pages) = self.count_free(heap, id, true);
        self.region.entry(first).store(id.0, Release);
        self.region.entry(first + pages - 1).store(id.0, Release);
    }

    pub(crate) fn take_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.count_free(heap, id, false);
    }

    fn count_free(&self, heap: &mut Guard<'_, State>, id: SpanId, into: bool) -> (usize, usize) {
        let span = self.span(id);
        let (first, pages) = (span.first_page(), span.pages());
        // SAFETY: a free span is the lock's, which we hold.
        let zero = unsafe { span.locked() }.zero;
        let runs = &mut heap.free[zero as usize];
        if into {
            runs.insert(&self.region, id)
        } else {
            runs.remove(&self.region, id)
        }
        let total = if zero { &mut heap.totals.zero } else { &mut heap.totals.free };
        *total = if into { *total + pages } else { *total - pages };
        if !zero {
            self.region.count(first, pages, PageUse::Dirty, into);
            self.dirty.store(heap.totals.free, Relaxed);
        }
        (first, pages)
    }

    /// The longest dirty run of fewer than `below` pages.
    pub(crate) fn longest_dirty(&self, heap: &State, below: usize) -> Option<SpanId> {
        heap.free[0].longest_below(&self.region, below)
    }
}
