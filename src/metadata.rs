//! Memory for the allocator's own structures: taken from the kernel in chunks, never given back.

use core::ptr::NonNull;

use crate::lock_order::Rank;
use crate::os;
use crate::sync::Mutex;

/// Bytes mapped at a time. Only what is used becomes resident.
const CHUNK: usize = 1 << 20;

/// A bump allocator.
pub struct Metadata(Mutex<Bump>);

struct Bump {
    next: usize,
    end: usize,
    used: usize,
}

impl Metadata {
    pub const fn new() -> Self {
        Metadata(Mutex::new(Rank::Metadata, Bump { next: 0, end: 0, used: 0 }))
    }

    /// Zeroed memory that lives as long as the process. `None` if the kernel has none.
    pub fn allocate(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let mut bump = self.0.lock();
        let mut start = bump.next.next_multiple_of(align);
        if start + bytes > bump.end || bump.next == 0 {
            let length = bytes.max(CHUNK).next_multiple_of(CHUNK);
            start = os::map(length)?.as_ptr() as usize;
            bump.end = start + length;
        }
        bump.next = start + bytes;
        bump.used += bytes;
        NonNull::new(start as *mut u8)
    }

    /// Bytes handed out.
    pub fn used(&self) -> usize {
        self.0.lock().used
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.0
    }
}
