//! Runs of pages: split, coalesced, committed and released, over one large reservation.
//!
//! ```text
//! reservation  │ span │ span │ free │ span │ free (zero) │    never committed    │
//! page map        1      2      3      4         5                  0
//! ```
//!
//! The reservation makes "is this address ours?" one comparison and the page map a flat array: one load from
//! address to span. Beside it lies a map of one byte a page with the class of small objects: all that `free` needs to
//! know of most blocks. Pages, maps and span table are reserved at once and committed together, as the heap grows.
//!
//! Free runs that hold old data are kept apart from those that read as zero (never touched, or released):
//! the first are handed out first because they are resident, the second spare a caller's zeroing. Runs are
//! found by length: exact lists up to 127 pages, then eight lists to a doubling; a bitmap finds the next
//! list that has one. Within a list of unequal runs the shortest that fits is taken.

use core::sync::atomic::{
    AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::{GROW_PAGES, KEEP_FREE_BYTES, MAX_RESERVE, MIN_RESERVE, PAGE_SIZE};
use crate::os::{self, OS_PAGE};
use crate::size_class::SizeClass;
use crate::span::{Span, SpanId, SpanState};
use crate::sync::{Guard, Mutex, Padded};

/// Lists of exact length, and lists of a range of lengths: eight to a doubling up to 2^31 pages.
const EXACT: usize = 128;
const LISTS: usize = EXACT + (31 - 7) * 8;
const WORDS: usize = LISTS.div_ceil(64);

/// The page allocator.
pub struct PageHeap {
    tables: Padded<Tables>,
    state: Mutex<State>,
}

/// Where everything is: read without a lock to find a block's span. The addresses are set once by `initialize`.
struct Tables {
    base: AtomicUsize,
    /// `SpanId` of each page of the reservation.
    map: AtomicUsize,
    /// `Span`s by `SpanId`.
    spans: AtomicUsize,
    /// For each page a byte: the class of the small span it is in, plus one, or 0.
    classes: AtomicUsize,
    /// Bytes from `base` on that are committed, with their part of the two tables. Grows only.
    committed: AtomicUsize,
    /// Bytes reserved.
    reserved: AtomicUsize,
}

struct State {
    /// Free runs with old data, and free runs that read as zero.
    free: [FreeLists; 2],
    /// Span table entries that were used before, linked by `next`.
    unused: SpanId,
    /// Span table entries ever used, and pages ever part of a span, from the start.
    spans_used: u32,
    pages_used: usize,
    pages_committed: usize,
    totals: Totals,
}

/// What the page heap holds, in pages.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub small: usize,
    pub large: usize,
    /// Free with old data: resident.
    pub free: usize,
    /// Free and reading as zero, after a release or never touched.
    pub zero: usize,
    pub committed: usize,
    /// Most pages ever in use or resident at once.
    pub peak: usize,
    /// Entries of the span table.
    pub spans: usize,
}

impl Totals {
    /// Pages in use, or free and resident.
    pub fn held(&self) -> usize {
        self.small + self.large + self.free
    }
}

struct FreeLists {
    head: [SpanId; LISTS],
    nonempty: [u64; WORDS],
}

/// A fresh run of pages.
pub struct Run {
    pub id: SpanId,
    /// Its pages read as zero.
    pub zero: bool,
}

impl PageHeap {
    pub const fn new() -> Self {
        const EMPTY: FreeLists = FreeLists { head: [SpanId::NONE; LISTS], nonempty: [0; WORDS] };
        PageHeap {
            tables: Padded(Tables {
                base: AtomicUsize::new(0),
                map: AtomicUsize::new(0),
                spans: AtomicUsize::new(0),
                classes: AtomicUsize::new(0),
                committed: AtomicUsize::new(0),
                reserved: AtomicUsize::new(0),
            }),
            state: Mutex::new(State {
                free: [EMPTY; 2],
                unused: SpanId::NONE,
                spans_used: 0,
                pages_used: 0,
                pages_committed: 0,
                totals: Totals { small: 0, large: 0, free: 0, zero: 0, committed: 0, peak: 0, spans: 0 },
            }),
        }
    }

