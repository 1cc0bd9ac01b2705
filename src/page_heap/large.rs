//! Large blocks: runs of pages of their own, grown and shrunk in place, or moved without a copy.

use core::alloc::Layout;
use core::ptr;

use crate::config::{PAGE_SIZE, RELOCATE_BYTES};
use crate::page_heap::source::{PageSource, Relocation};
use crate::page_heap::span::{SpanId, SpanState};
use crate::page_heap::{PageHeap, Run};

/// The large block that begins at `address`, if one does.
pub fn at<S: PageSource>(pages: &PageHeap<S>, address: usize) -> Option<SpanId> {
    let id = pages.span_of(address)?;
    (pages.start(id) == address && pages.span(id).state() == SpanState::Large).then_some(id)
}

/// A run of pages for `layout`. `None` if memory is exhausted.
pub fn allocate<S: PageSource>(pages: &PageHeap<S>, layout: Layout) -> Option<Run> {
    // Beyond what any heap has, the arithmetic need not be right.
    if layout.size() > pages.most_bytes() {
        return None;
    }
    pages.allocate(layout.size().div_ceil(PAGE_SIZE).max(1), layout.align(), SpanState::Large)
}

/// Makes the large block `id` one of `layout`; returns where it is now. `None`, and the block is as it was, if memory
/// is exhausted.
///
/// # Safety
///
/// * The block is the caller's. If its address changes, the old one is gone.
pub unsafe fn resize<S: PageSource>(pages: &PageHeap<S>, id: SpanId, layout: Layout) -> Option<usize> {
    let (old, new) = (pages.span(id).pages(), layout.size().div_ceil(PAGE_SIZE).max(1));
    let start = pages.start(id);
    if start.is_multiple_of(layout.align()) {
        // SAFETY: by our own contract, what is cut off is not used any more.
        if old == new || (layout.size() <= pages.most_bytes() && unsafe { pages.resize(id, new) }) {
            return Some(start);
        }
    }
    let kept = old.min(new);
    let mut run = allocate(pages, layout)?;
    let mut moved = false;
    if kept * PAGE_SIZE >= RELOCATE_BYTES {
        // SAFETY: both runs are ours, and so long.
        match unsafe { pages.relocate(id, run.id, kept) } {
            Relocation::Moved => moved = true,
            Relocation::Refused => {}
            Relocation::Lost => run = allocate(pages, layout)?,
        }
    }
    let target = pages.start(run.id);
    // SAFETY: both runs are ours, and so long; after this nobody uses the old one.
    unsafe {
        if !moved {
            copy(start as *const u8, target as *mut u8, kept);
        }
        pages.release(id, moved && kept == old);
    }
    Some(target)
}

/// Copies so many pages. Those that read as zero on both sides are left alone: what the program never touched takes no
/// memory in the copy either.
///
/// # Safety
///
/// * Both places are the caller's, apart, aligned to a page and so long.
unsafe fn copy(source: *const u8, target: *mut u8, pages: usize) {
    if pages * PAGE_SIZE < RELOCATE_BYTES {
        // SAFETY: by our own contract.
        return unsafe { ptr::copy_nonoverlapping(source, target, pages * PAGE_SIZE) };
    }
    for offset in (0..pages).map(|page| page * PAGE_SIZE) {
        // SAFETY: by our own contract, here and below: within both.
        let (from, to) = unsafe { (source.add(offset), target.add(offset)) };
        // SAFETY: as above.
        unsafe {
            if !(is_zero(from) && is_zero(to)) {
                ptr::copy_nonoverlapping(from, to, PAGE_SIZE);
            }
        }
    }
}

/// Whether a page reads as zero. One that was never touched does, and stays untouched.
///
/// # Safety
///
/// * The page is the caller's, and nobody writes to it.
unsafe fn is_zero(page: *const u8) -> bool {
    // SAFETY: by our own contract; any word is a number.
    let words = unsafe { core::slice::from_raw_parts(page.cast::<u64>(), PAGE_SIZE / size_of::<u64>()) };
    // In parts, of which the first one of a page that was used is nearly always enough.
    words.chunks(64).all(|part| part.iter().fold(0, |all, word| all | word) == 0)
}
