//! Rung 1: a pointer that goes up.
//!
//! ```text
//!            │ block │ block │  block  │ ...nobody's                │
//!   chunk    └───────┴───────┴─────────┴────────────────────────────┘
//!                                      next ──►
//! ```

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::Mutex;

use crate::{kernel, lock};

/// Bytes asked of the kernel at a time: enough that system calls are rare.
const CHUNK: usize = 1 << 20;

/// Hands out memory from a chunk's beginning to its end, and takes nothing back.
#[derive(Debug)]
pub struct Bump(Mutex<Rest>);

/// What is left of the chunk.
#[derive(Debug)]
struct Rest {
    next: *mut u8,
    bytes: usize,
}

// SAFETY: what is left of a chunk is nobody's, until whoever has the lock hands it out.
unsafe impl Send for Rest {}

impl Bump {
    /// An allocator without memory. It takes some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        Bump(Mutex::new(Rest { next: ptr::null_mut(), bytes: 0 }))
    }
}

impl Rest {
    /// A block from the beginning, if there is so much.
    fn take(&mut self, layout: Layout) -> Option<*mut u8> {
        let gap = self.next.align_offset(layout.align());
        let taken = gap.checked_add(layout.size()).filter(|taken| *taken <= self.bytes)?;
        let block = self.next.wrapping_add(gap);
        self.next = self.next.wrapping_add(taken);
        self.bytes -= taken;
        Some(block)
    }
}

// SAFETY: each byte of a chunk is handed out at most once, at a multiple of the alignment, and stays where it is.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut rest = lock(&self.0);
        if let Some(block) = rest.take(layout) {
            return block;
        }
        // The end of the old chunk is lost.
        let bytes = CHUNK.max(layout.size());
        let Some(chunk) = kernel::map(bytes, layout.align()) else { return ptr::null_mut() };
        *rest = Rest { next: chunk.as_ptr(), bytes };
        rest.take(layout).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, _pointer: *mut u8, _layout: Layout) {
        // Nothing: only the chunk is known, not what of it is in use.
    }
}
