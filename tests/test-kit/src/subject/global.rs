//! Any `GlobalAlloc`, the process's or not.

use std::alloc::{GlobalAlloc, Layout};

use super::Subject;

/// A `GlobalAlloc` as a [`Subject`].
pub struct ByGlobal<A>(pub A);

// SAFETY: passes calls on.
unsafe impl<A: GlobalAlloc + Sync> Subject for ByGlobal<A> {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same, here and below.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.realloc(block, layout, size) }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }
}
