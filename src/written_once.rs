//! A value that one thread writes once, and that all read once it is announced.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

/// The value, or room for it.
pub struct WrittenOnce<T> {
    announced: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: one thread writes, before it announces; others read, after that.
unsafe impl<T: Send + Sync> Sync for WrittenOnce<T> {}

impl<T> WrittenOnce<T> {
    pub const fn new() -> WrittenOnce<T> {
        WrittenOnce { announced: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Writes the value, which is read once it is [announced](WrittenOnce::announce).
    ///
    /// # Safety
    ///
    /// * One thread at a time is here, and nothing was announced yet.
    pub unsafe fn write(&self, value: T) {
        // SAFETY: by our own contract this thread alone writes, and nobody reads.
        unsafe { (*self.value.get()).write(value) };
    }

    /// Lets everybody read what was written.
    pub fn announce(&self) {
        self.announced.store(true, Release); // pairs with the load below
    }

    /// Whether it can be read.
    #[inline]
    pub fn is_announced(&self) -> bool {
        self.announced.load(Acquire)
    }

    /// The value.
    ///
    /// # Safety
    ///
    /// * The value was written, and the caller knows that it was announced.
    #[inline]
    pub unsafe fn get(&self) -> &T {
        debug_assert!(self.is_announced());
        // SAFETY: by our own contract; nobody writes any more.
        unsafe { (*self.value.get()).assume_init_ref() }
    }
}
