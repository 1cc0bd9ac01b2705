//! What CPUs' lists exchange: idle objects of one cache, under its lock.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::slice;

use super::batch::Batch;
use crate::allocator::Perseq;

/// A bounded stack of idle objects, and counts of what came through its lock.
pub struct Depot {
    slots: NonNull<u64>,
    capacity: usize,
    length: usize,
    pub counts: Counts,
}

/// See [`ObjectStats`](super::ObjectStats).
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub served: u64,
    pub refills: u64,
    pub flushes: u64,
    pub drains: u64,
}

// SAFETY: the slots are memory of its own. Whether the objects may be sent, the cache says.
unsafe impl Send for Depot {}

impl Depot {
    /// An empty one with room for `capacity` objects. `None` if memory is exhausted.
    pub fn new(capacity: usize) -> Option<Self> {
        let mut slots = NonNull::dangling();
        if capacity > 0 {
            let layout = Layout::array::<u64>(capacity).ok()?;
            // SAFETY: the layout is not empty.
            slots = NonNull::new(unsafe { Perseq::new().alloc_zeroed(layout) })?.cast();
        }
        Some(Depot { slots, capacity, length: 0, counts: Counts::default() })
    }

    fn slots(&mut self) -> &mut [u64] {
        // SAFETY: so many words, zeroed at first, or none.
        unsafe { slice::from_raw_parts_mut(self.slots.as_ptr(), self.capacity) }
    }

    /// How many objects there are.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Adds an object; false if there is no room.
    pub fn push(&mut self, word: u64) -> bool {
        let place = self.length;
        let Some(slot) = self.slots().get_mut(place) else { return false };
        *slot = word;
        self.length = place + 1;
        true
    }

    /// Takes the object that was added last.
    pub fn pop(&mut self) -> Option<u64> {
        let last = self.length.checked_sub(1)?;
        self.length = last;
        Some(self.slots()[last])
    }

    /// Takes from `batch` what there is room for.
    pub fn give<T>(&mut self, batch: &mut Batch<'_, T>) {
        while self.length < self.capacity
            && let Some(word) = batch.pop()
        {
            self.push(word);
        }
    }

    /// Moves the newest objects to `room`, as many as there are and fit; returns how many.
    pub fn take(&mut self, room: &mut [u64]) -> usize {
        let (length, count) = (self.length, self.length.min(room.len()));
        room[..count].copy_from_slice(&self.slots()[length - count..length]);
        self.length = length - count;
        count
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::array::<u64>(self.capacity)
            && self.capacity > 0
        {
            // SAFETY: allocated with this layout.
            unsafe { Perseq::new().dealloc(self.slots.as_ptr().cast(), layout) };
        }
    }
}
