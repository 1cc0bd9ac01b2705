//! The lock every tier uses: a futex, so that a waiter sleeps instead of burning the holder's time slice.
//!
//! A release wakes one sleeper at most, and makes no system call if nobody sleeps. In which order locks are taken is
//! said in `lock_order`. The word holds its holder's number, so that a fork in a signal handler knows the locks of the slow
//! path that the handler interrupted.
//!
//! Who holds a lock may ask the kernel not to be preempted (`slices`), who waits does not. `this_thread` counts locks, so
//! it does the asking, and where nobody does it costs a free lock no instruction.
//!
//! A fork holds all locks while it waits for what other libraries' handlers wait for. A thread that holds what they wait
//! for may come here meanwhile: it does without the lock, if it can ([`Mutex::lock_unless_forking`]).
//!
//! In a child process, the thread that held a lock may not exist. What its slow paths can be asked for does without the
//! lock then ([`Mutex::lock_unless_orphaned`]); what only reports ends the process.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};

#[cfg(not(loom))]
use rseq::syscall;
#[cfg(loom)] // the models have futexes of their own
use rseq::syscall::{futex_wait, futex_wake};

use crate::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::lock_order::{Order, Rank};
use crate::message::broken;
use crate::this_thread;

const FREE: u32 = 0;
/// Somebody may be asleep.
const WAITERS: u32 = 1 << 31;
/// The thread that forks took it for the time of the fork.
const FORKING: u32 = 1 << 30;
/// The holder does not exist in this process.
const ORPHANED: u32 = 1 << 29;
/// Looks before sleeping: about the length of our critical sections.
const SPINS: u32 = if cfg!(loom) { 1 } else { 64 };
/// Milliseconds that a thread waits for the end of a fork before it goes without the lock, if it can: longer than most
/// forks take.
const PATIENCE_MS: u32 = 50;

/// A thread has waited for the present fork in vain: others need not.
static STUCK: AtomicBool = AtomicBool::new(false);

/// Mutual exclusion over a `T`.
pub struct Mutex<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached through a guard only, and one guard exists at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Where its word and its value are, in bytes from its beginning. The word is 0 while nobody has the lock.
    pub const WORD_AT: usize = offset_of!(Mutex<T>, lock) + offset_of!(Lock, state);
    pub const VALUE_AT: usize = offset_of!(Mutex<T>, value);

    pub const fn new(rank: Rank, value: T) -> Self {
        Mutex { lock: Lock { state: AtomicU32::new(FREE), order: Order::new(rank) }, value: UnsafeCell::new(value) }
    }

    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.lock.order.before_waiting();
        self.lock.acquire();
        Guard(self)
    }

    /// As [`Mutex::lock_unless_orphaned`], by a thread that may hold locks of the same rank, for which somebody else has
    /// said why no two threads do that at once.
    pub fn lock_another(&self) -> Option<Guard<'_, T>> {
        self.lock.order.before_waiting_for_another();
        self.guard_if(self.lock.acquire_unless(Excuse::Orphaned))
    }

    /// As [`Mutex::lock`]. `None`, and [`this_thread::went_without`], in a child process where the holder does not exist,
    /// of a fork in a signal handler: what the lock guards may be half changed.
    #[inline]
    pub fn lock_unless_orphaned(&self) -> Option<Guard<'_, T>> {
        self.lock.order.before_waiting();
        self.guard_if(self.lock.acquire_unless(Excuse::Orphaned))
    }

    /// As [`Mutex::lock`], for who can do without: `None`, and [`this_thread::went_without`], if a fork holds the lock
    /// and does not end. It may be waiting for what this thread holds, a stream's lock of stdio for example.
    ///
    /// A thread that holds another lock of ours waits as long as it takes: a fork takes locks in their order, so it waits
    /// for that one and does not have this one. One that holds this lock, being in a handler, does not wait at all, and
    /// nobody does for a thread that does not exist.
    #[inline]
    pub fn lock_unless_forking(&self) -> Option<Guard<'_, T>> {
        self.lock.order.before_waiting();
        self.guard_if(self.lock.acquire_unless(Excuse::Forking))
    }

    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.guard_if(self.lock.try_acquire())
    }

    /// One of a lock that was had. Made only then: it gives the lock back when it is dropped.
    #[inline]
    fn guard_if(&self, had: bool) -> Option<Guard<'_, T>> {
        had.then(|| Guard(self))
    }

    /// The lock alone, as fork sees it.
    pub fn bare(&self) -> &Lock {
        &self.lock
    }
}

