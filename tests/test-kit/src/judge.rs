//! Asks the subject, and judges its answers.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::block::{Block, Difference};
use crate::books::Books;
use crate::errno;
use crate::subject::{Errno, Subject};
use crate::verdict::{Kind, Page, count};

/// What errno is before each call: no error's number.
const SENTINEL: i32 = 4242;

/// One subject and what is known of it. Used by all threads of a case.
pub struct Judge<'a, S> {
    pub subject: &'a S,
    pub page: &'a Page,
    pub books: &'a Books,
    errno: Errno,
    /// Odd while memory is limited; another one after each time.
    pressure: AtomicU64,
    names: AtomicU64,
}

impl<'a, S: Subject> Judge<'a, S> {
    pub fn new(subject: &'a S, page: &'a Page, books: &'a Books) -> Judge<'a, S> {
        let (pressure, names) = (AtomicU64::new(0), AtomicU64::new(1));
        Judge { subject, page, books, errno: subject.errno(), pressure, names }
    }

    /// From now on, or no more, requests may be refused.
    pub fn turn_pressure(&self) {
        self.pressure.fetch_add(1, SeqCst);
    }

    fn name(&self) -> u64 {
        self.names.fetch_add(1, SeqCst)
    }

    /// A block, filled. `None`: there is no memory, which is as it should be.
    pub fn allocate(&self, layout: Layout, zeroed: bool, key: u16) -> Option<Block> {
        let before = self.pressure.load(SeqCst);
        errno::set(SENTINEL);
        let start = {
            // SAFETY: no operation has a size of 0.
            unsafe { if zeroed { self.subject.allocate_zeroed(layout) } else { self.subject.allocate(layout) } }
        };
        let errno = errno::get();
        self.page.progress();
        let Some(start) = NonNull::new(start) else {
            self.refused(errno, before, layout);
            return None;
        };
        self.succeeded(errno, "allocate");
        let block = Block { start, layout, name: self.name(), key };
        self.hold(&block);
        if zeroed && let Some(Difference { at, found, .. }) = block.not_zero() {
            self.page.fail(Kind::NotZero, format_args!("byte {at} of {} is {found:#04x}, not 0", Shown(&block)));
        }
        block.write();
        count(&self.page.counters.allocated);
        Some(block)
    }

    /// The block with another size, filled anew; or as it was, and false.
    pub fn resize(&self, block: &mut Block, size: usize) -> bool {
        let Ok(layout) = Layout::from_size_align(size, block.layout.align()) else { return false };
        self.check(block);
        self.books.remove(block);
        let before = self.pressure.load(SeqCst);
        errno::set(SENTINEL);
        // SAFETY: the block is held with this layout; no operation has a size of 0.
        let start = unsafe { self.subject.resize(block.start.as_ptr(), block.layout, size) };
        let errno = errno::get();
        self.page.progress();
        let Some(start) = NonNull::new(start) else {
            self.hold(block);
            self.check(block);
            self.refused(errno, before, layout);
            return false;
        };
        self.succeeded(errno, "resize");
        let moved = Block { start, layout, name: self.name(), ..*block };
        self.hold(&moved);
        if let Some(Difference { at, expected, found }) = block.difference_at(start, size.min(block.layout.size())) {
            let (old, new) = (Shown(block), Shown(&moved));
            self.page.fail(
                Kind::NotKept,
                format_args!("{old} became {new}; its byte {at} was {expected:#04x} and is {found:#04x}"),
            );
        }
        moved.write();
        *block = moved;
        count(&self.page.counters.resized);
        true
    }

    /// Checks the block and gives it back.
    pub fn free(&self, block: Block) {
        self.check(&block);
        self.books.remove(&block);
        errno::set(SENTINEL);
        // SAFETY: the block is held with this layout, and forgotten now.
        unsafe { self.subject.free(block.start.as_ptr(), block.layout) };
        let errno = errno::get();
        if self.errno.kept_by_free && errno != SENTINEL {
            self.page.fail(Kind::Errno, format_args!("free of {} changed errno to {errno}", Shown(&block)));
        }
        self.page.progress();
        count(&self.page.counters.freed);
    }

    /// Asks for more than there can be.
    pub fn allocate_impossible(&self, align: usize) {
        let size = isize::MAX as usize & !(align - 1);
        let Ok(layout) = Layout::from_size_align(size, align) else { return };
        errno::set(SENTINEL);
        // SAFETY: the size is not 0.
        let start = unsafe { self.subject.allocate(layout) };
        let errno = errno::get();
        if !start.is_null() {
            self.page.fail(Kind::Granted, format_args!("{layout:?} was granted, at {start:?}"));
        }
        self.unsuccessful(errno, layout);
    }

    /// Fails if the block is not as it was filled.
    pub fn check(&self, block: &Block) {
        if let Some(Difference { at, expected, found }) = block.difference() {
            let block = Shown(block);
            self.page.fail(
                Kind::Changed,
                format_args!("byte {at} of {block} was {expected:#04x} and is {found:#04x}, while it was held"),
            );
        }
    }

    /// Notes a block as held, if it may be where it is.
    fn hold(&self, block: &Block) {
        if !block.address().is_multiple_of(block.layout.align()) {
            self.page.fail(Kind::Misaligned, format_args!("{}", Shown(block)));
        }
        if let Err(other) = self.books.add(block) {
            let other = other.name;
            self.page.fail(Kind::Overlap, format_args!("{} overlaps block {other}, which is held", Shown(block)));
        }
    }

    fn succeeded(&self, errno: i32, what: &str) {
        if self.errno.kept_by_success && errno != SENTINEL {
            self.page.fail(Kind::Errno, format_args!("{what} succeeded and changed errno to {errno}"));
        }
        if self.errno.enomem && errno == 0 {
            self.page.fail(Kind::Errno, format_args!("{what} set errno to 0"));
        }
    }

    fn refused(&self, errno: i32, before: u64, layout: Layout) {
        let after = self.pressure.load(SeqCst);
        if before == after && before.is_multiple_of(2) {
            let (size, align) = (layout.size(), layout.align());
            let text =
                format_args!("no memory for {size} bytes aligned to {align}, and nothing limits it (errno {errno})");
            self.page.fail(Kind::Refused, text);
        }
        self.unsuccessful(errno, layout);
    }

    fn unsuccessful(&self, errno: i32, layout: Layout) {
        if self.errno.enomem && errno != libc::ENOMEM {
            let is = if errno == SENTINEL { "was left as it was" } else { "is another error's" };
            let (size, enomem) = (layout.size(), libc::ENOMEM);
            self.page.fail(
                Kind::Errno,
                format_args!("no memory for {size} bytes, and errno {is}: {errno}, expected ENOMEM ({enomem})"),
            );
        }
        count(&self.page.counters.refused);
    }
}

/// A block as faults name it.
pub struct Shown<'a>(pub &'a Block);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Block { start, layout, name, .. } = self.0;
        write!(f, "block {name} ({} bytes aligned to {}, at {start:?})", layout.size(), layout.align())
    }
}
