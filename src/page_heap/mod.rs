//! Runs of pages: split, coalesced, grown and shrunk in place, in address space that grows and shrinks.
//!
//! ```text
//! memory    │ span │ span │ free │ span │ free (zero) │ hole │ span │ ...
//! page map     1      2      3      4         5          6      7
//! ```
//!
//! Free runs that hold old data are kept apart from those that read as zero (never touched, or released): the first
//! are handed out first because they are resident, the second spare a caller's zeroing. A hole is a run that is not even
//! mapped. `free_pages.rs` chooses among them, cuts and joins; `grow.rs` finds more; `release.rs` says when they go back
//! to the kernel, and `refused.rs` what becomes of those that it does not take; `space.rs` says where all this is.
//!
//! The kernel is called under the lock only to commit, which is rare and touches no page.

mod check;
pub mod directory;
pub mod free_pages;
pub mod free_runs;
mod grow;
pub mod huge_pages;
mod kept;
pub mod large;
pub mod layout;
pub mod limits;
pub mod metadata;
mod refused;
pub mod regions;
pub mod release;
pub mod source;
pub mod sources;
pub mod space;
pub mod span;

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use self::directory::DIRECTORY;
use self::free_pages::SPARE_RECORDS;
use self::free_runs::FreeRuns;
use self::huge_pages::{HugePageStats, PageUse};
use self::kept::Kept;
use self::limits::Limits;
use self::release::Releases;
use self::source::{Mmap, PageSource, Relocation};
use self::space::{Frontier, Space};
use self::span::{Contents, Span, SpanId, SpanState};
use crate::config::{EXCHANGE_PAGES, MAX_SEAMS, PAGE_SIZE};
use crate::emergency;
use crate::lock_order::Rank;
use crate::size_class::SizeClass;
use crate::sync::{Guard, Mutex};

/// Pages of a run that is more than any: their number must fit into a span.
const MOST_PAGES: usize = 1 << 31;

/// The page allocator.
pub struct PageHeap<S: PageSource = Mmap> {
    pub(crate) space: Space<S>,
    pub(crate) state: Mutex<State>,
    /// Pages that are free, hold old data and may go back, for a look without the lock.
    pub(crate) dirty: AtomicUsize,
    pub(crate) limits: Limits,
    pub(crate) releases: Releases,
}

pub struct State {
    /// Free runs by what they hold: [`Contents`].
    pub(crate) free: [FreeRuns; 4],
    /// See `kept`.
    pub(crate) kept: Kept,
    /// Free runs that are not mapped.
    pub(crate) holes: usize,
    /// Records of spans that are not in use, linked by `next`, and their number.
    pub(crate) unused: SpanId,
    pub(crate) unused_count: u32,
    /// Records ever made.
    pub(crate) records: u32,
    pub(crate) frontier: Frontier,
    /// Pages over which the frontier ever went.
    pub(crate) frontier_pages: usize,
    /// Bytes of tables, without the records.
    pub(crate) tables: usize,
    /// Pages that begin with another of the kernel's mappings than the page before, because contents were moved.
    pub(crate) seams: usize,
    pub(crate) totals: Totals,
    /// Fewest free pages with old data since the period began.
    pub(crate) least_dirty: usize,
    /// Free pages that were refused: [`Contents::Refused`].
    pub(crate) refused: usize,
}

/// What the page heap holds, in pages.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub small: usize,
    pub large: usize,
    /// The allocator's own.
    pub own: usize,
    /// Free with old data: resident.
    pub free: usize,
    /// Free and reading as zero, after a release or never touched.
    pub zero: usize,
    /// On their way back to the kernel.
    pub leaving: usize,
    pub committed: usize,
    /// Most bytes ever held at once.
    pub peak_bytes: usize,
    /// Pages that went back, ever.
    pub released: u64,
    /// Pages that were moved to another place instead of copied, ever.
    pub moved: u64,
    /// Of all these, what is or may be resident, with the tables, in bytes.
    pub held_bytes: usize,
    pub huge: HugePageStats,
}

/// A fresh run of pages.
#[derive(Clone, Copy)]
pub struct Run {
    pub id: SpanId,
    /// Its pages read as zero.
    pub zero: bool,
}

impl<S: PageSource> PageHeap<S> {
    /// A heap with pages of at most `bound` bytes, rounded up to whole pages.
    pub const fn new(source: S, bound: usize) -> Self {
        PageHeap::over(Space::bounded(source, bound))
    }

