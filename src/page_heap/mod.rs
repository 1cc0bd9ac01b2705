//! Runs of pages: split, coalesced, grown and shrunk in place, over one reservation.
//!
//! ```text
//! reservation  │ span │ span │ free │ span │ free (zero) │    never used    │
//! page map        1      2      3      4         5                0
//! ```
//!
//! Free runs that hold old data are kept apart from those that read as zero (never touched, or released): the first
//! are handed out first because they are resident, the second spare a caller's zeroing. `free_pages.rs` chooses among
//! them, cuts and joins; `release.rs` says when they go back to the kernel.
//!
//! The kernel is called under the lock only to commit, which is rare and touches no page.

pub mod free_pages;
pub mod free_runs;
pub mod huge_pages;
pub mod large;
pub mod limits;
pub mod metadata;
pub mod region;
pub mod release;
pub mod source;
pub mod sources;
pub mod span;

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use self::free_runs::FreeRuns;
use self::huge_pages::{HugePageStats, PageUse};
use self::limits::Limits;
use self::region::Region;
use self::release::Releases;
use self::source::{Mmap, PageSource, Relocation};
use self::span::{Span, SpanId, SpanState};
use crate::config::{EXCHANGE_PAGES, MAX_RESERVE, MIN_RESERVE, PAGE_SIZE};
use crate::emergency;
use crate::lock_order::Rank;
use crate::os;
use crate::size_class::SizeClass;
use crate::sync::{Guard, Mutex};

/// The page allocator.
pub struct PageHeap<S: PageSource = Mmap> {
    pub(crate) region: Region<S>,
    pub(crate) state: Mutex<State>,
    /// Pages that are free and hold old data, for a look without the lock.
    pub(crate) dirty: AtomicUsize,
    pub(crate) limits: Limits,
    pub(crate) releases: Releases,
}

pub struct State {
    /// Free runs with old data, and free runs that read as zero.
    pub(crate) free: [FreeRuns; 2],
    /// Span table entries that were used before, linked by `next`.
    pub(crate) unused: SpanId,
    /// Span table entries ever used, and pages ever part of a span, from the start.
    pub(crate) spans_used: u32,
    pub(crate) pages_used: usize,
    pub(crate) pages_committed: usize,
    pub(crate) totals: Totals,
    /// Fewest free pages with old data since the period began.
    pub(crate) least_dirty: usize,
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
    pub const fn new(source: S) -> Self {
        PageHeap {
            region: Region::new(source),
            state: Mutex::new(
                Rank::PageHeap,
                State {
                    free: [FreeRuns::EMPTY; 2],
                    unused: SpanId::NONE,
                    spans_used: 0,
                    pages_used: 0,
                    pages_committed: 0,
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
                },
            ),
            dirty: AtomicUsize::new(0),
            limits: Limits::new(),
            releases: Releases::new(),
        }
    }

    /// Reserves address space, unless it is reserved: `wanted` bytes for pages, or what the source has, or half of
    /// it, and so on. False if that is not even [`MIN_RESERVE`], or all the source has.
    pub fn initialize(&self, wanted: usize) -> bool {
        if self.reserved_bytes() != 0 {
            return true;
        }
        let most = self.region.source.most_bytes();
        // Tables take less than a hundredth.
        let mut bytes = wanted.saturating_add(wanted / 64).min(most);
        while bytes >= MIN_RESERVE.min(most).max(PAGE_SIZE) {
            if self.region.reserve(bytes) {
                return true;
            }
            bytes /= 2;
        }
        false
    }

    /// As [`PageHeap::initialize`], from any thread at any time.
    pub fn initialize_once(&self, wanted: usize) -> bool {
        if self.reserved_bytes() != 0 {
            return true;
        }
        // Whoever sees the number above before this is unlocked takes the lock before it looks at a table.
        let _heap = self.state.lock();
        self.initialize(wanted)
    }

    /// The class of the small span that `address` lies in. `None` if it is not in one: two dependent loads, where the
    /// span itself would take four.
    #[inline(always)]
    pub fn class_at(&self, address: usize) -> Option<SizeClass> {
        let page = self.region.page_of(address)?;
        SizeClass::from_number(self.region.class_byte(page).load(Relaxed))
    }

    /// Says that `address` lies in a small span of `class`, for every address in it. By the owner of the new span.
    pub fn set_class(&self, id: SpanId, class: SizeClass) {
        self.set_class_bytes(self.span(id), class.number());
    }

    fn set_class_bytes(&self, span: &Span, number: u8) {
        for page in span.first_page()..span.first_page() + span.pages() {
            // Who frees an object of the span had its address from someone who took it after this.
            self.region.class_byte(page).store(number, Relaxed);
        }
    }

    /// The span in use that `address` lies in. `None` if the address is not in one.
    #[inline]
    pub fn span_of(&self, address: usize) -> Option<SpanId> {
        let page = self.region.page_of(address)?;
        let id = SpanId(self.region.entry(page).load(Acquire));
        if id == SpanId::NONE {
            return None;
        }
        // Entries inside free runs are stale: believe only a span in use that covers the address.
        let span = self.span(id);
        let used = matches!(span.state(), SpanState::Small | SpanState::Large);
        (used && span.covers(page)).then_some(id)
    }

