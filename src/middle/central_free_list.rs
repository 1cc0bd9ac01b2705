//! One size class's spans. Hands out free objects and takes them back; empty spans return to the page heap.
//!
//! Spans with room are kept on lists by how full they are, and objects are taken from the fullest, so that
//! full spans stay full and sparse ones empty. A full span is on no list. A returned object is a bit in its
//! span's bitmap: the object itself is not touched. One empty span is kept, so that a lone object that comes
//! and goes does not take a span with it each time.
//!
//! Objects of [`emergency`] memory have no span: they are kept here, linked through themselves, and handed out first.

use core::mem::offset_of;
use core::ptr;

use crate::config::{MAX_BATCH, PAGE_SIZE};
use crate::emergency;
use crate::lock_order::Rank;
use crate::message::law;
use crate::middle::spare_bitmaps::SpareBitmaps;
use crate::middle::tables::Tables;
use crate::misuse::Misuse;
use crate::page_heap::PageHeap;
use crate::page_heap::source::PageSource;
use crate::page_heap::span::{SpanId, SpanState, needs_bitmap};
use crate::place::bytes;
use crate::size_class::SizeClass;
use crate::sync::Mutex;

/// Lists by eighths in use; the last holds the fullest.
const LISTS: usize = 8;
/// The mark of a span on no list.
const UNLISTED: u8 = LISTS as u8;

/// The spans of one class.
pub struct CentralFreeList(Mutex<State>);

struct State {
    lists: [SpanId; LISTS],
    /// The one span without a live object, if any: on no list.
    empty: SpanId,
    /// Bitmaps of spans that went back.
    bitmaps: SpareBitmaps,
    spans: usize,
    live: usize,
    /// Free objects without a span, each beginning with the address of the next, and how many.
    spanless: *mut u8,
    spanless_count: usize,
}

// SAFETY: the linked objects are free, and the list belongs to the lock.
unsafe impl Send for State {}

/// What a class's spans hold, in objects.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// Objects of spans that are in caches, transfer caches or the program's hands.
    pub live: usize,
    /// Free objects, in spans or without one.
    pub free: usize,
    /// Those without one.
    pub spanless: usize,
    pub spans: usize,
}

/// Where a central free list has what it counts, in bytes from its beginning. All are words of 64 bits, under the lock,
/// but for that.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CentralLayout {
    /// 32 bits: 0 while nobody has the lock.
    pub lock: u32,
    /// Spans of the class.
    pub spans: u32,
    /// Objects of them that are not free in them.
    pub live: u32,
    /// Free objects that have no span.
    pub spanless: u32,
}

impl CentralFreeList {
    /// See [`CentralLayout`].
    pub const LAYOUT: CentralLayout = {
        let state = offset_of!(CentralFreeList, 0);
        let value = state + Mutex::<State>::VALUE_AT;
        CentralLayout {
            lock: bytes(state + Mutex::<State>::WORD_AT),
            spans: bytes(value + offset_of!(State, spans)),
            live: bytes(value + offset_of!(State, live)),
            spanless: bytes(value + offset_of!(State, spanless_count)),
        }
    };

    pub const fn new() -> Self {
        let state = State {
            lists: [SpanId::NONE; LISTS],
            empty: SpanId::NONE,
            bitmaps: SpareBitmaps::new(),
            spans: 0,
            live: 0,
            spanless: ptr::null_mut(),
            spanless_count: 0,
        };
        CentralFreeList(Mutex::new(Rank::CentralFreeList, state))
    }

    /// Fills `out` with objects; returns how many, fewer only if memory is exhausted or a fork holds the lock.
    pub fn remove_range(&self, class: SizeClass, tables: Tables<'_, impl PageSource>, out: &mut [*mut u8]) -> usize {
        let Some(mut state) = self.0.lock_unless_forking() else { return 0 };
        let pages = tables.pages;
        let spanless = state.take_spanless(out);
        let mut taken = spanless;
        while taken < out.len() {
            let Some(id) = state.fullest().or_else(|| state.grow(class, tables)) else { break };
            let start = pages.start(id);
            // SAFETY: by **locked**, a span of this class is ours while we hold the lock.
            taken += unsafe { pages.span(id).locked() }.take(class.info(), start, &mut out[taken..]);
            state.relist(class, pages, id);
        }
        state.live += taken - spanless;
        taken
    }

