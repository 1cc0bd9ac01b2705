//! Any `Allocator` of the crate allocator-api2.

use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};

use allocator_api2::alloc::{AllocError, Allocator};

use super::Subject;

/// An `Allocator` as a [`Subject`].
pub struct ByAllocator<A>(pub A);

fn start(block: Result<NonNull<[u8]>, AllocError>) -> *mut u8 {
    block.map_or(null_mut(), |block| block.as_ptr().cast())
}

// SAFETY: passes calls on.
unsafe impl<A: Allocator + Sync> Subject for ByAllocator<A> {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        start(self.0.allocate(layout))
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        start(self.0.allocate_zeroed(layout))
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        // SAFETY: a block that is held is not null, and has this layout.
        unsafe {
            let block = NonNull::new_unchecked(block);
            if size < layout.size() {
                start(self.0.shrink(block, layout, new))
            } else {
                start(self.0.grow(block, layout, new))
            }
        }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.deallocate(NonNull::new_unchecked(block), layout) }
    }
}
