//! Which free run is taken, and how runs are cut and joined. All of it under the page heap's lock.
//!
//! The shortest run that fits is taken, so that whole huge pages stay whole: a run of less than 256 pages has none. Of
//! equal ones it is that in the fullest huge page, of a few, in order of address. A longer run is cut where its end
//! shares a huge page with others.

use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::config::PAGE_SIZE;
use crate::page_heap::free_runs::ABOVE_ALL;
use crate::page_heap::huge_pages::{HugePage, PAGES_PER_HUGE, PageUse, huge_of};
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, Span, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

/// Runs of equal length that are compared for the fullest huge page.
const COMPARED: usize = 4;

/// Records of spans that an operation may need, and that are made before it begins.
pub(crate) const SPARE_RECORDS: u32 = 8;

impl<S: PageSource> PageHeap<S> {
    /// Takes the best free run of at least `pages` out of its tree.
    pub(crate) fn take_best(&self, heap: &mut Guard<'_, State>, contents: Contents, pages: usize) -> Option<SpanId> {
        let first = |contents: Contents| heap.free[contents as usize].first_from(&self.space, (pages, 0));
        // What was refused is as resident as other old data.
        let refused = if contents == Contents::Old { first(Contents::Refused) } else { None };
        let shortest = |id: &SpanId| self.span(*id).pages();
        let mut best = first(contents).into_iter().chain(refused).min_by_key(shortest)?;
        let runs = &heap.free[self.contents(heap, best) as usize];
        let length = self.span(best).pages();
        if length < PAGES_PER_HUGE {
            let used = |id| self.space.huge(huge_of(self.span(id).first_page()).0).map_or(0, HugePage::used);
            let mut last = best;
            for _ in 1..COMPARED {
                let next = runs.first_from(&self.space, (length, self.span(last).first_page() + 1));
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
            return first.next_multiple_of(align / PAGE_SIZE);
        }
        // The beginning, unless a whole huge page begins there or before the run's end, and the other end has room
        // in a huge page that others use.
        let (_, head) = huge_of(first);
        let (_, tail) = huge_of(end);
        let fits_before = head > 0 && PAGES_PER_HUGE - head >= pages;
        let fits_after = tail >= pages && tail < span.pages() && end != heap.frontier.next;
        if fits_after && !fits_before { end - pages } else { first }
    }

    /// Makes a span on no list one of the `pages` from `first` on, and free ones of what is around them.
    pub(crate) fn cut(&self, heap: &mut Guard<'_, State>, id: SpanId, first: usize, pages: usize) {
        let span = self.span(id);
        let (start, end) = (span.first_page(), span.first_page() + span.pages());
        let contents = self.contents(heap, id);
        span.set_extent(first, pages);
        for (from, to) in [(start, first), (first + pages, end)] {
            if from < to {
                let rest = self.new_span(heap, from, to - from, contents);
                self.insert_free(heap, rest);
            }
        }
    }

    /// What the pages of a span hold that is free, or on no list.
    pub(crate) fn contents(&self, _heap: &Guard<'_, State>, id: SpanId) -> Contents {
        // SAFETY: such a span is the lock's, which we hold.
        unsafe { self.span(id).locked() }.contents
    }

    /// Says what the pages of a span on no list hold.
    pub(crate) fn set_contents(&self, _heap: &Guard<'_, State>, id: SpanId, contents: Contents) {
        // SAFETY: as above.
        unsafe { self.span(id).locked() }.contents = contents;
    }

    /// The free span that `page` is the first or the last page of.
    pub(crate) fn free_at(&self, page: usize) -> Option<SpanId> {
        // By **mapped**, the entry of a page at the border of a free span is right; any other entry names a
        // span whose state or extent says that it is not such a one.
        let id = SpanId(self.space.entry(page)?.load(Relaxed));
        let free = id != SpanId::NONE && self.span(id).state() == SpanState::Free && self.span(id).covers(page);
        free.then_some(id)
    }

    /// Whether the hard limit lets so many bytes more be held.
    pub(crate) fn fits(&self, heap: &State, bytes: usize) -> bool {
        self.limits.excess(heap.held_bytes().saturating_add(bytes)).hard == 0
    }

    /// Makes records until there are `count` that no span uses. False if there is no memory for one, or the hard limit
    /// forbids it.
    pub(crate) fn spare_records(&self, heap: &mut Guard<'_, State>, count: u32) -> bool {
        while heap.unused_count < count {
            let id = SpanId(heap.records + 1); // from 1: 0 is no span
            if !self.fits(heap, size_of::<Span>()) || !self.space.make_record(id) {
                return false;
            }
            heap.records += 1;
            self.put_record(heap, id);
        }
        true
    }

    fn put_record(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.span(id).set_state(SpanState::Unused);
        // SAFETY: on no list, and we hold the lock.
        unsafe { self.span(id).locked() }.next = heap.unused;
        heap.unused = id;
        heap.unused_count += 1;
    }

    /// A span over pages that belong to no other. There is a spare record.
    pub(crate) fn new_span(
        &self,
        heap: &mut Guard<'_, State>,
        first: usize,
        pages: usize,
        contents: Contents,
    ) -> SpanId {
        let id = heap.unused;
        debug_assert!(id != SpanId::NONE, "whoever makes spans saw to it that there are records");
        let span = self.span(id);
        // SAFETY: unused records belong to the lock, which we hold.
        let locked = unsafe { span.locked() };
        heap.unused = locked.next;
        heap.unused_count -= 1;
        locked.contents = contents;
        span.set_extent(first, pages);
        id
    }

    /// Gives the record of a span back that has no pages any more.
    pub(crate) fn forget(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.put_record(heap, id);
    }

    /// Joins a span on no list with its free neighbours of the same kind and puts it on its list.
    pub(crate) fn put_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.join(heap, id);
        self.insert_free(heap, id);
    }

