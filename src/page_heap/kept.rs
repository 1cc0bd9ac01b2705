//! The large runs that were freed last, kept as they were for who asks for as many pages next.
//!
//! A buffer that comes and goes would be cut off a free run each time and joined with it again: eight walks through
//! trees for a pair of operations. A few runs are left out of the trees instead (deferred coalescing: Wilson et al.,
//! *Dynamic Storage Allocation: A Survey*, 1995, 3.8). They count as free pages with old data, and are put where they
//! belong before anything else looks at free runs.

use crate::config::PAGE_SIZE;
use crate::page_heap::huge_pages::PageUse;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{Contents, SpanId, SpanState};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

/// How many: what a program frees in a row before it asks again, and so few that they are looked through at once.
const RUNS: usize = 16;
/// Pages of them together, but for the last one, which may be longer: those kept are handed out by age and not by address,
/// and where long runs lie scattered, what is between them is too short for the next.
const PAGES: usize = (1 << 20) / PAGE_SIZE;

/// The runs that are kept, in the order they were freed.
pub struct Kept {
    runs: [Entry; RUNS],
    count: usize,
    /// Of all of them.
    pages: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    id: SpanId,
    pages: usize,
}

impl Kept {
    /// None is kept.
    pub const EMPTY: Kept = Kept { runs: [Entry { id: SpanId::NONE, pages: 0 }; RUNS], count: 0, pages: 0 };

    fn remove(&mut self, index: usize) -> Entry {
        let run = self.runs[index];
        self.runs.copy_within(index + 1..self.count, index);
        self.count -= 1;
        self.pages -= run.pages;
        run
    }
}

impl<S: PageSource> PageHeap<S> {
    /// Keeps a span that was large, whose pages hold old data. What makes room for it is what was kept longest, and is put
    /// where it belongs.
    pub(crate) fn keep(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        while heap.kept.count == RUNS || (heap.kept.count > 0 && heap.kept.pages + span.pages() > PAGES) {
            let oldest = heap.kept.remove(0);
            self.put_kept(heap, oldest.id);
        }
        let kept = &mut heap.kept;
        kept.pages += span.pages();
        kept.runs[kept.count] = Entry { id, pages: span.pages() };
        kept.count += 1;
        span.set_state(SpanState::Kept);
        self.count_kept(heap, span.pages() as isize);
    }

    /// The run freed last of those kept that have so many pages and are so aligned: it is large again.
    pub(crate) fn take_kept(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<SpanId> {
        let kept = &mut heap.kept;
        let fits = |run: &Entry| run.pages == pages && self.start(run.id).is_multiple_of(align);
        let index = kept.runs[..kept.count].iter().rposition(fits)?;
        let Entry { id, .. } = kept.remove(index);
        self.count_kept(heap, -(pages as isize));
        heap.totals.large += pages;
        heap.least_dirty = heap.least_dirty.min(heap.totals.free);
        self.span(id).set_state(SpanState::Large);
        Some(id)
    }

    /// The runs that are kept become free ones among others.
    pub(crate) fn settle(&self, heap: &mut Guard<'_, State>) {
        while heap.kept.count > 0 {
            let last = heap.kept.count - 1;
            let run = heap.kept.remove(last);
            self.put_kept(heap, run.id);
        }
    }

    /// Its huge pages have counted it as used: whoever asks for them settles first.
    fn put_kept(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        self.count_kept(heap, -(span.pages() as isize));
        self.space.count(span.first_page(), span.pages(), PageUse::Used, false);
        self.set_contents(heap, id, Contents::Old);
        self.put_free(heap, id);
    }

    fn count_kept(&self, heap: &mut Guard<'_, State>, pages: isize) {
        heap.totals.free = heap.totals.free.wrapping_add_signed(pages);
        self.note_dirty(heap);
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
        // Among free runs, the two would be one, and what is asked for would come from its beginning.
        let last = large(8);
        assert_eq!(heap.start(last), starts[1], "not the first that fits, but what was freed last");
        // SAFETY: as above.
        unsafe { heap.release(last, false) };
        // They are one by the time that anybody looks.
        assert_eq!((heap.start(large(16)), heap.totals().free), (starts[0], 0));
        assert_eq!(heap.start(behind), starts[1] + 8 * PAGE_SIZE);
        #[cfg(debug_assertions)]
        heap.check();
    }

    #[test]
    fn runs_freed_in_a_row_are_found_by_length_and_the_oldest_make_room() {
        let heap = PageHeap::new(Mmap::new(), 64 << 20);
        let large = |pages| heap.allocate(pages, 1, SpanState::Large).expect("memory").id;
        // Of ten lengths, each between two runs in use.
        let length = |n| 1 + n % 10;
        let runs: [_; RUNS + 4] = core::array::from_fn(|n| [large(length(n)), large(1)]);
        let starts = runs.map(|[run, _]| heap.start(run));
        for [run, _] in &runs {
            // SAFETY: here and below: in use, and nobody uses its pages.
            unsafe { heap.release(*run, false) };
        }
        let mut free: usize = (0..RUNS + 4).map(length).sum();
        assert_eq!((heap.dirty_pages(), heap.state.lock().kept.count), (free, RUNS));
        // From the middle, the end and the beginning of what is kept, the last of a length first; then one that made room.
        for (n, left) in [(10, 15), (19, 14), (9, 13), (14, 12), (4, 11), (13, 10), (3, 0)] {
            assert_eq!((heap.start(large(length(n))), heap.state.lock().kept.count), (starts[n], left), "{n}");
            free -= length(n);
            assert_eq!(heap.dirty_pages(), free);
        }
        // A long one is kept alone.
        let released = [(3, 1), (4, 2), (PAGES - 4, 2), (4, 2), (PAGES + 1, 1), (1, 1)];
        for (run, count) in released.map(|(pages, count)| (large(pages), count)) {
            // SAFETY: as above.
            unsafe { heap.release(run, false) };
            assert_eq!(heap.state.lock().kept.count, count, "{} pages", heap.span(run).pages());
        }
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
