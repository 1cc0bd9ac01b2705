//! The lock every tier uses: a futex, so that a waiter sleeps instead of burning the holder's time slice.
//!
//! A release wakes one sleeper at most, and makes no system call if nobody sleeps. In which order locks are taken is
//! said in `lock_order`.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::lock_order::{Order, Rank};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be asleep.
const CONTENDED: u32 = 2;
/// Looks before sleeping: about the length of our critical sections.
const SPINS: u32 = 64;
/// Times the CPU is offered to others before sleeping. A holder that was preempted, most often by the very thread it has
/// just woken, then ends its few instructions and need not wake anybody: a third fewer switches in `perseq selftest`'s
/// preemption of the modes with locks.
const YIELDS: u32 = 3;

/// Mutual exclusion over a `T`.
pub struct Mutex<T> {
    state: AtomicU32,
    order: Order,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached through a guard only, and one guard exists at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    pub const fn new(rank: Rank, value: T) -> Self {
        Mutex { state: AtomicU32::new(FREE), order: Order::new(rank), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.order.before_waiting();
        self.acquire();
        Guard(self)
    }

    /// As [`Mutex::lock`], by a thread that may hold locks of the same rank, for which somebody else has said why no
    /// two threads do that at once.
    pub fn lock_another(&self) -> Guard<'_, T> {
        self.order.before_waiting_for_another();
        self.acquire();
        Guard(self)
    }

    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // A guard made before the answer is known would unlock what another thread holds.
        self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok().then(|| {
            self.order.taken();
            Guard(self)
        })
    }

    /// Locks without a guard, for the time of a fork.
    pub fn acquire_for_fork(&self) {
        self.order.before_waiting_for_another();
        self.acquire();
    }

    #[inline]
    fn acquire(&self) {
        // Acquire pairs with the release in `release`: we see what the last holder did.
        if self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
            self.acquire_slow();
        }
        self.order.taken();
    }

    #[cold]
    #[inline(never)]
    fn acquire_slow(&self) {
        for turn in 0..SPINS + YIELDS {
            if self.state.load(Relaxed) == FREE && self.state.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok() {
                return;
            }
            if turn < SPINS {
                core::hint::spin_loop();
            } else {
                // SAFETY: sched_yield has no preconditions, and succeeds always on Linux: errno stays.
                unsafe { libc::sched_yield() };
            }
        }
        while self.state.swap(CONTENDED, Acquire) != FREE {
            #[cfg(test)]
            tests::WAITS.fetch_add(1, Relaxed);
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
        self.order.giving_up();
        if self.state.swap(FREE, Release) == CONTENDED {
            #[cfg(test)]
            tests::WAKES.fetch_add(1, Relaxed);
            futex_wake(&self.state, 1);
        }
    }

    /// Unlocks in a fork's child, where the threads that were asleep on the lock do not exist.
    ///
    /// # Safety
    ///
    /// * The forking thread held the lock and has no guard for it.
    pub unsafe fn release_in_child(&self) {
        self.order.giving_up();
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

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::sync::atomic::AtomicU64;

    /// Calls of the futex made by locks. No other test's locks sleep.
    pub static WAITS: AtomicU64 = AtomicU64::new(0);
    pub static WAKES: AtomicU64 = AtomicU64::new(0);

    const WAITERS: u64 = 32;
    static LOCK: Mutex<u64> = Mutex::new(Rank::PageHeap, 0);

    /// While its holder is off the CPU, those who wait for a lock sleep; when it is free again, each of them is woken
    /// about once, not all of them each time.
    #[test]
    fn waiters_sleep_and_are_woken_one_by_one() {
        let wakes = std::thread::scope(|scope| {
            let held = LOCK.lock();
            for _ in 0..WAITERS {
                scope.spawn(|| *LOCK.lock() += 1);
            }
            while WAITS.load(Relaxed) < WAITERS {
                std::thread::sleep(core::time::Duration::from_millis(1));
            }
            // Nobody looks again by himself.
            std::thread::sleep(core::time::Duration::from_millis(20));
            let (waits, wakes) = (WAITS.load(Relaxed), WAKES.load(Relaxed));
            assert!(waits <= WAITERS + 4, "{WAITERS} waiters went to sleep {waits} times");
            drop(held);
            wakes
        });
        assert_eq!(*LOCK.lock(), WAITERS);
        let (waits, wakes) = (WAITS.load(Relaxed), WAKES.load(Relaxed) - wakes);
        assert!(wakes <= WAITERS + 1, "{WAITERS} waiters were woken {wakes} times");
        assert!(waits <= 2 * WAITERS, "{WAITERS} waiters went to sleep {waits} times");
    }
}