    /// To be called where the number of free pages with old data has changed.
    pub(crate) fn note_dirty(&self, heap: &State) {
        self.dirty.store(heap.totals.free - heap.refused, Relaxed);
    }

    /// Joins a span on no list with its free neighbours of the same kind.
    pub(crate) fn join(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        let contents = self.contents(heap, id);
        for page in [span.first_page() - 1, span.first_page() + span.pages()] {
            let Some(neighbour) = self.free_at(page) else { continue };
            let other = self.span(neighbour);
            // What was refused is tried again with what is free beside it since.
            let other_contents = self.contents(heap, neighbour);
            if other_contents != contents && (contents, other_contents) != (Contents::Old, Contents::Refused) {
                continue;
            }
            self.take_free(heap, neighbour);
            span.set_extent(span.first_page().min(other.first_page()), span.pages() + other.pages());
            self.forget(heap, neighbour);
        }
    }

    pub(crate) fn insert_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.span(id).set_state(SpanState::Free);
        let (first, pages) = self.count_free(heap, id, true);
        for page in [first, first + pages - 1] {
            if let Some(entry) = self.space.entry(page) {
                entry.store(id.0, Release);
            }
        }
    }

    pub(crate) fn take_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.count_free(heap, id, false);
    }

    fn count_free(&self, heap: &mut Guard<'_, State>, id: SpanId, into: bool) -> (usize, usize) {
        let span = self.span(id);
        let (first, pages) = (span.first_page(), span.pages());
        let contents = self.contents(heap, id);
        let runs = &mut heap.free[contents as usize];
        if into {
            runs.insert(&self.space, id);
        } else {
            runs.remove(&self.space, id);
        }
        let (total, change) = match contents {
            Contents::Old | Contents::Refused => (&mut heap.totals.free, pages),
            Contents::Zero => (&mut heap.totals.zero, pages),
            Contents::Nothing => (&mut heap.holes, 1),
        };
        *total = if into { *total + change } else { *total - change };
        if contents == Contents::Refused {
            heap.refused = if into { heap.refused + pages } else { heap.refused - pages };
        }
        if contents.is_old() {
            self.space.count(first, pages, PageUse::Dirty, into);
            self.note_dirty(heap);
        }
        (first, pages)
    }

    /// The longest dirty run that was not refused.
    pub(crate) fn longest_dirty(&self, heap: &State) -> Option<SpanId> {
        heap.free[Contents::Old as usize].longest_before(&self.space, ABOVE_ALL)
    }
}