    /// Reserves address space, unless it is reserved: four to eight times the physical memory, at most half of what
    /// `RLIMIT_AS` allows, or as much as the kernel gives. False if that is not even [`MIN_RESERVE`].
    pub fn initialize(&self) -> bool {
        if self.reserved_bytes() != 0 {
            return true;
        }
        let wanted = os::physical_memory().next_power_of_two().saturating_mul(4).clamp(64 << 30, MAX_RESERVE);
        let mut bytes = wanted.min(prev_power_of_two(os::address_space_limit() / 2));
        while bytes >= MIN_RESERVE {
            if self.reserve(bytes) {
                return true;
            }
            bytes /= 2;
        }
        false
    }

    fn reserve(&self, bytes: usize) -> bool {
        let pages = bytes / PAGE_SIZE;
        // One page more, to align the start.
        let lengths =
            [bytes + PAGE_SIZE, pages * size_of::<u32>(), (pages + 1) * size_of::<Span>(), pages * size_of::<u8>()];
        let parts = lengths.map(os::reserve);
        if let [Some(pages), Some(map), Some(spans), Some(classes)] = parts {
            self.tables.base.store((pages.as_ptr() as usize).next_multiple_of(PAGE_SIZE), Relaxed);
            self.tables.map.store(map.as_ptr() as usize, Relaxed);
            self.tables.spans.store(spans.as_ptr() as usize, Relaxed);
            self.tables.classes.store(classes.as_ptr() as usize, Relaxed);
            self.tables.reserved.store(bytes, Relaxed);
            return true;
        }
        for (part, length) in parts.into_iter().zip(lengths) {
            if let Some(start) = part {
                // SAFETY: mapped a moment ago with this length, and nobody knows of it.
                unsafe { os::unmap(start, length) };
            }
        }
        false
    }

    /// The class of the small span that `address` lies in. `None` if it is not in one: two dependent loads, where the
    /// span itself would take four.
    #[inline(always)]
    pub fn class_at(&self, address: usize) -> Option<SizeClass> {
        let offset = address.wrapping_sub(self.tables.base.load(Relaxed));
        // Acquire: as in `span_of`.
        if offset >= self.tables.committed.load(Acquire) {
            return None;
        }
        SizeClass::from_number(self.class_byte(offset / PAGE_SIZE).load(Relaxed))
    }

    /// Says that `address` lies in a small span of `class`, for every address in it. By the owner of the new span.
    pub fn set_class(&self, id: SpanId, class: SizeClass) {
        self.set_class_bytes(self.span(id), class.number());
    }

    fn set_class_bytes(&self, span: &Span, number: u8) {
        for page in span.first_page()..span.first_page() + span.pages() {
            // Who frees an object of the span had its address from someone who took it after this.
            self.class_byte(page).store(number, Relaxed);
        }
    }

    #[inline(always)]
    fn class_byte(&self, page: usize) -> &AtomicU8 {
        // SAFETY: the table has an entry for every page of the reservation, and callers name committed pages.
        unsafe { &*(self.tables.classes.load(Relaxed) as *const AtomicU8).add(page) }
    }

    /// The span in use that `address` lies in. `None` if the address is not in one.
    #[inline]
    pub fn span_of(&self, address: usize) -> Option<SpanId> {
        let offset = address.wrapping_sub(self.tables.base.load(Relaxed));
        // Acquire: the part of the map for these bytes is committed, and the addresses above are set.
        if offset >= self.tables.committed.load(Acquire) {
            return None;
        }
        let id = SpanId(self.entry(offset / PAGE_SIZE).load(Acquire));
        if id == SpanId::NONE {
            return None;
        }
        // Entries inside free runs are stale: believe only a span in use that covers the address.
        let span = self.span(id);
        let used = matches!(span.state(), SpanState::Small | SpanState::Large);
        (used && span.covers(offset / PAGE_SIZE)).then_some(id)
    }