    /// Takes objects of `class` back, at most [`MAX_BATCH`].
    ///
    /// # Errors
    ///
    /// One of them is no object of the class, or is free already. Such ones are left out.
    pub fn insert_range(
        &self,
        class: SizeClass,
        pages: &PageHeap<impl PageSource>,
        objects: &[*mut u8],
    ) -> Result<(), Misuse> {
        let mut ids = [SpanId::NONE; MAX_BATCH + 1];
        let ids = &mut ids[..objects.len()];
        // Before the lock: objects of a batch lie in many spans, and their lines arrive together.
        let mut last = (usize::MAX, SpanId::NONE);
        for (id, &object) in ids.iter_mut().zip(objects) {
            let page = object as usize / PAGE_SIZE;
            if page != last.0 {
                last = (page, pages.span_of(object as usize).unwrap_or(SpanId::NONE));
            }
            *id = last.1;
        }
        let Some(mut state) = self.0.lock_unless_forking() else {
            // SAFETY: the objects are nobody's.
            unsafe { emergency::defer_all(objects) };
            return Ok(());
        };
        // Objects of one span often follow one another: it is looked at once for all of them.
        let (mut rest, mut finding) = (objects, Ok(()));
        for run in ids.chunk_by(|one, other| one == other) {
            let (own, others) = rest.split_at(run.len());
            finding = finding.and(state.put(class, pages, run[0], own));
            rest = others;
        }
        finding
    }

    /// Whether an object of a span of `class` is free in it. Where nobody can know any more, it is not.
    pub fn is_free(&self, class: SizeClass, pages: &PageHeap<impl PageSource>, id: SpanId, index: usize) -> bool {
        let Some(_state) = self.0.lock_unless_orphaned() else { return false };
        // SAFETY: by **locked**, a span of this class is ours while we hold the lock.
        unsafe { pages.span(id).locked() }.is_free(class.info(), index)
    }

    /// Gives the empty span back to the page heap.
    pub fn trim(&self, class: SizeClass, pages: &PageHeap<impl PageSource>) {
        let Some(mut state) = self.0.lock_unless_orphaned() else { return };
        let id = core::mem::replace(&mut state.empty, SpanId::NONE);
        if id != SpanId::NONE {
            state.give_back(class, pages, id);
        }
    }

    pub fn totals(&self, class: SizeClass) -> Totals {
        let state = self.0.lock();
        let in_spans = state.spans * class.info().objects as usize - state.live;
        Totals {
            live: state.live,
            free: in_spans + state.spanless_count,
            spanless: state.spanless_count,
            spans: state.spans,
        }
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.0
    }

    /// Walks the spans that have room. Those without are on no list: what is not seen must be theirs.
    #[cfg(debug_assertions)]
    pub fn check(&self, class: SizeClass, pages: &PageHeap<impl PageSource>) {
        let (state, objects) = (self.0.lock(), class.info().objects as usize);
        let (mut spans, mut live) = (0, 0);
        let mut see = |id: SpanId, list: u8| {
            law!(pages.span(id).is_small(class), "listed: a span on a list of a class is small and of the class");
            // SAFETY: by **locked**, a span of this class is ours while we hold the lock.
            let span = unsafe { pages.span(id).locked() };
            let free = span.count_free(class.info());
            law!(span.live as usize + free == objects, "conservation: live and free objects are a span's objects");
            law!(span.list == list, "listed: a span knows its list");
            (spans, live) = (spans + 1, live + span.live as usize);
            law!(spans <= state.spans, "listed: no list is a circle");
            (span.live as usize, span.previous, span.next)
        };
        for (list, &head) in state.lists.iter().enumerate() {
            let (mut before, mut id) = (SpanId::NONE, head);
            while id != SpanId::NONE {
                let (live, previous, next) = see(id, list as u8);
                law!(live > 0 && live * LISTS / objects == list, "listed: a span is where its live objects put it");
                law!(previous == before, "listed: a span knows its neighbours");
                (before, id) = (id, next);
            }
        }
        if state.empty != SpanId::NONE {
            let (live, ..) = see(state.empty, UNLISTED);
            law!(live == 0, "listed: the span kept without a live object has none");
        }
        law!(
            live + (state.spans - spans) * objects == state.live,
            "conservation: the spans' live objects are the class's"
        );
    }
}