    /// The table entry of `id`.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        self.region.span(id)
    }

    /// Address of the span's first page.
    #[inline]
    pub fn start(&self, id: SpanId) -> usize {
        self.region.address(self.span(id).first_page())
    }

    /// A run of `pages` whose start is a multiple of `align` bytes. `None` if memory is exhausted.
    ///
    /// `state` is not `Free`; the caller sets up the rest of a small span.
    pub fn allocate(&self, pages: usize, align: usize, state: SpanState) -> Option<Run> {
        if pages == 0 || pages >= 1 << 31 {
            return None;
        }
        let spare = align.max(PAGE_SIZE) / PAGE_SIZE - 1;
        let wanted = pages.checked_add(spare)?;
        let mut heap = self.state.lock_unless_forking()?;
        let mut relieved = false;
        let id = loop {
            if let Some(id) = self.take_best(&mut heap, false, wanted) {
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
            if (excess.soft > 0 || long) && !relieved && freeable > 0 {
                drop(heap);
                self.release_pages(excess.soft.div_ceil(PAGE_SIZE).max(if long { pages } else { 0 }));
                relieved = true;
                heap = self.state.lock_unless_forking()?;
                continue;
            }
            if excess.hard > 0 {
                return None;
            }
            if let Some(id) = self.take_best(&mut heap, true, wanted) {
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
        // SAFETY: the span is on no list, and we hold the lock.
        let zero = unsafe { span.locked() }.zero;
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
        if span.state() == SpanState::Small {
            self.set_class_bytes(span, 0);
        }
        self.region.count(span.first_page(), span.pages(), PageUse::Used, false);
        // SAFETY: by our own contract the span is ours alone.
        unsafe { span.locked() }.zero = zero;
        self.put_free(&mut heap, id);
    }

    /// Makes a large run `pages` long where it is. False, and nothing happened, if what follows it is in use or
    /// memory is exhausted.
    ///
    /// # Safety
    ///
    /// * The span is large and the caller's, and pages beyond `pages` are not used any more.
    pub unsafe fn resize(&self, id: SpanId, pages: usize) -> bool {
        let Some(mut heap) = self.state.lock_unless_forking() else { return false };
        let span = self.span(id);
        let (first, old) = (span.first_page(), span.pages());
        debug_assert!(span.state() == SpanState::Large && pages > 0);
        if pages > old && !self.absorb(&mut heap, first + old, pages - old) {
            return false;
        }
        span.set_extent(first, pages);
        self.region.entry(first + pages - 1).store(id.0, Release); // pairs with `span_of`
        heap.totals.large = heap.totals.large + pages - old;
        if pages > old {
            self.region.count(first + old, pages - old, PageUse::Used, true);
            heap.least_dirty = heap.least_dirty.min(heap.totals.free);
            heap.note_peak();
        } else if pages < old {
            self.region.count(first + pages, old - pages, PageUse::Used, false);
            let rest = self.new_span(&mut heap, first + pages, old - pages, false);
            self.put_free(&mut heap, rest);
        }
        true
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
        // SAFETY: by our own contract.
        let outcome = unsafe { self.region.source.relocate(source, target, pages * PAGE_SIZE) };
        match outcome {
            Relocation::Moved => {
                // A count is not worth waiting for a fork.
                if let Some(mut heap) = self.state.lock_unless_forking() {
                    heap.totals.moved += pages as u64;
                }
            }
            Relocation::Refused => {}
            Relocation::Lost => {
                let mut heap = self.state.lock();
                let pages = self.span(to).pages();
                heap.totals.large -= pages;
                heap.totals.own += pages;
                self.span(to).set_state(SpanState::Own);
            }
        }
        outcome
    }

    /// What is held now.
    pub fn totals(&self) -> Totals {
        let heap = self.state.lock();
        Totals {
            committed: heap.pages_committed,
            held_bytes: heap.held_bytes(),
            huge: self.region.huge_page_stats(heap.pages_used),
            ..heap.totals
        }
    }

    /// Bytes that could be had for pages if every free run were one, within the hard limit.
    pub fn free_bytes(&self) -> usize {
        let heap = self.state.lock();
        let space = self.reserved_bytes() - (heap.totals.small + heap.totals.large + heap.totals.own) * PAGE_SIZE;
        space.min(self.limits.get().1.saturating_sub(heap.held_bytes() - heap.freeable_bytes()))
    }

    /// Where its memory comes from.
    pub fn source(&self) -> &S {
        &self.region.source
    }

    /// Bytes reserved for pages.
    pub fn reserved_bytes(&self) -> usize {
        self.region.reserved_bytes()
    }

    /// Pages that are free and hold old data, a moment ago.
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
        self.region.count(first, pages, PageUse::Used, true);
        // Objects are anywhere in a small span; a large one is known by its first page and its last.
        let step = if state == SpanState::Small { 1 } else { (pages - 1).max(1) };
        for page in (first..first + pages).step_by(step) {
            self.region.entry(page).store(id.0, Release); // pairs with `span_of`
        }
    }
}

impl<S: PageSource> Drop for PageHeap<S> {
    fn drop(&mut self) {
        // SAFETY: whoever drops the heap vouches for its blocks; the tables are not used after this.
        unsafe { self.region.unreserve() };
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

    /// Bytes of what is held that may go back.
    fn freeable_bytes(&self) -> usize {
        (self.totals.free + self.totals.leaving) * PAGE_SIZE
    }

    /// Bytes that are or may be resident: pages in use, free pages with old data, and the tables' used part.
    pub(crate) fn held_bytes(&self) -> usize {
        let totals = &self.totals;
        let pages = totals.small + totals.large + totals.own + totals.free + totals.leaving;
        pages * PAGE_SIZE + self.spans_used as usize * size_of::<Span>() + self.pages_used * size_of::<u32>()
    }
}

/// Address space for the process's heap: four to eight times the physical memory.
pub fn usual_reservation() -> usize {
    os::physical_memory().next_power_of_two().saturating_mul(4).clamp(64 << 30, MAX_RESERVE)
}