    /// The table entry of `id`.
    #[inline]
    pub fn span(&self, id: SpanId) -> &Span {
        // SAFETY: the table has an entry for every page and one more, ids are given out below that, zero is a
        // value of an entry, and the table is never unmapped.
        unsafe { &*(self.tables.spans.load(Relaxed) as *const Span).add(id.0 as usize) }
    }

    /// Address of the span's first page.
    #[inline]
    pub fn start(&self, id: SpanId) -> usize {
        self.address(self.span(id).first_page())
    }

    /// A run of `pages` whose start is a multiple of `align` bytes. `None` if memory is exhausted.
    ///
    /// `state` is [`SpanState::Small`] or [`SpanState::Large`]; the caller sets up the rest of a small span.
    pub fn allocate(&self, pages: usize, align: usize, state: SpanState) -> Option<Run> {
        if pages == 0 || pages >= 1 << 31 {
            return None;
        }
        let mut heap = self.state.lock();
        let spare = align.max(PAGE_SIZE) / PAGE_SIZE - 1;
        let id = self.find(&mut heap, pages.checked_add(spare)?)?;
        let span = self.span(id);
        // SAFETY: `find` took the span off its list, and we hold the lock.
        let zero = unsafe { span.locked() }.zero;
        let start = self.start(id);
        let before = if spare == 0 { 0 } else { (start.next_multiple_of(align) - start) / PAGE_SIZE };
        let (first, after) = (span.first_page() + before, span.pages() - before - pages);
        if before > 0 {
            let front = self.new_span(&mut heap, first - before, before, zero);
            self.insert_free(&mut heap, front);
        }
        if after > 0 {
            let rest = self.new_span(&mut heap, first + pages, after, zero);
            self.insert_free(&mut heap, rest);
        }
        span.set_extent(first, pages);
        span.set_state(state);
        match state {
            SpanState::Small => heap.totals.small += pages,
            _ => heap.totals.large += pages,
        }
        heap.totals.peak = heap.totals.peak.max(heap.totals.held());
        // Objects are anywhere in a small span; a large one is known by its first page and its last.
        let step = if state == SpanState::Small { 1 } else { (pages - 1).max(1) };
        for page in (first..first + pages).step_by(step) {
            self.entry(page).store(id.0, Release); // pairs with `span_of`
        }
        Some(Run { id, zero })
    }

    /// Takes back a run of pages.
    ///
    /// # Safety
    ///
    /// * The span is in use, and nobody uses its pages or the span any more.
    pub unsafe fn release(&self, id: SpanId) {
        let mut heap = self.state.lock();
        let span = self.span(id);
        match span.state() {
            SpanState::Small => {
                heap.totals.small -= span.pages();
                self.set_class_bytes(span, 0);
            }
            _ => heap.totals.large -= span.pages(),
        }
        // SAFETY: by our own contract the span is ours alone.
        unsafe { span.locked() }.zero = false;
        self.coalesce(&mut heap, id);
        self.insert_free(&mut heap, id);
        if heap.totals.free * PAGE_SIZE > KEEP_FREE_BYTES {
            self.release_down_to(&mut heap, KEEP_FREE_BYTES / PAGE_SIZE / 2);
        }
    }

    /// Gives all free pages back to the kernel; returns how many bytes.
    pub fn release_free(&self) -> usize {
        self.release_down_to(&mut self.state.lock(), 0) * PAGE_SIZE
    }

    /// What is held now.
    pub fn totals(&self) -> Totals {
        let heap = self.state.lock();
        Totals { committed: heap.pages_committed, spans: heap.spans_used as usize, ..heap.totals }
    }

    /// Bytes reserved for pages.
    pub fn reserved_bytes(&self) -> usize {
        self.tables.reserved.load(Relaxed)
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.state
    }

    fn address(&self, page: usize) -> usize {
        self.tables.base.load(Relaxed) + page * PAGE_SIZE
    }

    #[inline]
    fn entry(&self, page: usize) -> &AtomicU32 {
        // SAFETY: the map has an entry for every page of the reservation, and callers name such pages.
        unsafe { &*(self.tables.map.load(Relaxed) as *const AtomicU32).add(page) }
    }