    const fn over(space: Space<S>) -> Self {
        PageHeap {
            space,
            state: Mutex::new(
                Rank::PageHeap,
                State {
                    free: [FreeRuns::EMPTY; 4],
                    kept: Kept::EMPTY,
                    holes: 0,
                    unused: SpanId::NONE,
                    unused_count: 0,
                    records: 0,
                    frontier: Frontier::NONE,
                    frontier_pages: 0,
                    tables: 0,
                    seams: 0,
                    totals: Totals {
                        small: 0,
                        large: 0,
                        own: 0,
                        free: 0,
                        zero: 0,
                        leaving: 0,
                        committed: 0,
                        released: 0,
                        moved: 0,
                        held_bytes: 0,
                        peak_bytes: 0,
                        huge: HugePageStats { free: 0, partly_used: 0, fully_used: 0, released_in_part: 0 },
                    },
                    least_dirty: 0,
                    refused: 0,
                },
            ),
            dirty: AtomicUsize::new(0),
            limits: Limits::new(),
            releases: Releases::new(),
        }
    }

    /// Says that `address` lies in a small span of `class`, for every address in it. By the owner of the new span.
    pub fn set_class(&self, id: SpanId, class: SizeClass) {
        self.set_class_number(self.span(id), class.number());
    }

    fn set_class_number(&self, span: &Span, number: u8) {
        let Some(directory) = self.space.directory else { return };
        (span.first_page()..span.first_page() + span.pages()).for_each(|page| directory.set_class(page, number));
    }

    /// The span in use that `address` lies in. `None` if the address is not in one.
    #[inline]
    pub fn span_of(&self, address: usize) -> Option<SpanId> {
        let page = address / PAGE_SIZE;
        let id = SpanId(self.space.entry(page)?.load(Acquire));
        if id == SpanId::NONE {
            return None;
        }
        // Entries inside free runs are stale: believe only a span in use that covers the address.
        let span = self.span(id);
        let used = matches!(span.state(), SpanState::Small | SpanState::Large);
        (used && span.covers(page)).then_some(id)
    }

