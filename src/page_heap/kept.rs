//! The large run that was freed last, kept as it was for who asks for as many pages next.
//!
//! A buffer that comes and goes would be cut off a free run each time and joined with it again: eight walks through
//! trees for a pair of operations. One run is left out of the trees instead (deferred coalescing: Wilson et al., *Dynamic
//! Storage Allocation: A Survey*, 1995, 3.8). It counts as free pages with old data, and is put where it belongs before
//! anything else looks at free runs.

use core::sync::atomic::Ordering::Relaxed;

use crate::page_heap::huge_pages::PageUse;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

impl<S: PageSource> PageHeap<S> {
    /// Keeps a span that was large, whose pages hold old data. The one kept before is put where it belongs.
    pub(crate) fn keep(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        self.settle(heap);
        heap.kept = id;
        self.span(id).set_state(SpanState::Kept);
        self.count_kept(heap, id, true);
    }

    /// The run that is kept, if it has so many pages and is so aligned: it is large again.
    pub(crate) fn take_kept(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<SpanId> {
        let id = Some(heap.kept).filter(|id| *id != SpanId::NONE)?;
        if self.span(id).pages() != pages || !self.start(id).is_multiple_of(align) {
            return None;
        }
        heap.kept = SpanId::NONE;
        self.count_kept(heap, id, false);
        heap.totals.large += pages;
        heap.least_dirty = heap.least_dirty.min(heap.totals.free);
        self.span(id).set_state(SpanState::Large);
        Some(id)
    }

    /// The run that is kept becomes a free one among others.
    pub(crate) fn settle(&self, heap: &mut Guard<'_, State>) {
        let id = core::mem::replace(&mut heap.kept, SpanId::NONE);
        if id == SpanId::NONE {
            return;
        }
        self.count_kept(heap, id, false);
        let span = self.span(id);
        self.space.count(span.first_page(), span.pages(), PageUse::Used, false);
        self.set_contents(heap, id, Contents::Old);
        self.put_free(heap, id);
    }

    /// Its huge pages count it as used: whoever asks for them settles first.
    fn count_kept(&self, heap: &mut Guard<'_, State>, id: SpanId, into: bool) {
        let (free, pages) = (&mut heap.totals.free, self.span(id).pages());
        *free = if into { *free + pages } else { *free - pages };
        self.dirty.store(*free, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PAGE_SIZE;
    use crate::page_heap::source::Mmap;

    #[test]
    fn a_run_of_the_same_length_is_the_one_freed_last() {
        let heap = PageHeap::new(Mmap::new(), 64 << 20);
        let large = |pages| heap.allocate(pages, 1, SpanState::Large).expect("memory").id;
        let (first, second, behind) = (large(8), large(8), large(3));
        let starts = [heap.start(first), heap.start(second)];
        // SAFETY: here and below: in use, and nobody uses its pages.
        unsafe { heap.release(first, false) };
        assert_eq!((heap.dirty_pages(), heap.span_of(starts[0])), (8, None));
        let again = large(8);
        assert_eq!((heap.start(again), heap.dirty_pages(), heap.totals().large), (starts[0], 0, 19));
        // SAFETY: as above.
        unsafe {
            heap.release(again, false);
            heap.release(second, false);
        }
        // Among the free runs, the two are one, and what is asked for comes from its beginning.
        let last = large(8);
        assert_eq!(heap.start(last), starts[1], "not the best that fits, but what was freed last");
        // SAFETY: as above.
        unsafe { heap.release(last, false) };
        // They are one by the time that anybody looks.
        assert_eq!((heap.start(large(16)), heap.totals().free), (starts[0], 0));
        assert_eq!(heap.start(behind), starts[1] + 8 * PAGE_SIZE);
        #[cfg(debug_assertions)]
        heap.check();
    }

    #[test]
    fn what_is_kept_goes_back_with_the_rest() {
        let heap = PageHeap::new(Mmap::new(), 64 << 20);
        let run = heap.allocate(8, 1, SpanState::Large).expect("memory");
        // SAFETY: in use, and nobody uses its pages.
        unsafe { heap.release(run.id, false) };
        assert_eq!((heap.release_free(), heap.totals().free, heap.dirty_pages()), (8 * PAGE_SIZE, 0, 0));
    }
}
