//! The trait `Allocator` of the crate allocator-api2: one that is right, and one that loses what it should keep.

use std::alloc::Layout;
use std::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator, Global};
use allocator_test_kit::{ByAllocator, Kind, Kit};

#[test]
fn the_global_one_passes() {
    let passed = Kit::new().cases(20).run(|| ByAllocator(Global)).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(passed.resized > 0 && passed.forked > 0, "{passed:?}");
}

/// Copies nothing where a block shrinks.
struct Forgetful;

// SAFETY: it is not safe, which is what is found.
unsafe impl Allocator for Forgetful {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Global.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by our own contract.
        unsafe { Global.deallocate(block, layout) }
    }

    unsafe fn shrink(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let moved = self.allocate(new)?;
        // SAFETY: by our own contract.
        unsafe { self.deallocate(block, old) };
        Ok(moved)
    }
}

#[test]
fn one_that_forgets_is_found() {
    let failure = Kit::new().run(|| ByAllocator(Forgetful)).expect_err("it is found");
    assert_eq!(failure.fault.kind, Kind::NotKept, "{failure}");
    assert!(failure.operations.len() <= 2, "{failure}");
}
