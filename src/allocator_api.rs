//! `Allocator`, by which a collection names its allocator as a type: the one of allocator-api2 on stable Rust (feature
//! `allocator-api2`), the core library's on nightly (feature `nightly`, which then is allocator-api2's as well).
//!
//! What `allocate` and `grow` return is as long as the object is, so that a collection can use all of it. A block is
//! resized where it is if its size class stays the same, or if a large block has the room.

#[cfg(feature = "nightly")]
use core::alloc::{AllocError, Allocator};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

#[cfg(not(feature = "nightly"))]
use allocator_api2::alloc::{AllocError, Allocator};

use crate::allocator::Perseq;
use crate::size_class::SizeClass;

/// A block of nothing, at an address of the right alignment.
fn nothing(layout: Layout) -> NonNull<[u8]> {
    let address = ptr::without_provenance_mut(layout.align());
    NonNull::slice_from_raw_parts(NonNull::new(address).unwrap_or(NonNull::dangling()), 0)
}

/// A block made for `layout`, with all the bytes it has. Any of these sizes is in the same class, so it fits it.
fn whole(pointer: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let bytes = SizeClass::of(layout).map_or(layout.size(), SizeClass::size);
    Ok(NonNull::slice_from_raw_parts(NonNull::new(pointer).ok_or(AllocError)?, bytes))
}

fn exact(pointer: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    Ok(NonNull::slice_from_raw_parts(NonNull::new(pointer).ok_or(AllocError)?, layout.size()))
}

impl Perseq {
    /// Makes the block at `pointer` one of `new`, keeping what fits of its contents. Null if memory is exhausted.
    ///
    /// # Safety
    ///
    /// * The block is live and fits `old`; neither layout is empty.
    #[inline]
    unsafe fn change(&self, pointer: NonNull<u8>, old: Layout, new: Layout) -> *mut u8 {
        // SAFETY: by our own contract.
        unsafe {
            if new.align() <= old.align() {
                // `realloc` keeps the alignment: is that a block for `new` as well?
                let aligned = Layout::from_size_align(new.size(), old.align());
                if aligned.is_ok_and(|aligned| SizeClass::of(aligned) == SizeClass::of(new)) {
                    return self.realloc(pointer.as_ptr(), old, new.size());
                }
            }
            match (SizeClass::of(old), SizeClass::of(new)) {
                (None, None) => return self.resize_large(pointer.as_ptr(), new),
                // All objects of a class have every alignment that chooses it.
                (Some(before), Some(after)) if before == after => return pointer.as_ptr(),
                _ => {}
            }
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer.as_ptr(), moved, old.size().min(new.size()));
                self.dealloc(pointer.as_ptr(), old);
            }
            moved
        }
    }
}

// SAFETY: blocks stay valid until they are given back, whichever value of the type is asked: all are the same heap.
unsafe impl Allocator for Perseq {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(nothing(layout));
        }
        // SAFETY: the layout is not empty.
        whole(unsafe { self.alloc(layout) }, layout)
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(nothing(layout));
        }
        // SAFETY: the layout is not empty.
        exact(unsafe { self.alloc_zeroed(layout) }, layout)
    }

    #[inline]
    unsafe fn deallocate(&self, pointer: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: by the trait's contract, the block is live and fits `layout`, so it is of its class.
            unsafe { self.dealloc(pointer.as_ptr(), layout) };
        }
    }

    #[inline]
    unsafe fn grow(&self, pointer: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return self.allocate(new);
        }
        // SAFETY: by the trait's contract; `new` is no smaller than `old`.
        whole(unsafe { self.change(pointer, old, new) }, new)
    }

    #[inline]
    unsafe fn grow_zeroed(&self, pointer: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return self.allocate_zeroed(new);
        }
        // SAFETY: as in `grow`; the new block has `new.size()` bytes.
        unsafe {
            let block = exact(self.change(pointer, old, new), new)?;
            block.cast::<u8>().add(old.size()).write_bytes(0, new.size() - old.size());
            Ok(block)
        }
    }

    #[inline]
    unsafe fn shrink(&self, pointer: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: by the trait's contract; `new` is no larger than `old`.
        unsafe {
            if new.size() == 0 {
                self.deallocate(pointer, old);
                return Ok(nothing(new));
            }
            whole(self.change(pointer, old, new), new)
        }
    }
}
