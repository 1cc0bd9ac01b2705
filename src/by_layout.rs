//! What every allocator that knows its blocks by their layouts does alike.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use crate::size_class::SizeClass;

/// Zeroes `bytes` at the block, unless there is none or it reads as zero already.
///
/// # Safety
///
/// * The block is null, or the caller's and has so many bytes.
#[inline]
pub unsafe fn zeroed((block, zero): (*mut u8, bool), bytes: usize) -> *mut u8 {
    if !block.is_null() && !zero {
        // SAFETY: by our own contract.
        unsafe { ptr::write_bytes(block, 0, bytes) };
    }
    block
}

/// [`GlobalAlloc::realloc`]: a block stays where it is if its class does not change. A large one that stays large goes
/// through `resize_large`; all others are copied.
///
/// # Safety
///
/// * As for [`GlobalAlloc::realloc`] of `heap`.
#[inline]
pub unsafe fn realloc(
    heap: &impl GlobalAlloc,
    block: *mut u8,
    layout: Layout,
    new_size: usize,
    resize_large: impl FnOnce(*mut u8, Layout) -> *mut u8,
) -> *mut u8 {
    // SAFETY: by GlobalAlloc's contract, `new_size` rounded up to the alignment does not overflow.
    let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
    match (SizeClass::of(layout), SizeClass::of(new)) {
        (Some(old), Some(new)) if old == new => return block,
        (None, None) => return resize_large(block, new),
        _ => {}
    }
    // SAFETY: `new` is a layout; both blocks have the bytes copied, and are distinct.
    unsafe {
        let moved = heap.alloc(new);
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
            heap.dealloc(block, layout);
        }
        moved
    }
}
