//! How the heap comes to more pages and gives address space up: at the frontier, in holes, or elsewhere; `space` says
//! what these are. All of it under the page heap's lock.

use crate::config::PAGE_SIZE;
use crate::os::Refusal;
use crate::page_heap::huge_pages::{PAGES_PER_HUGE, PageUse};
use crate::page_heap::source::PageSource;
use crate::page_heap::space::Frontier;
use crate::page_heap::span::{Contents, SpanId};
use crate::page_heap::{PageHeap, State};
use crate::sync::Guard;

/// Holes that are tried before the frontier: of one that somebody else has, others may be as good.
const HOLES_TRIED: usize = 8;

impl<S: PageSource> PageHeap<S> {
    /// A run of at least `pages` that has room for as many so aligned, on no list, committed and reading as zero. `None`
    /// if memory is exhausted.
    pub(crate) fn grow(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<SpanId> {
        if let Some(id) = self.refill(heap, pages, align) {
            return Some(id);
        }
        if heap.frontier.end == 0 {
            heap.frontier = self.space.first_frontier();
        }
        match self.extend(heap, pages, align) {
            Ok(id) => return Some(id),
            Err(Refusal::NoMemory) => return None, // another place is no better
            Err(Refusal::Taken) => {}
        }
        self.move_frontier(heap, pages, align)?;
        self.extend(heap, pages, align).ok()
    }

    /// Maps a part of the best hole.
    fn refill(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<SpanId> {
        let unit = align.max(PAGE_SIZE) / PAGE_SIZE;
        for _ in 0..HOLES_TRIED {
            let wanted = pages.checked_add(unit - 1)?;
            let id = heap.free[Contents::Nothing as usize].first_from(&self.space, (wanted, 0))?;
            let (first, end) = (self.span(id).first_page(), self.span(id).first_page() + self.span(id).pages());
            // What reads as zero before the hole is part of the run.
            let before = self.free_at(first - 1).filter(|id| self.contents(heap, *id) == Contents::Zero);
            let before = before.map_or(first, |id| self.span(id).first_page());
            let start = before.next_multiple_of(unit);
            let whole = |page: usize| page / PAGES_PER_HUGE * PAGES_PER_HUGE;
            let around = (first.max(whole(start)), end.min(whole(start + pages + PAGES_PER_HUGE - 1)));
            let mut refusal = Refusal::NoMemory;
            for (from, to) in [around, (first.max(start), start + pages)] {
                match self.commit(heap, from, to, pages) {
                    Ok(()) => {
                        self.take_free(heap, id);
                        self.cut(heap, id, from, to - from);
                        self.set_contents(heap, id, Contents::Zero);
                        self.space.count(from, to - from, PageUse::Known, true);
                        self.join(heap, id);
                        return Some(id);
                    }
                    Err(why) => refusal = why,
                }
            }
            if refusal == Refusal::NoMemory {
                return None;
            }
            self.take_free(heap, id);
            self.forget(heap, id);
        }
        None
    }

    /// Commits pages, if that and the tables for it are within the hard limit beside `pages` in use.
    fn commit(&self, heap: &mut Guard<'_, State>, first: usize, end: usize, pages: usize) -> Result<(), Refusal> {
        let tables = self.space.missing_tables(first, end);
        let bound = self.space.most_pages();
        if heap.totals.committed + (end - first) > bound || !self.fits(heap, pages * PAGE_SIZE + tables) {
            return Err(Refusal::NoMemory);
        }
        let done = self.space.commit(first, end, heap.totals.committed);
        self.note_tables(heap);
        done?;
        heap.totals.committed += end - first;
        Ok(())
    }

    /// Counts tables: those of the directory as they are made, those of regions as pages are used for the first time.
    fn note_tables(&self, heap: &mut Guard<'_, State>) {
        heap.tables = match self.space.directory {
            Some(directory) => directory.bytes(),
            None => heap.frontier_pages * size_of::<u32>(),
        };
    }

    /// Moves the frontier up, so that a free run of `pages`, so aligned, ends there. Free pages that read as zero and are
    /// there already become part of it.
    fn extend(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Result<SpanId, Refusal> {
        let Frontier { next, committed, .. } = heap.frontier;
        let last = next.checked_sub(1).and_then(|page| self.free_at(page));
        let last = last.filter(|id| self.contents(heap, *id) == Contents::Zero);
        let first = last.map_or(next, |id| self.span(id).first_page());
        let start = first.checked_next_multiple_of(align.max(PAGE_SIZE) / PAGE_SIZE).ok_or(Refusal::Taken)?;
        let end = start.checked_add(pages).ok_or(Refusal::Taken)?.max(next);
        if self.space.unmaps() && start > committed + PAGES_PER_HUGE {
            // What only aligns is not worth memory: it becomes a hole.
            let from = start / PAGES_PER_HUGE * PAGES_PER_HUGE;
            self.commit(heap, from, end, pages)?;
            self.seal(heap);
            let hole = self.new_span(heap, committed, from - committed, Contents::Nothing);
            self.put_free(heap, hole);
            heap.frontier = Frontier { next: from, committed: end, ..heap.frontier };
            self.advance(heap, end);
            return Ok(self.new_span(heap, from, end - from, Contents::Zero));
        }
        self.commit_to(heap, end, pages)?;
        self.advance(heap, end);
        match last {
            Some(id) => {
                self.take_free(heap, id);
                self.span(id).set_extent(first, end - first);
                Ok(id)
            }
            None => Ok(self.new_span(heap, first, end - first, Contents::Zero)),
        }
    }

    /// Makes pages up to `end` the heap's. They are committed, and a span comes over them.
    fn advance(&self, heap: &mut Guard<'_, State>, end: usize) {
        let next = heap.frontier.next;
        if end > next {
            self.space.count(next, end - next, PageUse::Known, true);
            heap.frontier.next = end;
            heap.frontier_pages += end - next;
            self.note_tables(heap);
        }
    }

    /// Commits pages at the frontier up to `end`, if they are not, and some more; `pages` will be in use.
    pub(crate) fn commit_to(&self, heap: &mut Guard<'_, State>, end: usize, pages: usize) -> Result<(), Refusal> {
        let Frontier { committed, end: limit, .. } = heap.frontier;
        if end <= committed {
            return Ok(());
        }
        if end > limit {
            return Err(Refusal::Taken);
        }
        let step = self.space.step(end - committed, heap.totals.committed);
        let granule = (S::GRANULE / PAGE_SIZE).max(1);
        let room = self.space.most_pages() - heap.totals.committed.min(self.space.most_pages());
        let ample = (committed + step).next_multiple_of(PAGES_PER_HUGE).min(limit).min(committed + room);
        let ample = ample / granule * granule;
        let least = end.next_multiple_of(granule).min(limit);
        let mut refusal = Refusal::NoMemory;
        for to in [ample.max(least), least] {
            match self.commit(heap, committed, to, pages) {
                Ok(()) => {
                    heap.frontier.committed = to;
                    return Ok(());
                }
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    /// What is committed at the frontier and not used becomes a free run.
    fn seal(&self, heap: &mut Guard<'_, State>) {
        let Frontier { next, committed, .. } = heap.frontier;
        if next < committed {
            let rest = self.new_span(heap, next, committed - next, Contents::Zero);
            self.advance(heap, committed);
            self.put_free(heap, rest);
        }
    }

    /// Unmaps what is committed ahead of the frontier of the process's heap. Nobody ever touched it, so the kernel is quick.
    pub(crate) fn retract(&self) {
        let Some(mut heap) = self.state.lock_unless_orphaned() else { return };
        let whole = heap.frontier.next.next_multiple_of(PAGES_PER_HUGE);
        let ahead = heap.frontier.committed.saturating_sub(whole);
        // SAFETY: no page at the frontier is part of a span.
        if ahead > 0 && unsafe { self.space.unmap(whole, ahead) } {
            heap.frontier.committed = whole;
            heap.totals.committed -= ahead;
        }
    }

    /// Puts the frontier where there is room for `pages`, so aligned.
    pub(crate) fn move_frontier(&self, heap: &mut Guard<'_, State>, pages: usize, align: usize) -> Option<()> {
        let committed = heap.totals.committed;
        // Where the pages will be is not known yet, so all their tables are counted.
        let most = self.space.most_tables(self.space.step(pages, committed));
        if !self.fits(heap, (pages * PAGE_SIZE).saturating_add(most)) || committed + pages > self.space.most_pages() {
            return None;
        }
        let frontier = self.space.new_frontier(pages, align, committed)?;
        if !self.space.unmaps() {
            // A region is not come back to.
            let rest = heap.frontier.end;
            if rest > heap.frontier.committed && self.commit(heap, heap.frontier.committed, rest, 0).is_ok() {
                heap.frontier.committed = rest;
            }
        }
        self.seal(heap);
        self.note_tables(heap);
        heap.totals.committed += frontier.committed - frontier.next;
        heap.frontier = frontier;
        Some(())
    }

    /// Takes `pages` pages from `page` on out of free runs, holes and the frontier. False if they cannot be had.
    pub(crate) fn absorb(&self, heap: &mut Guard<'_, State>, page: usize, pages: usize) -> bool {
        let Some(end) = page.checked_add(pages) else { return false };
        let (mut next, mut fresh) = (page, 0);
        let mut at_frontier = false;
        while next < end {
            if next == heap.frontier.next {
                (at_frontier, fresh) = (true, fresh + (end - next));
                break;
            }
            let Some(id) = self.free_at(next).filter(|id| self.span(*id).first_page() == next) else { return false };
            let length = self.span(id).pages();
            fresh += if self.contents(heap, id).is_old() { 0 } else { length.min(end - next) };
            next += length;
        }
        let excess = self.limits.excess(heap.held_bytes() + fresh * PAGE_SIZE);
        // Over the soft limit, `allocate` releases what is free before it takes more.
        if fresh > 0 && (excess.hard > 0 || excess.soft > 0) {
            return false;
        }
        if at_frontier && self.commit_to(heap, end, fresh).is_err() {
            return false;
        }
        if !self.fill_holes(heap, page, end, fresh) {
            return false;
        }
        let mut next = page;
        while next < end {
            if next == heap.frontier.next {
                self.advance(heap, end);
                break;
            }
            let Some(id) = self.free_at(next) else { return false };
            let length = self.span(id).pages();
            self.take_free(heap, id);
            if next + length > end {
                self.cut(heap, id, next, end - next);
            }
            next += length;
            self.forget(heap, id);
        }
        true
    }

    /// Maps the holes among free runs from `page` on up to `end`. False if one cannot be.
    fn fill_holes(&self, heap: &mut Guard<'_, State>, page: usize, end: usize, fresh: usize) -> bool {
        let mut next = page;
        while next < end && next != heap.frontier.next {
            let Some(id) = self.free_at(next) else { return false };
            let length = self.span(id).pages();
            if self.contents(heap, id) == Contents::Nothing {
                let to = (next + length).min(end.next_multiple_of(PAGES_PER_HUGE));
                if !self.spare_records(heap, 2) {
                    return false;
                }
                let refusal = self.commit(heap, next, to, fresh);
                self.take_free(heap, id);
                match refusal {
                    Ok(()) => {
                        self.cut(heap, id, next, to - next);
                        self.set_contents(heap, id, Contents::Zero);
                        self.space.count(next, to - next, PageUse::Known, true);
                        // On its own for a moment: joined to what is before it, it would not begin here.
                        self.insert_free(heap, id);
                    }
                    Err(Refusal::NoMemory) => {
                        self.put_free(heap, id);
                        return false;
                    }
                    Err(Refusal::Taken) => {
                        self.forget(heap, id);
                        return false;
                    }
                }
                next = to;
            } else {
                next += length;
            }
        }
        true
    }

    /// A run that is on no list and was unmapped becomes a hole, or is given up at the frontier.
    pub(crate) fn put_hole(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let (first, pages) = (self.span(id).first_page(), self.span(id).pages());
        self.set_contents(heap, id, Contents::Nothing);
        self.space.count(first, pages, PageUse::Known, false);
        heap.totals.committed -= pages;
        let change = self.space.forget_seams(first, pages);
        heap.seams = heap.seams.saturating_add_signed(change);
        self.put_free(heap, id);
        let (first, end) = (self.span(id).first_page(), self.span(id).first_page() + self.span(id).pages());
        if end == heap.frontier.next && end == heap.frontier.committed {
            self.take_free(heap, id);
            self.forget(heap, id);
            heap.frontier.next = first;
            heap.frontier.committed = first;
        }
    }
}