    /// The record of `id`.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        self.space.span(id)
    }

    /// Address of the span's first page.
    #[inline]
    pub fn start(&self, id: SpanId) -> usize {
        self.span(id).first_page() * PAGE_SIZE
    }

    /// A run of `pages` whose start is a multiple of `align` bytes. `None` if memory is exhausted.
    ///
    /// `state` is not `Free`; the caller sets up the rest of a small span.
    pub fn allocate(&self, pages: usize, align: usize, state: SpanState) -> Option<Run> {
        if pages == 0 || pages >= MOST_PAGES {
            return None;
        }
        let spare = align.max(PAGE_SIZE) / PAGE_SIZE - 1;
        let wanted = pages.checked_add(spare).filter(|wanted| *wanted < MOST_PAGES)?;
        let mut heap = self.state.lock_unless_forking()?;
        if state == SpanState::Large
            && let Some(id) = self.take_kept(&mut heap, pages, align)
        {
            return Some(Run { id, zero: false });
        }
        let mut relieved = false;
        if self.space.has_nothing() {
            self.move_frontier(&mut heap, pages, align)?;
        }
        let id = loop {
            self.settle(&mut heap); // another thread's, too, where the lock was given up
            if !self.spare_records(&mut heap, SPARE_RECORDS) {
                return None;
            }
            if let Some(id) = self.take_best(&mut heap, Contents::Old, wanted) {
                break id;
            }
            // From here on, more becomes resident.
            let excess = self.limits.excess(heap.held_bytes() + pages * PAGE_SIZE);
            let freeable = heap.freeable_bytes();
            if excess.hard > freeable {
                return None; // giving everything back would not help
            }
            // A long run is worth a call of the kernel: what lies free in pieces goes back instead of adding to it.
            let long = pages >= EXCHANGE_PAGES && self.releases.period().is_some();
            if (excess.soft > 0 || long) && !relieved && heap.may_release() {
                drop(heap);
                self.release_some(excess.soft.div_ceil(PAGE_SIZE).max(if long { pages } else { 0 }));
                relieved = true;
                heap = self.state.lock_unless_forking()?;
                continue;
            }
            if excess.hard > 0 {
                return None;
            }
            if let Some(id) = self.take_best(&mut heap, Contents::Zero, wanted) {
                break id;
            }
            if let Some(id) = self.grow(&mut heap, pages, align) {
                break id;
            }
            if heap.totals.leaving == 0 {
                return None;
            }
            drop(heap);
            self.await_releases();
            heap = self.state.lock_unless_forking()?;
        };
        let span = self.span(id);
        let zero = self.contents(&heap, id) == Contents::Zero;
        let first = self.place(&heap, span, pages, align);
        self.cut(&mut heap, id, first, pages);
        self.use_span(&mut heap, id, state);
        heap.least_dirty = heap.least_dirty.min(heap.totals.free);
        heap.note_peak();
        Some(Run { id, zero })
    }

    /// Takes back a run of pages; `zero` says that they read as zero.
    ///
    /// # Safety
    ///
    /// * The span is in use, and nobody uses its pages or the span any more.
    pub unsafe fn release(&self, id: SpanId, zero: bool) {
        let Some(mut heap) = self.state.lock_unless_forking() else {
            // A large block's: a small span goes back under its class's lock.
            // SAFETY: by our own contract it is nobody's.
            return unsafe { emergency::defer_all(&[self.start(id) as *mut u8]) };
        };
        let span = self.span(id);
        *heap.total(span.state()) -= span.pages();
        if span.state() == SpanState::Large && !zero {
            return self.keep(&mut heap, id);
        }
        if span.state() == SpanState::Small {
            self.set_class_number(span, 0);
        }
        self.space.count(span.first_page(), span.pages(), PageUse::Used, false);
        // By our own contract the span is ours alone.
        self.set_contents(&heap, id, if zero { Contents::Zero } else { Contents::Old });
        self.put_free(&mut heap, id);
    }

    /// Takes back a large run whose pages are not even accessible: they are unmapped. If the kernel refuses, or a fork is in
    /// the way, their addresses are lost.
    ///
    /// # Safety
    ///
    /// * As for [`PageHeap::release`].
    pub unsafe fn discard(&self, id: SpanId) {
        let (first, pages) = (self.span(id).first_page(), self.span(id).pages());
        let Some(mut heap) = self.state.lock_unless_forking() else { return };
        // Before somebody else has the addresses, they are a hole.
        // SAFETY: by our own contract.
        let unmapped = self.space.unmaps() && unsafe { self.space.unmap(first, pages) };
        heap.totals.large -= pages;
        if unmapped {
            self.space.count(first, pages, PageUse::Used, false);
            self.put_hole(&mut heap, id);
        } else {
            heap.totals.own += pages;
            self.span(id).set_state(SpanState::Own);
        }
    }

    /// Makes a large run `pages` long where it is. False, and nothing happened, if what follows it is in use or
    /// memory is exhausted.
    ///
    /// # Safety
    ///
    /// * The span is large and the caller's, and pages beyond `pages` are not used any more.
    pub unsafe fn resize(&self, id: SpanId, pages: usize) -> bool {
        let Some(mut heap) = self.state.lock_unless_forking() else { return false };
        self.settle(&mut heap);
        let span = self.span(id);
        let (first, old) = (span.first_page(), span.pages());
        debug_assert!(span.state() == SpanState::Large && pages > 0);
        if !self.spare_records(&mut heap, SPARE_RECORDS) {
            return pages <= old; // what would be cut off stays
        }
        if pages > old && !self.absorb(&mut heap, first + old, pages - old) {
            return false;
        }
        span.set_extent(first, pages);
        self.map(first + pages - 1, id);
        heap.totals.large = heap.totals.large + pages - old;
        if pages > old {
            self.space.count(first + old, pages - old, PageUse::Used, true);
            heap.least_dirty = heap.least_dirty.min(heap.totals.free);
            heap.note_peak();
        } else if pages < old {
            self.space.count(first + pages, old - pages, PageUse::Used, false);
            let rest = self.new_span(&mut heap, first + pages, old - pages, Contents::Old);
            self.put_free(&mut heap, rest);
        }
        true
    }

    /// Gives the contents of `pages` pages of a run back at once, from its page `from` on: they read as zero. False, and
    /// they are as they were, if the source cannot.
    ///
    /// # Safety
    ///
    /// * The run is the caller's and so long, and what these pages hold is not needed.
    pub unsafe fn empty(&self, id: SpanId, from: usize, pages: usize) -> bool {
        let (start, bytes) = (self.start(id) + from * PAGE_SIZE, pages * PAGE_SIZE);
        let whole = (start | bytes).is_multiple_of(self.space.source.release_granule());
        let Some(start) = NonNull::new(start as *mut u8).filter(|_| whole) else { return false };
        // SAFETY: by our own contract.
        let done = unsafe { self.space.source.release(start, bytes) };
        // A count is not worth waiting for a fork.
        if done && let Some(mut heap) = self.state.lock_unless_forking() {
            heap.totals.released += pages as u64;
        }
        done
    }

    /// Moves the first pages of one large run to another, whose start reads as zero afterwards or whose pages are
    /// gone: then a run that cannot be used remains the heap's own, and another has to be found.
    ///
    /// # Safety
    ///
    /// * Both spans are large and the caller's, and have so many pages. The second holds nothing anybody needs.
    pub unsafe fn relocate(&self, from: SpanId, to: SpanId, pages: usize) -> Relocation {
        let place = |id| NonNull::new(self.start(id) as *mut u8);
        let (Some(source), Some(target)) = (place(from), place(to)) else { return Relocation::Refused };
        // The program needs mappings, too.
        if self.state.lock_unless_forking().is_none_or(|heap| heap.seams >= MAX_SEAMS) {
            return Relocation::Refused;
        }
        // SAFETY: by our own contract.
        let outcome = unsafe { self.space.source.relocate(source, target, pages * PAGE_SIZE) };
        match outcome {
            Relocation::Moved => {
                // A count is not worth waiting for a fork.
                if let Some(mut heap) = self.state.lock_unless_forking() {
                    heap.totals.moved += pages as u64;
                    let change = self.space.note_moved(self.span(to).first_page(), pages);
                    heap.seams = heap.seams.saturating_add_signed(change);
                }
            }
            Relocation::Refused => {}
            Relocation::Lost => {
                if let Some(mut heap) = self.state.lock_unless_orphaned() {
                    let pages = self.span(to).pages();
                    heap.totals.large -= pages;
                    heap.totals.own += pages;
                    self.span(to).set_state(SpanState::Own);
                }
            }
        }
        outcome
    }

    /// What is held now.
    pub fn totals(&self) -> Totals {
        let mut heap = self.state.lock();
        self.settle(&mut heap);
        Totals { held_bytes: heap.held_bytes(), huge: self.space.huge_page_stats(), ..heap.totals }
    }

    /// Bytes of free pages that the heap has.
    pub fn free_bytes(&self) -> usize {
        let totals = self.state.lock().totals;
        (totals.committed - totals.small - totals.large - totals.own) * PAGE_SIZE
    }

    /// Where its memory comes from.
    pub fn source(&self) -> &S {
        &self.space.source
    }

    /// Bytes of address space for pages.
    pub fn reserved_bytes(&self) -> usize {
        self.space.bytes(self.state.lock().totals.committed)
    }

    /// Bytes of the largest block, if there were memory.
    pub fn most_bytes(&self) -> usize {
        self.space.most_pages().min(MOST_PAGES) * PAGE_SIZE
    }

    /// Pages that are free, hold old data and may go back, a moment ago.
    #[inline]
    pub fn dirty_pages(&self) -> usize {
        self.dirty.load(Relaxed) // a hint: whoever acts on it looks again under the lock
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.state
    }

    fn use_span(&self, heap: &mut Guard<'_, State>, id: SpanId, state: SpanState) {
        let span = self.span(id);
        let (first, pages) = (span.first_page(), span.pages());
        span.set_state(state);
        *heap.total(state) += pages;
        self.space.count(first, pages, PageUse::Used, true);
        // Objects are anywhere in a small span; a large one is known by its first page and its last.
        let step = if state == SpanState::Small { 1 } else { (pages - 1).max(1) };
        for page in (first..first + pages).step_by(step) {
            self.map(page, id);
        }
    }

    /// Writes a page's entry. The page is committed.
    fn map(&self, page: usize, id: SpanId) {
        if let Some(entry) = self.space.entry(page) {
            entry.store(id.0, Release); // pairs with `span_of`
        }
    }
}

