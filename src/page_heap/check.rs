//! The page heap's invariants as code: walked in debug builds, when nobody uses the heap.

#![cfg(debug_assertions)]

use core::sync::atomic::Ordering::Relaxed;

use crate::config::PAGE_SIZE;
use crate::message::law;
use crate::page_heap::huge_pages::PageUse;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, Span, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};

/// Pages by use, as the records of spans say.
#[derive(Default, PartialEq, Eq, Debug)]
struct Counts {
    small: usize,
    large: usize,
    own: usize,
    old: usize,
    refused: usize,
    zero: usize,
    holes: usize,
    unused: usize,
}

impl<S: PageSource> PageHeap<S> {
    /// Walks the heap, at rest. Ends the process where one of these does not hold:
    ///
    /// * **mapped**: the first and the last page of a span name it, and every page of a small one; so no page is in two.
    /// * **counted**: the totals, and with them `held_bytes`, are the sums over the spans.
    /// * **listed**: the trees of free runs hold those runs that the spans say are free, in order, each within its heap.
    /// * **committed**: what is committed is in a span, or ahead of the frontier.
    /// * **packed**: the counts of each huge page are those of its pages' spans.
    pub(crate) fn check(&self) {
        let mut heap = self.state.lock();
        self.settle(&mut heap);
        let mut counts = Counts::default();
        for id in (1..=heap.records).map(SpanId) {
            self.check_span(&heap, id, &mut counts);
        }
        let totals = &heap.totals;
        let known = Counts {
            small: totals.small,
            large: totals.large,
            own: totals.own + totals.leaving,
            old: totals.free,
            refused: heap.refused,
            zero: totals.zero,
            holes: heap.holes,
            unused: heap.unused_count as usize,
        };
        law!(counts == known, "counted: the totals are the sums over the spans");
        let used = counts.small + counts.large + counts.own + counts.old;
        let ahead = heap.frontier.committed - heap.frontier.next;
        law!(totals.committed == used + counts.zero + ahead, "committed: what is committed is in a span, or ahead");
        let tables = heap.records as usize * size_of::<Span>() + heap.tables;
        law!(heap.held_bytes() == used * PAGE_SIZE + tables, "counted: what is held is the sum over the spans");
        for contents in Contents::ALL {
            let (mut previous, mut runs) = ((0, 0), 0);
            while let Some(id) = heap.free[contents as usize].first_from(&self.space, (previous.0, previous.1 + 1)) {
                let key = (self.span(id).pages(), self.span(id).first_page());
                law!(key > previous, "listed: free runs are in order");
                let listed = self.span(id).state() == SpanState::Free && self.contents(&heap, id) == contents;
                law!(listed, "listed: what is in a tree of free runs is free");
                (previous, runs) = (key, runs + 1);
            }
            let free = |id: &SpanId| self.span(*id).state() == SpanState::Free && self.contents(&heap, *id) == contents;
            let all = (1..=heap.records).map(SpanId).filter(free).count();
            law!(all == runs, "listed: what is free is in a tree");
        }
        let (mut used_pages, mut dirty, mut in_use) = (0, 0, 0);
        self.space.for_each_huge(|huge| {
            used_pages += huge.count(PageUse::Used);
            dirty += huge.count(PageUse::Dirty);
            in_use += huge.count(PageUse::Known);
            let [used, dirty, known] = [PageUse::Used, PageUse::Dirty, PageUse::Known].map(|what| huge.count(what));
            law!(used + dirty <= known, "packed: a huge page has the pages that it counts");
        });
        let packed = used_pages == counts.small + counts.large + totals.own;
        law!(packed && dirty == counts.old && in_use == used + counts.zero, "packed: huge pages count what spans say");
    }

    fn check_span(&self, heap: &crate::sync::Guard<'_, State>, id: SpanId, counts: &mut Counts) {
        let span = self.span(id);
        let (first, pages) = (span.first_page(), span.pages());
        let names = |page: usize| self.space.entry(page).is_some_and(|entry| entry.load(Relaxed) == id.0);
        let counter = match span.state() {
            SpanState::Unused => {
                counts.unused += 1;
                return;
            }
            SpanState::Small => {
                law!((first..first + pages).all(names), "mapped: every page of a small span names it");
                &mut counts.small
            }
            SpanState::Large => &mut counts.large,
            // None is kept any more.
            SpanState::Own | SpanState::Kept => &mut counts.own,
            SpanState::Free => match self.contents(heap, id) {
                Contents::Refused => {
                    counts.refused += pages;
                    &mut counts.old
                }
                Contents::Old => &mut counts.old,
                Contents::Zero => &mut counts.zero,
                Contents::Nothing => {
                    // Its borders may lie where the heap never was.
                    counts.holes += 1;
                    return;
                }
            },
        };
        law!(pages > 0 && names(first) && names(first + pages - 1), "mapped: the borders of a span name it");
        *counter += pages;
    }
}