/// Which object of `class` begins at `address`, in the span that the page map names.
pub fn object_at(
    class: SizeClass,
    pages: &PageHeap<impl PageSource>,
    id: SpanId,
    address: usize,
) -> Result<usize, Misuse> {
    let start = start_of(class, pages, id)?;
    index_at(class, address.wrapping_sub(start))
}

/// Where a span of `class` begins.
#[inline]
fn start_of(class: SizeClass, pages: &PageHeap<impl PageSource>, id: SpanId) -> Result<usize, Misuse> {
    if id == SpanId::NONE {
        return Err(Misuse::FreeOfForeign);
    }
    if !pages.span(id).is_small(class) {
        return Err(Misuse::FreeWithOtherSize);
    }
    Ok(pages.start(id))
}

/// Which object of `class` begins so many bytes after the start of its span.
#[inline]
fn index_at(class: SizeClass, offset: usize) -> Result<usize, Misuse> {
    let info = class.info();
    let index = info.index_of(offset.min(info.pages as usize * PAGE_SIZE));
    let begins = index * class.size() == offset && index < info.objects as usize;
    if begins { Ok(index) } else { Err(Misuse::FreeIntoTheMiddle) }
}

impl State {
    /// Takes objects back that the page map says are in one span, or in none.
    fn put(
        &mut self,
        class: SizeClass,
        pages: &PageHeap<impl PageSource>,
        id: SpanId,
        objects: &[*mut u8],
    ) -> Result<(), Misuse> {
        if id == SpanId::NONE {
            let keep = |object: &*mut u8| match emergency::object_at(*object as usize) {
                Some(found) if found == (class, 0) => {
                    self.keep_spanless(*object);
                    Ok(())
                }
                _ => Err(Misuse::FreeOfForeign),
            };
            return objects.iter().map(keep).fold(Ok(()), Result::and);
        }
        let start = start_of(class, pages, id)?;
        // SAFETY: by **locked**, a span of this class is ours while we hold the lock, as our caller does.
        let span = unsafe { pages.span(id).locked() };
        let indices = objects.iter().map(|&object| index_at(class, (object as usize).wrapping_sub(start)));
        let (count, finding) = span.put(class.info(), indices);
        self.live -= count;
        self.relist(class, pages, id);
        finding
    }

    /// Keeps a free object that has no span.
    fn keep_spanless(&mut self, object: *mut u8) {
        // SAFETY: an object is at least a word, aligned to one, and this one is nobody's.
        unsafe { object.cast::<*mut u8>().write(self.spanless) };
        self.spanless = object;
        self.spanless_count += 1;
    }

    /// Fills `out` with free objects that have no span; returns how many.
    fn take_spanless(&mut self, out: &mut [*mut u8]) -> usize {
        let mut taken = 0;
        while taken < out.len() && !self.spanless.is_null() {
            out[taken] = self.spanless;
            // SAFETY: `keep_spanless` wrote the word, and the object is still free.
            self.spanless = unsafe { self.spanless.cast::<*mut u8>().read() };
            taken += 1;
        }
        self.spanless_count -= taken;
        taken
    }

