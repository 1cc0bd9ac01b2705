//! How much memory a heap may hold.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that a heap may hold: pages in use, free pages that are still resident, and tables. `usize::MAX` is no limit.
///
/// Over the soft limit, what is free goes back to the kernel before more is taken. Over the hard limit, nothing is
/// taken: allocation fails with ENOMEM, after everything free was given back.
pub struct Limits {
    soft: AtomicUsize,
    hard: AtomicUsize,
}

/// By how many bytes limits would be exceeded.
pub struct Excess {
    pub soft: usize,
    pub hard: usize,
}

impl Limits {
    pub const fn new() -> Self {
        Limits { soft: AtomicUsize::new(usize::MAX), hard: AtomicUsize::new(usize::MAX) }
    }

    /// Relaxed, here and below: each limit is a number of its own, and growth soon sees it.
    pub fn set_soft(&self, bytes: usize) {
        self.soft.store(bytes, Relaxed);
    }

    pub fn set_hard(&self, bytes: usize) {
        self.hard.store(bytes, Relaxed);
    }

    pub fn get(&self) -> (usize, usize) {
        (self.soft.load(Relaxed), self.hard.load(Relaxed))
    }

    /// If `bytes` were held.
    pub fn excess(&self, bytes: usize) -> Excess {
        let (soft, hard) = self.get();
        Excess { soft: bytes.saturating_sub(soft.min(hard)), hard: bytes.saturating_sub(hard) }
    }
}