impl PageHeap<Mmap> {
    /// The process's heap. There is one: its tables are the process's.
    pub const fn of_process() -> Self {
        PageHeap::over(Space::of_process(Mmap::of_process(), &DIRECTORY))
    }
}

impl<S: PageSource> Drop for PageHeap<S> {
    fn drop(&mut self) {
        // SAFETY: whoever drops the heap vouches for its blocks; the tables are not used after this.
        unsafe { self.space.give_back() };
    }
}

impl State {
    fn total(&mut self, state: SpanState) -> &mut usize {
        match state {
            SpanState::Small => &mut self.totals.small,
            SpanState::Large => &mut self.totals.large,
            _ => &mut self.totals.own,
        }
    }

    /// To be called where more is held than before.
    pub(crate) fn note_peak(&mut self) {
        self.totals.peak_bytes = self.totals.peak_bytes.max(self.held_bytes());
    }

    /// Whether the kernel may take something back.
    fn may_release(&self) -> bool {
        self.totals.free > self.refused || self.totals.leaving > 0
    }

    /// Bytes of what is held that is free.
    fn freeable_bytes(&self) -> usize {
        (self.totals.free + self.totals.leaving) * PAGE_SIZE
    }

    /// Bytes that are or may be resident: pages in use, free pages with old data, and the tables' used part.
    pub(crate) fn held_bytes(&self) -> usize {
        let totals = &self.totals;
        let pages = totals.small + totals.large + totals.own + totals.free + totals.leaving;
        pages * PAGE_SIZE + self.records as usize * size_of::<Span>() + self.tables
    }
}
