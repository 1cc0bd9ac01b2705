//! Rung 4: each thread keeps free objects of its own, and needs no lock for them.
//!
//! ```text
//!   thread 1   lists ◄──┐                       a batch at a time
//!   thread 2   lists ◄──┼──►  size classes, one lock for each
//!   thread 3   lists ◄──┘
//! ```

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

use crate::size_classes::{CLASSES, SizeClasses, class_of, object_bytes};
use crate::tier::{Objects, Tier};

/// Most objects of a class in a cache, whatever their size.
pub const MOST: usize = 62;
/// Bytes of one class that a cache may hold, but for two objects of any size.
const BYTES: usize = 64 << 10;

/// Objects of `class` that a cache holds at most.
#[must_use]
pub fn capacity(class: usize) -> usize {
    (BYTES / object_bytes(class)).clamp(2, MOST)
}

/// Objects of `class` that go to a cache or leave it under one lock.
#[must_use]
pub fn batch(class: usize) -> usize {
    capacity(class) / 2
}

/// What the caches of all threads take from and give to.
static BEHIND: SizeClasses = SizeClasses::empty();

thread_local! {
    static CACHE: Cache = const { Cache(UnsafeCell::new([Objects::NONE; CLASSES])) };
}

/// A thread's lists.
struct Cache(UnsafeCell<[Objects; CLASSES]>);

impl Cache {
    /// An object of `class`; null if memory is exhausted.
    fn pop(&self, class: usize) -> *mut u8 {
        // SAFETY: the thread's own, and nothing below calls back.
        let list = unsafe { &mut (*self.0.get())[class] };
        if let Some(object) = list.pop() {
            return object;
        }
        let mut objects = [ptr::null_mut(); MOST];
        let taken = BEHIND.take(class, &mut objects[..batch(class)]);
        for &object in &objects[1..taken.max(1)] {
            // SAFETY: nobody's, and of a class.
            unsafe { list.push(object) };
        }
        objects[0]
    }

    /// Takes an object of `class` back.
    ///
    /// # Safety
    ///
    /// * It came from [`Cache::pop`], of whatever thread, and nobody uses it.
    unsafe fn push(&self, class: usize, object: *mut u8) {
        // SAFETY: as in `pop`; the object is ours by our own contract.
        unsafe {
            let list = &mut (*self.0.get())[class];
            list.push(object);
            if list.count() > capacity(class) {
                give_back(class, list, batch(class));
            }
        }
    }
}

/// Moves `count` objects of a list behind, or as many as there are.
fn give_back(class: usize, list: &mut Objects, count: usize) {
    let (mut objects, mut taken) = ([ptr::null_mut(); MOST + 1], 0);
    while taken < count
        && let Some(object) = list.pop()
    {
        objects[taken] = object;
        taken += 1;
    }
    // SAFETY: they came from there, and lists hold what nobody uses.
    unsafe { BEHIND.give(class, &objects[..taken]) };
}

impl Drop for Cache {
    /// The thread ends: another may have its objects.
    fn drop(&mut self) {
        for (class, list) in self.0.get_mut().iter_mut().enumerate() {
            give_back(class, list, MOST + 1);
        }
    }
}

/// Takes an object from the calling thread's list. All values of the type are the same heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerThread;

// SAFETY: an object is on one list or in one program's hands; lists are their threads' own, or behind a lock.
unsafe impl GlobalAlloc for PerThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else { return BEHIND.take_large(layout) };
        // A thread that ends may allocate after its cache is gone.
        CACHE.try_with(|cache| cache.pop(class)).unwrap_or_else(|_| BEHIND.take_one(class))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by GlobalAlloc's contract, it came from `alloc` for this layout.
        unsafe {
            let Some(class) = class_of(layout) else { return BEHIND.give_large(pointer, layout) };
            if CACHE.try_with(|cache| cache.push(class, pointer)).is_err() {
                BEHIND.give(class, &[pointer]);
            }
        }
    }
}