/// What a [`Mutex`] is without its content.
pub struct Lock {
    /// [`FREE`], or the holder's number ([`this_thread`]) and marks.
    state: AtomicU32,
    order: Order,
}

impl Lock {
    #[inline]
    fn acquire(&self) {
        let this = this_thread::enter();
        // Acquire pairs with the release in `release`: we see what the last holder did.
        if self.state.compare_exchange(FREE, this, Acquire, Relaxed).is_err() {
            self.acquire_slow(this, Excuse::None);
        }
        self.order.taken();
    }

    #[inline]
    fn acquire_unless(&self, excuse: Excuse) -> bool {
        let this = this_thread::enter();
        if self.state.compare_exchange(FREE, this, Acquire, Relaxed).is_err() && !self.acquire_slow(this, excuse) {
            this_thread::leave();
            this_thread::go_without();
            return false;
        }
        self.order.taken();
        true
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        let this = this_thread::enter();
        if self.state.compare_exchange(FREE, this, Acquire, Relaxed).is_err() {
            this_thread::leave();
            return false;
        }
        self.order.taken();
        true
    }

    /// In models: a signal ends the calls of the futex for this lock, and they are made again.
    #[cfg(loom)]
    pub fn interrupt(&self) {
        futex_wake(&self.state, 1);
    }

    /// Waits. False if the caller has an `excuse`.
    #[cold]
    #[inline(never)]
    fn acquire_slow(&self, this: u32, excuse: Excuse) -> bool {
        this_thread::pause();
        let had = self.wait(this, excuse);
        this_thread::resume();
        had
    }

    #[inline]
    fn wait(&self, this: u32, excuse: Excuse) -> bool {
        for _ in 0..SPINS {
            if self.state.load(Relaxed) == FREE && self.state.compare_exchange(FREE, this, Acquire, Relaxed).is_ok() {
                return true;
            }
            core::hint::spin_loop();
        }
        let can_leave = excuse == Excuse::Forking && this_thread::locks() == 1;
        // A sleeper is not woken when a fork takes the lock, so whoever can leave looks again by itself.
        let patience = can_leave.then_some(PATIENCE_MS);
        let mut in_vain = false;
        loop {
            let now = self.state.load(Relaxed);
            if now == FREE {
                // Others may be asleep, which the mark was for that went with the last holder.
                if self.state.compare_exchange(FREE, this | WAITERS, Acquire, Relaxed).is_ok() {
                    return true;
                }
                continue;
            }
            if now & ORPHANED != 0 {
                if excuse == Excuse::None {
                    broken(&[
                        "a signal handler forked while another thread changed the heap, so this process can only allocate",
                    ]);
                }
                return false;
            }
            if now & this_thread::NUMBER == this && !this_thread::is_shared() {
                if excuse != Excuse::Forking {
                    broken(&[
                        "a signal handler called what its own thread is in the middle of, and only one at a time can be",
                    ]);
                }
                return false;
            }
            if can_leave && now & FORKING != 0 && (in_vain || STUCK.load(Relaxed)) {
                STUCK.store(true, Relaxed); // a hint, until the fork ends
                return false;
            }
            let marked = now | WAITERS;
            if now == marked || self.state.compare_exchange(now, marked, Relaxed, Relaxed).is_ok() {
                #[cfg(all(test, not(loom)))]
                tests::WAITS.fetch_add(1, Relaxed);
                in_vain = !futex_wait(&self.state, marked, patience);
            }
        }
    }

