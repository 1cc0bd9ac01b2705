//! The control arm: lists private to a thread, one for each multiple of 16 bytes.
//!
//! They are never full, never shared and, once warm, never empty, and hold no lock. So what a workload costs on them
//! is what it costs without an allocator worth the name: signals, switches, the scheduler's own delays.
//!
//! Objects lie side by side in blocks, as those of an allocator do: a list is a working set of the same lines. What
//! another thread frees does not come back, so the lists are a control only where each thread frees its own objects.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

/// Largest object kept in a list.
const LARGEST: usize = 4096;
const GRAIN: usize = 16;
const LISTS: usize = LARGEST / GRAIN + 1;
/// Bytes of a block that is cut into objects, and its alignment.
const BLOCK: usize = 16 << 10;
const PAGE: usize = 4096;

/// Lists of objects, each linked by its first word.
pub struct Private;

thread_local! {
    static HEADS: [Cell<*mut u8>; LISTS] = const { [const { Cell::new(null_mut()) }; LISTS] };
}

fn list(layout: Layout) -> usize {
    layout.size().div_ceil(GRAIN)
}

/// Cuts a new block into objects of `size` bytes: one for the caller, the lowest, and the others for the list.
#[cold]
fn cut(size: usize, head: &Cell<*mut u8>) -> *mut u8 {
    // SAFETY: neither is 0, and the alignment is a power of two.
    let block = unsafe { System.alloc(Layout::from_size_align_unchecked(BLOCK, PAGE)) };
    if block.is_null() || size == 0 {
        return block;
    }
    for number in (1..BLOCK / size).rev() {
        // SAFETY: within the block, which is ours.
        unsafe {
            let object = block.add(number * size);
            object.cast::<*mut u8>().write(head.get());
            head.set(object);
        }
    }
    block
}

fn fits(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= GRAIN
}

// SAFETY: an object comes from a block with its list's size, and belongs to one list or one caller at a time. What
// is in the lists when a thread ends is lost, which nobody notices.
unsafe impl GlobalAlloc for Private {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !fits(layout) {
            // SAFETY: by our own contract.
            return unsafe { System.alloc(layout) };
        }
        HEADS.with(|heads| {
            let head = &heads[list(layout)];
            let object = head.get();
            if object.is_null() {
                return cut(list(layout) * GRAIN, head);
            }
            // SAFETY: a listed object is free, and its first word names the next.
            head.set(unsafe { object.cast::<*mut u8>().read() });
            object
        })
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        if !fits(layout) {
            // SAFETY: by our own contract.
            return unsafe { System.dealloc(object, layout) };
        }
        HEADS.with(|heads| {
            let head = &heads[list(layout)];
            // SAFETY: the caller gave the object up; it has 16 bytes at least.
            unsafe { object.cast::<*mut u8>().write(head.get()) };
            head.set(object);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours lie side by side: a line holds nothing but objects.
    #[test]
    fn objects_lie_side_by_side() {
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: a layout with a size. They are not freed.
        let objects: Vec<usize> = (0..8).map(|_| unsafe { Private.alloc(layout) } as usize).collect();
        assert!(
            objects.windows(2).all(|pair| pair[1] == pair[0] + 64) && objects[0].is_multiple_of(64),
            "{objects:x?}"
        );
    }

    #[test]
    fn what_was_freed_comes_back_to_the_same_thread() {
        let layout = Layout::from_size_align(40, 8).unwrap();
        // SAFETY: a layout with a size; each object is freed once.
        let (first, second) = unsafe {
            let first = Private.alloc(layout);
            Private.dealloc(first, layout);
            (first, Private.alloc(layout))
        };
        assert_eq!(first, second);
    }
}