    /// The fullest span with room, the empty one last.
    fn fullest(&self) -> Option<SpanId> {
        let listed = self.lists.iter().rev().copied().find(|head| *head != SpanId::NONE);
        listed.or((self.empty != SpanId::NONE).then_some(self.empty))
    }

    /// Another span, on no list.
    fn grow(&mut self, class: SizeClass, tables: Tables<'_, impl PageSource>) -> Option<SpanId> {
        let pages = tables.pages;
        let run = pages.allocate(class.info().pages as usize, 0, SpanState::Small)?;
        let needed = needs_bitmap(class.info());
        let bitmap = if needed { self.bitmaps.allocate(tables) } else { None };
        // SAFETY: the span is new, so ours alone; so is the bitmap.
        unsafe {
            if needed && bitmap.is_none() {
                pages.release(run.id, run.zero);
                return None;
            }
            let span = pages.span(run.id);
            span.become_small(class, bitmap);
            span.locked().list = UNLISTED;
        }
        pages.set_class(run.id, class);
        self.spans += 1;
        Some(run.id)
    }

    /// Moves a span to the list its number of live objects asks for.
    fn relist(&mut self, class: SizeClass, pages: &PageHeap<impl PageSource>, id: SpanId) {
        let objects = class.info().objects as usize;
        // SAFETY: by **locked**: our caller holds the class's lock.
        let span = unsafe { pages.span(id).locked() };
        let (live, was) = (span.live as usize, span.list);
        law!(live <= objects, "conservation: no more live objects than a span has");
        let list = if live == 0 || live == objects { UNLISTED } else { (live * LISTS / objects) as u8 };
        if list != was {
            self.unlist(pages, id);
            if list != UNLISTED {
                self.enlist(pages, id, list);
            }
        }
        if self.empty == id && live > 0 {
            self.empty = SpanId::NONE;
        } else if live == 0 && self.empty != id {
            if self.empty == SpanId::NONE {
                self.empty = id;
            } else {
                self.give_back(class, pages, id);
            }
        }
    }

    fn unlist(&mut self, pages: &PageHeap<impl PageSource>, id: SpanId) {
        // SAFETY: spans of our class are ours under the lock; a span is not its own neighbour.
        unsafe {
            let span = pages.span(id).locked();
            if span.list == UNLISTED {
                return;
            }
            law!(self.empty != id, "listed: the span kept without a live object is on no list");
            if span.next != SpanId::NONE {
                pages.span(span.next).locked().previous = span.previous;
            }
            if span.previous == SpanId::NONE {
                self.lists[span.list as usize] = span.next;
            } else {
                pages.span(span.previous).locked().next = span.next;
            }
            span.list = UNLISTED;
        }
    }

    fn enlist(&mut self, pages: &PageHeap<impl PageSource>, id: SpanId, list: u8) {
        let head = core::mem::replace(&mut self.lists[list as usize], id);
        // SAFETY: as in `unlist`.
        unsafe {
            let span = pages.span(id).locked();
            (span.next, span.previous, span.list) = (head, SpanId::NONE, list);
            if head != SpanId::NONE {
                pages.span(head).locked().previous = id;
            }
        }
    }

