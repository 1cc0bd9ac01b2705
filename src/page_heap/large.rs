//! Large blocks: runs of pages of their own, grown and shrunk in place, or moved without a copy.

use core::alloc::Layout;
use core::ptr;

use crate::config::{EXCHANGE_PAGES, PAGE_SIZE, RELOCATE_BYTES};
use crate::os;
use crate::page_heap::source::{PageSource, Relocation};
use crate::page_heap::span::{SpanId, SpanState};
use crate::page_heap::{PageHeap, Run};

/// Bytes that are looked at together: a usual page of the kernel's.
const UNIT: usize = if PAGE_SIZE < 4096 { PAGE_SIZE } else { 4096 };
/// Units of zeroes one after another from which a block that is copied counts as one the program hardly touched.
const SPARSE: usize = 16;
/// Units of a block that are looked at to guess how much of it was touched.
const PROBES: usize = 8;
/// Bytes that are made readable at a time.
const READABLE: usize = 2 << 20;

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
    // A place that is resident is cheaper to copy to than to give up, and what is left behind is the next block's place.
    // But a long block is not to stay resident twice, and of one that was hardly touched there is little to move.
    // SAFETY: by our own contract the block is the caller's, and so long.
    let moves = || run.zero || kept >= EXCHANGE_PAGES || unsafe { is_hardly_touched(start, kept * PAGE_SIZE) };
    if kept * PAGE_SIZE >= RELOCATE_BYTES && moves() {
        // SAFETY: both runs are ours, and so long.
        match unsafe { pages.relocate(id, run.id, kept) } {
            Relocation::Moved => moved = true,
            Relocation::Refused => {}
            Relocation::Lost => run = allocate(pages, layout)?,
        }
    }
    // SAFETY: both runs are ours, and so long; after this nobody uses the old one.
    unsafe {
        let zero = if moved { kept == old } else { copy_run(pages, id, run, kept) && pages.empty(id, 0, old) };
        pages.release(id, zero);
    }
    Some(pages.start(run.id))
}

/// Copies so many pages from run to run. Old data where zeroes belong goes back. Returns whether most of it was zero.
///
/// # Safety
///
/// * Both runs are the caller's, apart and so long. The second holds nothing anybody needs.
unsafe fn copy_run<S: PageSource>(pages: &PageHeap<S>, from: SpanId, to: Run, count: usize) -> bool {
    let (source, target) = (pages.start(from) as *const u8, pages.start(to.id) as *mut u8);
    let empty = |offset: usize| {
        // A page is given back whole.
        let page = offset / PAGE_SIZE;
        // SAFETY: by our own contract; what lies behind is not copied yet.
        offset.is_multiple_of(PAGE_SIZE).then(|| unsafe { pages.empty(to.id, page, count - page) })
    };
    // SAFETY: by our own contract.
    unsafe { copy_touched(source, target, count * PAGE_SIZE, to.zero, empty) }
}

/// Copies the contents of a large block to another, which reads as zero if `zero` says so.
///
/// # Safety
///
/// * Both blocks are the caller's, apart, so long and aligned to a word. The second holds nothing anybody needs.
pub unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize, zero: bool) {
    // SAFETY: by our own contract.
    unsafe { copy_touched(source, target, bytes, zero, |_| Some(false)) };
}

/// Copies. What reads as zero on both sides is left alone: what the program never touched takes no memory in the copy
/// either. Returns whether that was most of it.
///
/// Only a look says what was touched, and each look at a page that was not is a page fault. So where zeroes follow one
/// another, the kernel is told to make many pages readable at a time, and `empty` is asked to make zeroes of all that is
/// at the new place from an offset on: it says whether it did, or nothing if it cannot begin there.
///
/// # Safety
///
/// * As for [`copy`].
unsafe fn copy_touched(
    source: *const u8,
    target: *mut u8,
    bytes: usize,
    zero: bool,
    empty: impl Fn(usize) -> Option<bool>,
) -> bool {
    // Short blocks, and what is behind the last unit, as they are.
    let looked_at = if bytes < RELOCATE_BYTES { 0 } else { bytes / UNIT * UNIT };
    // SAFETY: by our own contract.
    unsafe { ptr::copy_nonoverlapping(source.add(looked_at), target.add(looked_at), bytes - looked_at) };
    let (mut zeroes, mut in_a_row, mut readable, mut asked, mut target_is_zero) = (0, 0, 0, zero, zero);
    for offset in (0..looked_at).step_by(UNIT) {
        // SAFETY: by our own contract, here and below: within both.
        let (here, there) = unsafe { (source.add(offset), target.add(offset)) };
        if in_a_row >= SPARSE {
            if offset >= readable {
                readable = looked_at.min(offset + READABLE);
                // SAFETY: as above; what is read stays as it is.
                unsafe { os::make_readable(here, readable - offset) };
            }
            if !asked && let Some(emptied) = empty(offset) {
                (asked, target_is_zero) = (true, emptied);
            }
        }
        // SAFETY: as above.
        unsafe {
            if !is_zero(here) {
                in_a_row = 0;
                ptr::copy_nonoverlapping(here, there, UNIT);
                continue;
            }
            (zeroes, in_a_row) = (zeroes + 1, in_a_row + 1);
            if !target_is_zero && !is_zero(there) {
                there.write_bytes(0, UNIT);
            }
        }
    }
    zeroes * UNIT * 2 > bytes
}

/// Whether a block looks as if the program had written to less than half of it: most of a few units read as zero.
///
/// # Safety
///
/// * From `start` on, `bytes` bytes are the caller's, and nobody writes to them.
unsafe fn is_hardly_touched(start: usize, bytes: usize) -> bool {
    let units = (0..PROBES).map(|probe| bytes / UNIT * (2 * probe + 1) / (2 * PROBES) * UNIT);
    // SAFETY: within the block.
    units.filter(|offset| unsafe { is_zero((start + offset) as *const u8) }).count() * 2 > PROBES
}

/// Whether a unit reads as zero. One that was never touched does, and stays untouched.
///
/// # Safety
///
/// * It is the caller's, and nobody writes to it.
unsafe fn is_zero(unit: *const u8) -> bool {
    // SAFETY: by our own contract; any word is a number.
    let words = unsafe { core::slice::from_raw_parts(unit.cast::<u64>(), UNIT / size_of::<u64>()) };
    // In parts, of which the first one of a page that was used is nearly always enough.
    words.chunks(64).all(|part| part.iter().fold(0, |all, word| all | word) == 0)
}