    /// Unlocks.
    ///
    /// # Safety
    ///
    /// * The caller holds the lock and has no guard for it.
    #[inline]
    unsafe fn release(&self) {
        self.order.giving_up();
        if self.state.swap(FREE, Release) & WAITERS != 0 {
            self.wake_one();
        }
        this_thread::leave();
    }

    /// Out of line, as every lock that is given back would have it.
    #[cold]
    #[inline(never)]
    fn wake_one(&self) {
        #[cfg(all(test, not(loom)))]
        tests::WAKES.fetch_add(1, Relaxed);
        this_thread::before_waking();
        futex_wake(&self.state, 1);
    }
}

/// For what a thread goes without a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excuse {
    /// Nothing.
    None,
    /// The holder does not exist.
    Orphaned,
    /// And if a fork holds the lock for long, or this thread itself does.
    Forking,
}

/// How a fork takes a lock that it finds held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Waits.
    Waits,
    /// Looks for a moment: the forking thread holds locks already, one of which the holder may be waiting for.
    Tries,
    /// Looks once: it went without another lock.
    Looks,
}

/// What a fork did with a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is held for the time of the fork.
    ForFork,
    /// The forking thread held it: it is in a handler, and what it interrupted goes on in both processes.
    Before,
    /// Another thread holds it, or held it where this process was forked.
    Not,
}

/// A fork has ended, or is about to begin.
pub fn forget_stuck_fork() {
    STUCK.store(false, Relaxed); // a hint
}

/// What a fork does with it.
impl Lock {
    /// Takes the lock for the time of a fork.
    pub fn take(&self, patience: Patience) -> Taken {
        if self.state.load(Relaxed) & ORPHANED != 0 {
            return Taken::Not; // for ever
        }
        if self.state.load(Relaxed) & this_thread::NUMBER == this_thread::number() && !this_thread::is_shared() {
            return Taken::Before; // nobody but this thread writes its number
        }
        match patience {
            Patience::Waits => {
                self.order.before_waiting_for_another();
                self.acquire();
            }
            Patience::Tries | Patience::Looks => {
                let this = this_thread::enter();
                let most = if patience == Patience::Tries { 1000 * SPINS } else { 0 };
                let mut turns = 0;
                while self.state.compare_exchange(FREE, this, Acquire, Relaxed).is_err() {
                    turns += 1;
                    #[cfg(all(test, not(loom)))]
                    tests::LOOKS.fetch_add(1, Relaxed);
                    if turns > most {
                        this_thread::leave();
                        return Taken::Not;
                    }
                    core::hint::spin_loop();
                }
                self.order.taken();
            }
        }
        self.state.fetch_or(FORKING, Relaxed);
        Taken::ForFork
    }

    /// In the parent: unlocks, if the fork took it.
    ///
    /// # Safety
    ///
    /// * The calling thread forked.
    pub unsafe fn give(&self) {
        let state = self.state.load(Relaxed);
        if state & FORKING != 0 && state & this_thread::NUMBER == this_thread::number() {
            // SAFETY: taken by `take`, so there is no guard for it.
            unsafe { self.release() };
        }
    }

