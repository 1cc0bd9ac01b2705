//! The control arm: lists private to a thread, one for each multiple of 16 bytes.
//!
//! They are never full, never shared and, once warm, never empty, and hold no lock. So what a workload costs on them
//! is what it costs without an allocator worth the name: signals, switches, the scheduler's own delays.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

/// Largest object kept in a list.
const LARGEST: usize = 4096;
const GRAIN: usize = 16;
const LISTS: usize = LARGEST / GRAIN + 1;

/// Lists of objects, each linked by its first word.
pub struct Private;

thread_local! {
    static HEADS: [Cell<*mut u8>; LISTS] = const { [const { Cell::new(null_mut()) }; LISTS] };
}

fn list(layout: Layout) -> usize {
    layout.size().div_ceil(GRAIN)
}

fn fits(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= GRAIN
}

// SAFETY: an object comes from the system with its list's size, and belongs to one list or one caller at a time. What
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
                // SAFETY: not of size 0 unless the caller broke its contract; 16 is a power of two.
                return unsafe { System.alloc(Layout::from_size_align_unchecked(list(layout) * GRAIN, GRAIN)) };
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
