//! The lock every tier uses: a futex, so that a waiter sleeps instead of burning the holder's time slice.
//!
//! # Lock order
//!
//! A thread that holds a lock takes only locks that stand below it here:
//!
//! 1. the cache registry, 2. caches' shapes, newest cache first, 3. the quarantine, 4. a transfer cache,
//! 5. a central free list, 6. the page heap, 7. spare arrays, 8. metadata.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be asleep.
const CONTENDED: u32 = 2;
/// Looks before sleeping: about the length of our critical sections.
const SPINS: u32 = 64;

/// Mutual exclusion over a `T`.
pub struct Mutex<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached through a guard only, and one guard exists at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.acquire();
        Guard(self)
    }

    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // A guard made before the answer is known would unlock what another thread holds.
        self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok().then(|| Guard(self))
    }

    /// Locks without a guard, for the time of a fork.
    #[inline]
    pub fn acquire(&self) {
        // Acquire pairs with the release in `release`: we see what the last holder did.
        if self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
            self.acquire_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn acquire_slow(&self) {
        for _ in 0..SPINS {
            if self.state.load(Relaxed) == FREE && self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok() {
                return;
            }
            core::hint::spin_loop();
        }
        while self.state.swap(CONTENDED, Acquire) != FREE {
            futex_wait(&self.state, CONTENDED);
        }
    }

    /// Unlocks.
    ///
    /// # Safety
    ///
    /// * The caller holds the lock and has no guard for it.
    #[inline]
    pub unsafe fn release(&self) {
        if self.state.swap(FREE, Release) == CONTENDED {
            futex_wake(&self.state, 1);
        }
    }

    /// Unlocks in a fork's child, where the threads that were asleep on the lock do not exist.
    ///
    /// # Safety
    ///
    /// * The forking thread held the lock and has no guard for it.
    pub unsafe fn release_in_child(&self) {
        self.state.store(FREE, Release);
    }
}

/// The lock is held while this lives.
pub struct Guard<'a, T>(&'a Mutex<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: we hold the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we hold the lock, and the guard is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: a guard exists only while its lock is held.
        unsafe { self.0.release() }
    }
}

/// A value with cache lines of its own: two, because processors fetch pairs. What many CPUs read must not share a
/// line with what any of them writes.
#[repr(align(128))]
pub struct Padded<T>(pub T);

impl<T> Deref for Padded<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Sleeps while `*word == expected`. May wake for no reason. Leaves errno alone.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    keep_errno(|| {
        // SAFETY: `word` is a live, aligned u32, and there is no timeout to read.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                expected,
                core::ptr::null::<libc::timespec>(),
            )
        };
    });
}

/// Wakes up to `count` sleepers on `word`. Leaves errno alone.
pub fn futex_wake(word: &AtomicU32, count: i32) {
    keep_errno(|| {
        // SAFETY: the kernel uses the address as a key only.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count) };
    });
}

/// Runs `f` and puts errno back: an allocator that succeeds does not change it.
pub fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: errno is this thread's.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let result = f();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}