    /// Takes a free run of at least `pages` off its list, growing the heap if there is none.
    fn find(&self, heap: &mut Guard<'_, State>, pages: usize) -> Option<SpanId> {
        for zero in [false, true] {
            if let Some(id) = self.best_fit(&heap.free[zero as usize], pages) {
                self.remove_free(heap, id);
                return Some(id);
            }
        }
        self.grow(heap, pages)
    }

    fn best_fit(&self, lists: &FreeLists, pages: usize) -> Option<SpanId> {
        let mut list = list_of(pages);
        loop {
            list = next_nonempty(&lists.nonempty, list)?;
            let (mut id, mut best, mut shortest) = (lists.head[list], SpanId::NONE, usize::MAX);
            while id != SpanId::NONE {
                let span = self.span(id);
                if span.pages() >= pages && span.pages() < shortest {
                    (best, shortest) = (id, span.pages());
                    if list < EXACT {
                        break; // all of one length
                    }
                }
                // SAFETY: spans on a free list belong to the lock, which the caller holds.
                id = unsafe { span.locked() }.next;
            }
            if best != SpanId::NONE {
                return Some(best);
            }
            list += 1; // only the list that holds `pages` itself can have runs too short
        }
    }

    /// Extends the used part of the reservation by a free run of at least `pages`.
    fn grow(&self, heap: &mut Guard<'_, State>, pages: usize) -> Option<SpanId> {
        let limit = self.reserved_bytes() / PAGE_SIZE;
        let first = heap.pages_used;
        let needed = first.checked_add(pages)?;
        if needed > limit {
            return None;
        }
        if needed > heap.pages_committed {
            let end = needed.next_multiple_of(GROW_PAGES).min(limit);
            if !self.commit(heap.pages_committed, end) {
                return None;
            }
            heap.pages_committed = end;
        }
        heap.pages_used = needed;
        Some(self.new_span(heap, first, pages, true))
    }

    /// Commits the pages from `first` to `end` and their part of the tables. False if memory is exhausted.
    fn commit(&self, first: usize, end: usize) -> bool {
        let part = |table: usize, entry: usize| {
            let (from, to) = (table + first * entry, table + end * entry);
            let from = from & !(OS_PAGE - 1); // what it shares with the part before is committed already
            // SAFETY: within a table reserved for as many entries as there are pages, ours alone.
            unsafe { os::commit(from as *mut u8, to.next_multiple_of(OS_PAGE) - from) }
        };
        let tables = &self.tables;
        // Span numbers start at 1, so their table has one entry more.
        let done = part(tables.map.load(Relaxed), size_of::<u32>())
            && part(tables.spans.load(Relaxed) + size_of::<Span>(), size_of::<Span>())
            && part(tables.classes.load(Relaxed), size_of::<u8>())
            && part(tables.base.load(Relaxed), PAGE_SIZE);
        if done {
            tables.committed.store(end * PAGE_SIZE, Release); // pairs with `span_of`
        }
        done
    }

