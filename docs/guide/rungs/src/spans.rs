//! Rung 7, the objects: a span is a run of pages with objects of one class, and counts those that are out.
//!
//! ```text
//!   class 3   ─► span, 2 free ◄─► span, 9 free       a full span is on no list, an empty one is free pages
//! ```
//!
//! An object that comes back is put onto the list of its own span, which its address leads to.

use std::alloc::Layout;
use std::ptr;
use std::sync::Mutex;

use crate::page_heap::{MOST_ALIGN, PAGE, PAGES, PageHeap};
use crate::size_classes::{CLASSES, object_bytes};
use crate::tier::{Objects, Tier};
use crate::{kernel, lock};

/// What is known of a span, at its first page. Zeros are one without objects.
#[derive(Debug)]
struct Span {
    /// Of each page of a span: the first one.
    first: u32,
    /// Objects that are out.
    live: u32,
    free: Objects,
    /// Its neighbours among those of its class with a free object; 0: none.
    next: u32,
    before: u32,
}

/// Spans of objects, and large blocks, in pages.
#[derive(Debug)]
pub struct Spans(Mutex<State>);

#[derive(Debug)]
struct State {
    pages: PageHeap,
    /// A [`Span`] for each page; null before the first.
    table: *mut Span,
    with_room: [u32; CLASSES],
}

// SAFETY: the table is this heap's own.
unsafe impl Send for State {}

fn span_pages(class: usize) -> usize {
    (object_bytes(class) * 8).div_ceil(PAGE)
}

impl State {
    fn span(&mut self, page: u32) -> &mut Span {
        assert!((page as usize) < PAGES && !self.table.is_null());
        // SAFETY: in the table, whose zeros are a valid `Span`, and only who has the lock has it.
        unsafe { &mut *self.table.add(page as usize) }
    }

    /// Makes a span of free objects. `None`: there is no more memory.
    fn new_span(&mut self, class: usize) -> Option<u32> {
        if self.table.is_null() {
            self.table = kernel::reserve(PAGES * size_of::<Span>(), align_of::<Span>())?.as_ptr().cast();
        }
        let (pages, bytes) = (span_pages(class), object_bytes(class));
        let run = self.pages.take(pages, 1)?;
        let mut free = Objects::NONE;
        for object in (0..pages * PAGE / bytes).rev() {
            // SAFETY: within the run, which is nobody's; objects are 16 bytes and more, and as aligned.
            unsafe { free.push(self.pages.address(run).add(object * bytes)) };
        }
        let first = run as u32; // below `PAGES`
        (first..first + pages as u32).for_each(|page| self.span(page).first = first);
        *self.span(first) = Span { first, live: 0, free, next: 0, before: 0 };
        self.link(first, class);
        Some(first)
    }

    fn link(&mut self, span: u32, class: usize) {
        let next = std::mem::replace(&mut self.with_room[class], span);
        (self.span(span).next, self.span(span).before) = (next, 0);
        self.span(next).before = span; // of span 0 nobody reads it
    }

    fn unlink(&mut self, span: u32, class: usize) {
        let (next, before) = (self.span(span).next, self.span(span).before);
        self.span(next).before = before;
        *(if before == 0 { &mut self.with_room[class] } else { &mut self.span(before).next }) = next;
    }
}

impl Spans {
    /// A heap without memory. It takes some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        Spans(Mutex::new(State { pages: PageHeap::empty(), table: ptr::null_mut(), with_room: [0; CLASSES] }))
    }

    /// Shows `user` the pages, which nobody else takes meanwhile.
    pub fn with_pages<R>(&self, user: impl FnOnce(&mut PageHeap) -> R) -> R {
        user(&mut lock(&self.0).pages)
    }
}

impl Tier for Spans {
    fn take(&self, class: usize, out: &mut [*mut u8]) -> usize {
        let mut state = lock(&self.0);
        for (taken, place) in out.iter_mut().enumerate() {
            let listed = state.with_room[class];
            let Some(first) = (if listed == 0 { state.new_span(class) } else { Some(listed) }) else { return taken };
            let span = state.span(first);
            *place = span.free.pop().unwrap_or(ptr::null_mut()); // it has one: that is what the list is of
            span.live += 1;
            if span.free.count() == 0 {
                state.unlink(first, class);
            }
        }
        out.len()
    }

    unsafe fn give(&self, class: usize, objects: &[*mut u8]) {
        let mut state = lock(&self.0);
        for &object in objects {
            let page = state.pages.page_of(object) as u32;
            let first = state.span(page).first;
            if state.span(first).free.count() == 0 {
                state.link(first, class);
            }
            // SAFETY: by our own contract an object of this span that nobody uses.
            unsafe { state.span(first).free.push(object) };
            state.span(first).live -= 1;
            if state.span(first).live == 0 {
                state.unlink(first, class);
                // SAFETY: the span's pages, and none of its objects is out.
                unsafe { state.pages.give(first as usize, span_pages(class)) };
            }
        }
    }

    fn take_large(&self, layout: Layout) -> *mut u8 {
        let (pages, align) = (layout.size().div_ceil(PAGE), layout.align().div_ceil(PAGE));
        let mut state = lock(&self.0);
        let run = if layout.align() > MOST_ALIGN { None } else { state.pages.take(pages, align) };
        run.map_or(ptr::null_mut(), |run| state.pages.address(run))
    }

    unsafe fn give_large(&self, block: *mut u8, layout: Layout) {
        let mut state = lock(&self.0);
        let first = state.pages.page_of(block);
        // SAFETY: by our own contract.
        unsafe { state.pages.give(first, layout.size().div_ceil(PAGE)) };
    }
}