    fn give_back(&mut self, class: SizeClass, pages: &PageHeap<impl PageSource>, id: SpanId) {
        // SAFETY: the span has no live object and is on no list: ours alone.
        unsafe {
            if let Some(bitmap) = pages.span(id).locked().forget_bitmap(class.info()) {
                self.bitmaps.release(bitmap);
            }
            pages.release(id, false);
        }
        self.spans -= 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::aborting::must_abort;
    use crate::middle::back_end::BackEnd;
    use crate::page_heap::source::Mmap;
    use crate::size_class::CLASSES;

    /// The control: a law that is broken is named.
    #[test]
    fn a_lost_object_is_found() {
        let name = "middle::central_free_list::tests::a_lost_object_is_found";
        must_abort(name, "conservation: the spans' live objects are the class's", || {
            let tiers = Box::new(BackEnd::new(Mmap::new(), 64 << 20));
            let class = SizeClass::from_index(7.min(CLASSES - 2));
            let list = &tiers.central[class.index()];
            let mut batch = [core::ptr::null_mut(); 3];
            assert_eq!(list.remove_range(class, tiers.tables(), &mut batch), 3);
            list.check(class, &tiers.pages);
            list.0.0.lock().live -= 1;
            list.check(class, &tiers.pages);
        });
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Remove(usize),
        /// Puts so many back, of those at a place.
        Insert(usize, usize),
        /// Puts a batch back in which one is wrong.
        Misuse(usize, Misuse),
        Trim,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        use crate::misuse::Misuse::{DoubleFree, FreeIntoTheMiddle, FreeOfForeign, FreeWithOtherSize};
        let misuse = prop::sample::select(vec![DoubleFree, FreeIntoTheMiddle, FreeOfForeign, FreeWithOtherSize]);
        prop_oneof![
            4 => (1..=MAX_BATCH).prop_map(Operation::Remove),
            4 => (any::<usize>(), 1..=MAX_BATCH).prop_map(|(place, count)| Operation::Insert(place, count)),
            1 => (any::<usize>(), misuse).prop_map(|(place, misuse)| Operation::Misuse(place, misuse)),
            1 => Just(Operation::Trim),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// No object is given twice, what is wrong is refused alone, and the laws hold after each step.
        #[test]
        fn does_as_the_model_says(
            class in prop::sample::select(vec![0, 7.min(CLASSES - 2), CLASSES / 2, CLASSES - 1]),
            operations in prop::collection::vec(operation(), 1..80),
        ) {
            let other = if class == CLASSES - 2 { 0 } else { CLASSES - 2 };
            let (class, other) = (SizeClass::from_index(class), SizeClass::from_index(other));
            let tiers = Box::new(BackEnd::new(Mmap::new(), 64 << 20));
            let (list, pages) = (&tiers.central[class.index()], &tiers.pages);
            let mut stranger = [core::ptr::null_mut()];
            prop_assert_eq!(tiers.central[other.index()].remove_range(other, tiers.tables(), &mut stranger), 1);
            let mut held: Vec<*mut u8> = Vec::new();
            for operation in operations {
                match operation {
                    Operation::Remove(count) => {
                        let mut batch = vec![core::ptr::null_mut(); count];
                        prop_assert_eq!(list.remove_range(class, tiers.tables(), &mut batch), count);
                        held.extend(batch);
                        let different: BTreeSet<_> = held.iter().collect();
                        prop_assert_eq!(different.len(), held.len(), "an object was given twice");
                    }
                    Operation::Insert(place, count) => {
                        let count = count.min(held.len());
                        let batch: Vec<_> = (0..count).map(|_| held.swap_remove(place % held.len())).collect();
                        prop_assert_eq!(list.insert_range(class, pages, &batch), Ok(()));
                    }
                    Operation::Misuse(place, misuse) if held.len() > 2 => {
                        let (one, two) = (held.swap_remove(place % held.len()), held.swap_remove(place % held.len()));
                        let wrong = match misuse {
                            Misuse::DoubleFree => one,
                            Misuse::FreeIntoTheMiddle => one.wrapping_add(1),
                            Misuse::FreeOfForeign => 4096 as *mut u8,
                            _ => stranger[0],
                        };
                        prop_assert_eq!(list.insert_range(class, pages, &[one, wrong, two]), Err(misuse));
                    }
                    Operation::Misuse(..) => {}
                    Operation::Trim => list.trim(class, pages),
                }
                list.check(class, pages);
                prop_assert_eq!(list.totals(class).live, held.len());
            }
            prop_assert_eq!(list.insert_range(class, pages, &[]), Ok(()));
            for batch in held.chunks(MAX_BATCH) {
                prop_assert_eq!(list.insert_range(class, pages, batch), Ok(()));
            }
            list.trim(class, pages);
            prop_assert_eq!((list.totals(class).live, list.totals(class).spans), (0, 0));
        }
    }
}