    /// A span over pages that belong to no other. Every span has a page of its own, so the table suffices.
    fn new_span(&self, heap: &mut Guard<'_, State>, first: usize, pages: usize, zero: bool) -> SpanId {
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

    /// Joins a span on no list with its free neighbours of the same kind.
    fn coalesce(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        // SAFETY: the span is on no list and in nobody's use; we hold the lock.
        let zero = unsafe { span.locked() }.zero;
        let before = span.first_page().checked_sub(1);
        let after = Some(span.first_page() + span.pages()).filter(|page| *page < heap.pages_used);
        for page in [before, after].into_iter().flatten() {
            let neighbour = SpanId(self.entry(page).load(Relaxed));
            let other = self.span(neighbour);
            // By **mapped**, the entry of a page at the border of a free span is right; any other entry names a
            // span whose state or extent says that it is not such a one.
            if neighbour == SpanId::NONE || other.state() != SpanState::Free || !other.covers(page) {
                continue;
            }
            // SAFETY: a free span is the lock's, which we hold.
            if unsafe { other.locked() }.zero != zero {
                continue;
            }
            self.remove_free(heap, neighbour);
            span.set_extent(span.first_page().min(other.first_page()), span.pages() + other.pages());
            other.set_state(SpanState::Unused);
            // SAFETY: off its list, and we hold the lock.
            unsafe { other.locked() }.next = heap.unused;
            heap.unused = neighbour;
        }
    }

    fn insert_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let span = self.span(id);
        let (first, pages) = (span.first_page(), span.pages());
        let list = list_of(pages);
        // SAFETY: the span is on no list, its new neighbour is on one, and we hold the lock.
        let zero = unsafe {
            let fields = span.locked();
            let head = core::mem::replace(&mut heap.free[fields.zero as usize].head[list], id);
            (fields.next, fields.previous) = (head, SpanId::NONE);
            if head != SpanId::NONE {
                self.span(head).locked().previous = id;
            }
            fields.zero
        };
        heap.free[zero as usize].nonempty[list / 64] |= 1 << (list % 64);
        *if zero { &mut heap.totals.zero } else { &mut heap.totals.free } += pages;
        span.set_state(SpanState::Free);
        self.entry(first).store(id.0, Release);
        self.entry(first + pages - 1).store(id.0, Release);
    }

    fn remove_free(&self, heap: &mut Guard<'_, State>, id: SpanId) {
        let pages = self.span(id).pages();
        let list = list_of(pages);
        // SAFETY: the span and its neighbours are on a free list, so the lock's, which we hold.
        let zero = unsafe {
            let fields = self.span(id).locked();
            let lists = &mut heap.free[fields.zero as usize];
            if fields.next != SpanId::NONE {
                self.span(fields.next).locked().previous = fields.previous;
            }
            if fields.previous != SpanId::NONE {
                self.span(fields.previous).locked().next = fields.next;
            } else {
                lists.head[list] = fields.next;
                if fields.next == SpanId::NONE {
                    lists.nonempty[list / 64] &= !(1 << (list % 64));
                }
            }
            fields.zero
        };
        *if zero { &mut heap.totals.zero } else { &mut heap.totals.free } -= pages;
    }

    /// Gives free runs back to the kernel, longest first, until at most `keep` pages of them are resident;
    /// returns how many pages went back.
    fn release_down_to(&self, heap: &mut Guard<'_, State>, keep: usize) -> usize {
        let mut released = 0;
        for list in (0..LISTS).rev() {
            let mut id = heap.free[0].head[list];
            while id != SpanId::NONE && heap.totals.free > keep {
                let (start, pages) = (self.start(id), self.span(id).pages());
                // SAFETY: on a free list, so the lock's, which we hold.
                let next = unsafe { self.span(id).locked() }.next;
                // SAFETY: free pages hold nothing anybody needs.
                if !unsafe { os::release(start as *mut u8, pages * PAGE_SIZE) } {
                    return released; // the process's memory is locked: all runs are alike
                }
                self.remove_free(heap, id);
                // SAFETY: as above.
                unsafe { self.span(id).locked() }.zero = true;
                self.coalesce(heap, id);
                self.insert_free(heap, id);
                released += pages;
                id = next;
            }
        }
        released
    }
}

fn prev_power_of_two(number: usize) -> usize {
    number.checked_ilog2().map_or(0, |bits| 1 << bits)
}

/// The list for runs of `pages`.
fn list_of(pages: usize) -> usize {
    if pages < EXACT {
        return pages;
    }
    let doubling = pages.ilog2() as usize;
    EXACT + (doubling - 7) * 8 + ((pages >> (doubling - 3)) & 7)
}

fn next_nonempty(words: &[u64; WORDS], from: usize) -> Option<usize> {
    let first = words.get(from / 64)? & (u64::MAX << (from % 64));
    let rest = words.iter().copied().enumerate().skip(from / 64 + 1);
    let mut candidates = core::iter::once((from / 64, first)).chain(rest);
    let (index, word) = candidates.find(|(_, word)| *word != 0)?;
    Some(index * 64 + word.trailing_zeros() as usize)
}
