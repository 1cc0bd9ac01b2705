//! Rung 2: what is freed is kept on a list, and found again.
//!
//! ```text
//!   memory   │ in use │ free 48 │ in use │ free 160        │ in use │ free 32 │
//!                       next ───────────►  next ────────────────────► next: none
//! ```
//!
//! The list is in the free blocks themselves, in the order of their addresses: so neighbours are neighbours on it.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::Mutex;

use crate::{kernel, lock};

/// Blocks begin on multiples of this many bytes and are as many long, so that each can hold a [`Free`].
const GRANULE: usize = size_of::<Free>();
/// Bytes asked of the kernel at a time.
const CHUNK: usize = 1 << 20;

/// The beginning of a free block.
#[derive(Debug)]
struct Free {
    bytes: usize,
    next: *mut Free,
}

/// Takes the first free block that is long enough, and joins what is freed with its neighbours.
#[derive(Debug)]
pub struct FreeList(Mutex<List>);

/// The free block with the lowest address; null if there is none.
#[derive(Debug)]
struct List(*mut Free);

// SAFETY: free blocks are nobody's, until whoever has the lock takes one off the list.
unsafe impl Send for List {}

impl FreeList {
    /// An allocator without memory. It takes some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        FreeList(Mutex::new(List(ptr::null_mut())))
    }
}

impl List {
    /// The first free block with room for `bytes` that begin on a multiple of `align`: both multiples of [`GRANULE`].
    fn take(&mut self, bytes: usize, align: usize) -> Option<*mut u8> {
        let mut link: *mut *mut Free = &raw mut self.0;
        // SAFETY: each link leads to a free block or is null, and free blocks are as long as they say. Whoever has the
        // list has them. What is cut off is at least a granule.
        unsafe {
            while let Some(free) = (*link).as_mut() {
                let start = (*link).cast::<u8>();
                let gap = start.align_offset(align);
                let end = gap.checked_add(bytes)?;
                if end > free.bytes {
                    link = &raw mut free.next;
                    continue;
                }
                // Cut into what is before the block, the block, and what is behind it.
                let mut next = free.next;
                if end < free.bytes {
                    let behind = start.add(end).cast::<Free>();
                    behind.write(Free { bytes: free.bytes - end, next });
                    next = behind;
                }
                if gap > 0 {
                    *free = Free { bytes: gap, next };
                } else {
                    *link = next;
                }
                return Some(start.add(gap));
            }
        }
        None
    }

    /// Puts a block on the list, joined with the free blocks beside it.
    ///
    /// # Safety
    ///
    /// * The block is nobody's, and it begins and ends on multiples of [`GRANULE`].
    unsafe fn put(&mut self, block: *mut u8, bytes: usize) {
        let (mut before, mut after) = (ptr::null_mut::<Free>(), self.0);
        // SAFETY: as in `take`; the block is ours by our own contract.
        unsafe {
            while !after.is_null() && after.cast() < block {
                before = after;
                after = (*after).next;
            }
            let mut free = Free { bytes, next: after };
            if !after.is_null() && block.add(bytes) == after.cast() {
                free = Free { bytes: bytes + (*after).bytes, next: (*after).next };
            }
            if !before.is_null() && before.cast::<u8>().add((*before).bytes) == block {
                (*before).bytes += free.bytes;
                (*before).next = free.next;
                return;
            }
            block.cast::<Free>().write(free);
            if before.is_null() {
                self.0 = block.cast();
            } else {
                (*before).next = block.cast();
            }
        }
    }
}

/// Bytes of the block for `layout`. A layout's size is at most half of all addresses, so this does not overflow.
fn bytes_of(layout: Layout) -> usize {
    layout.size().next_multiple_of(GRANULE)
}

// SAFETY: a block is on the list or in one program's hands, and `take` cuts blocks of the size and alignment asked for.
unsafe impl GlobalAlloc for FreeList {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (bytes, align) = (bytes_of(layout), layout.align().max(GRANULE));
        let mut list = lock(&self.0);
        if let Some(block) = list.take(bytes, align) {
            return block;
        }
        let more = (bytes + align).next_multiple_of(CHUNK);
        let Some(chunk) = kernel::map(more, GRANULE) else { return ptr::null_mut() };
        // SAFETY: mapped just now.
        unsafe { list.put(chunk.as_ptr(), more) };
        list.take(bytes, align).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by GlobalAlloc's contract, it is a block that `alloc` made for this layout.
        unsafe { lock(&self.0).put(pointer, bytes_of(layout)) };
    }
}