    /// In the child, where the threads that were asleep on the lock do not exist: unlocks, if the fork took it. False if
    /// it is held by a thread that does not exist: then nobody waits for it any more.
    ///
    /// # Safety
    ///
    /// * The calling thread forked, and is the process's only one.
    pub unsafe fn give_in_child(&self) -> bool {
        let state = self.state.load(Relaxed);
        let ours = state & this_thread::NUMBER == this_thread::number();
        // What another thread took for a fork of its own is whole as well.
        if state & FORKING != 0 {
            if ours {
                self.order.giving_up();
            }
            self.state.store(FREE, Release);
            if ours {
                this_thread::leave();
            }
            return true;
        }
        if state == FREE || ours {
            return true;
        }
        // The forking thread may be in a handler that interrupted its call of the futex for this lock. The call is made
        // again, and finds another word than it expects.
        self.state.fetch_or(ORPHANED, Relaxed);
        false
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
        unsafe { self.0.lock.release() }
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

/// Lets other threads run, by the call that locks need: a sandbox that was set up before may forbid `sched_yield`.
#[cfg(not(loom))]
pub fn end_turn() {
    let word = AtomicU32::new(0);
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let time = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
    let arguments = [word.as_ptr() as usize, operation, 0, &raw const time as usize];
    // SAFETY: the word and the time are ours, and live while the call lasts.
    _ = unsafe { syscall::call(libc::SYS_futex, arguments) };
}

/// Sleeps while `*word == expected`, so many milliseconds at most; may wake for no reason. False if the time is over.
#[cfg(not(loom))]
pub fn futex_wait(word: &AtomicU32, expected: u32, milliseconds: Option<u32>) -> bool {
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let time = milliseconds
        .map(|time| libc::timespec { tv_sec: i64::from(time / 1000), tv_nsec: i64::from(time % 1000) * 1_000_000 });
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: `word` is a live, aligned u32, and the time is ours or null.
    let answer = unsafe {
        syscall::call(libc::SYS_futex, [word.as_ptr() as usize, operation, expected as usize, time as usize])
    };
    answer != Err(libc::ETIMEDOUT)
}

/// Wakes up to `count` sleepers on `word`.
#[cfg(not(loom))]
pub fn futex_wake(word: &AtomicU32, count: u32) {
    syscall::futex_wake(word, count);
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use core::sync::atomic::AtomicU64;

    /// Calls of the futex made by locks. No other test's locks sleep.
    pub static WAITS: AtomicU64 = AtomicU64::new(0);
    pub static WAKES: AtomicU64 = AtomicU64::new(0);

    /// Looks of forks at locks that were held.
    pub static LOOKS: AtomicU64 = AtomicU64::new(0);

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

    /// A fork that went without one lock does not wait for the others, of which there are hundreds: their holders may be
    /// forks as well, that wait for what it has.
    #[test]
    fn a_fork_looks_once_at_what_it_need_not_have() {
        static LOCK: Mutex<()> = Mutex::new(Rank::PageHeap, ());
        let held = LOCK.lock();
        let looks = |patience| {
            let looked = std::thread::scope(|scope| {
                let fork = scope.spawn(|| LOCK.bare().take(patience) == Taken::Not);
                fork.join().expect("it looks")
            });
            assert!(looked, "the lock is held");
            LOOKS.swap(0, Relaxed)
        };
        assert_eq!(looks(Patience::Looks), 1);
        assert!(looks(Patience::Tries) > 1000);
        drop(held);
    }

    /// Each way to ask for the lock of a thread that does not exist, twice: who did not get it does not give it back.
    #[test]
    fn an_orphaned_lock_is_nobodys_again_and_again() {
        static LOCK: Mutex<()> = Mutex::new(Rank::PageHeap, ());
        let held = LOCK.lock();
        std::thread::scope(|scope| {
            let child = scope.spawn(|| {
                // SAFETY: as if this thread had forked, and were the only one of its process; the other waits.
                assert!(!unsafe { LOCK.bare().give_in_child() });
                for _ in 0..2 {
                    assert!(LOCK.lock_another().is_none() && LOCK.lock_unless_orphaned().is_none());
                    assert!(LOCK.lock_unless_forking().is_none() && LOCK.try_lock().is_none());
                }
                assert_eq!(this_thread::locks(), 0);
            });
            child.join().expect("it only asks");
        });
        drop(held);
    }
}
