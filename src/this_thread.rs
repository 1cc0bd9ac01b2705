//! What a thread keeps about itself for the slow paths: one word of static TLS.
//!
//! ```text
//! bits 0-28   a number of perseq's own, given at the first lock and unique among the threads that live
//! bits 29-30  forks that the thread is in the middle of
//! bit 31      an operation went without a lock that a fork holds (`sync`), and its caller has not been told
//! bits 32-59  locks the thread holds, tries or waits for
//! bit 60      the request below was withdrawn, and the lock is about to be left
//! bit 61      the thread asks for a longer time slice while it holds a lock (`slices`)
//! bit 62      a child process runs on this TLS at the same time: locks are not counted, as two would change the word
//! bit 63      one of the last two: what takes a lock looks at this one only
//! ```
//!
//! The number of locks tells a signal handler, or a function of somebody else's that a lock's holder calls, that it
//! interrupts a slow path of its own thread: it must wait for no lock then. It is raised before a lock is taken and lowered
//! after it is free, so a handler never finds a lock held and the number 0. A handler leaves the word as it finds it, so a
//! load and a store with a handler between are as good as one instruction.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rseq::syscall;

use crate::message::law;
use crate::slices;

#[cfg(not(miri))]
rseq::thread_word! {
    /// See the module.
    fn word() -> "perseq_this_thread"
}

/// In place of the word in an interpreter, which knows no assembly: one thread runs there.
#[cfg(miri)]
struct OnlyThread(core::sync::atomic::AtomicUsize);

#[cfg(miri)]
impl OnlyThread {
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
    fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }
}

#[cfg(miri)]
fn word() -> &'static OnlyThread {
    static WORD: OnlyThread = OnlyThread(core::sync::atomic::AtomicUsize::new(0));
    &WORD
}

/// Bits of a thread's number.
pub const NUMBER: u32 = (1 << 29) - 1;
const ONE_FORK: usize = 1 << 29;
const FORKS: usize = 3 * ONE_FORK;
const WENT_WITHOUT: usize = 1 << 31;
const ONE_LOCK: usize = 1 << 32;
const WITHDRAWN: usize = 1 << 60;
const ASKS: usize = 1 << 61;
const SHARED: usize = 1 << 62;
const UNUSUAL: usize = 1 << 63;
/// All locks.
const LOCKS: usize = WITHDRAWN - ONE_LOCK;

/// The next thread's number. After 2^29 threads numbers come again.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Counts a lock that is about to be taken; returns the thread's number, which is not 0.
#[inline]
pub fn enter() -> u32 {
    let before = word().get();
    if before & UNUSUAL == 0 {
        word().set(before + ONE_LOCK);
    } else {
        enter_unusual(before);
    }
    let number = before as u32 & NUMBER;
    if number != 0 { number } else { introduce() }
}

#[cold]
#[inline(never)]
fn enter_unusual(before: usize) {
    if before & SHARED != 0 {
        return;
    }
    word().set(before + ONE_LOCK);
    // A handler that comes in between finds the lock counted, and asks for nothing.
    if before & LOCKS == 0 {
        slices::request();
    }
}

/// A lock that was counted is free again, or was not had.
#[inline]
pub fn leave() {
    let before = word().get();
    if before & UNUSUAL == 0 {
        law!(before >= ONE_LOCK, "counted: a lock is left once for each time it was entered");
        word().set(before - ONE_LOCK);
    } else {
        leave_unusual(before);
    }
}

#[cold]
#[inline(never)]
fn leave_unusual(before: usize) {
    if before & SHARED != 0 {
        return;
    }
    law!(before & LOCKS != 0, "counted: a lock is left once for each time it was entered");
    // Given up before the lock is counted no more: a handler that came in between would ask anew.
    if before & LOCKS == ONE_LOCK && before & WITHDRAWN == 0 && slices::end() {
        slices::give_up();
    }
    let withdrawn = if before & LOCKS == ONE_LOCK { WITHDRAWN } else { 0 };
    word().set((before & !withdrawn) - ONE_LOCK);
}

/// The thread waits for a lock: it asks for no longer slice meanwhile, unless it holds another.
pub fn pause() {
    if asks_for_one_lock() {
        slices::withdraw();
    }
}

/// It waits no more.
pub fn resume() {
    if asks_for_one_lock() {
        slices::request();
    }
}

/// The lock is free, and who waits for it is about to be woken. If the thread was granted more time, that call takes the
/// CPU from it, before it does anything else.
pub fn before_waking() {
    if asks_for_one_lock() {
        slices::end();
        word().set(word().get() | WITHDRAWN);
    }
}

/// Whether the thread asks, and has counted one lock only.
fn asks_for_one_lock() -> bool {
    word().get() & (UNUSUAL | SHARED | ASKS | LOCKS) == UNUSUAL | ASKS | ONE_LOCK
}

/// The thread asks from now on, if the process does.
pub fn begin_asking() {
    if !slices::begin_thread() {
        return;
    }
    let before = word().get();
    word().set(before | ASKS | UNUSUAL);
    if before & SHARED == 0 && before & LOCKS != 0 {
        slices::request();
    }
}

/// Locks the thread holds, tries or waits for; 0 if it is shared.
#[inline]
pub fn locks() -> usize {
    (word().get() & LOCKS) / ONE_LOCK
}

/// From now on the thread's number may be another task's as well. It holds no lock.
pub fn share() {
    word().set(word().get() | SHARED | UNUSUAL);
}

/// Whether what has the thread's number may be another task's.
pub fn is_shared() -> bool {
    word().get() & SHARED != 0
}

/// The thread's number.
pub fn number() -> u32 {
    let number = word().get() as u32 & NUMBER;
    if number != 0 { number } else { introduce() }
}

#[cold]
fn introduce() -> u32 {
    let number = loop {
        let number = NEXT.fetch_add(1, Relaxed) & NUMBER; // unique by the addition; nothing is published
        if number != 0 {
            break number;
        }
    };
    // A handler in between may have given the thread a number, and every lock it took with that is free again.
    word().set(word().get() & !(NUMBER as usize) | number as usize);
    begin_asking();
    number
}

/// The kernel's number of the calling thread.
///
/// A sandbox that was set up before the thread came here may forbid to ask for it, but hardly the futex: a free lock of the
/// kind that lends priority is taken by writing the thread's number into it, and given back by forgetting it.
pub fn kernel_number() -> u32 {
    let lock = AtomicU32::new(0);
    let operation = (libc::FUTEX_TRYLOCK_PI | libc::FUTEX_PRIVATE_FLAG) as usize;
    // SAFETY: the word is ours, and live while the call lasts; the kernel keeps nothing of a lock that nobody waits for.
    match unsafe { syscall::call(libc::SYS_futex, [lock.as_ptr() as usize, operation]) } {
        Ok(_) => lock.load(Relaxed) & libc::FUTEX_TID_MASK,
        Err(_) => syscall::thread_id(), // a kernel without such locks, or an emulator
    }
}

/// A fork of this thread begins; returns in how many it was.
pub fn begin_fork() -> usize {
    let before = word().get();
    let forks = before & FORKS;
    word().set(if forks == FORKS { before } else { before + ONE_FORK });
    forks / ONE_FORK
}

/// A fork of this thread ended; returns in how many it still is. `None` if it was in none.
pub fn end_fork() -> Option<usize> {
    let before = word().get();
    let forks = (before & FORKS).checked_sub(ONE_FORK)?;
    word().set(before - ONE_FORK);
    Some(forks / ONE_FORK)
}

/// An operation of this thread goes without a lock.
pub fn go_without() {
    word().set(word().get() | WENT_WITHOUT);
}

/// Whether an operation went without a lock since this was asked last.
pub fn went_without() -> bool {
    let before = word().get();
    word().set(before & !WENT_WITHOUT);
    before & WENT_WITHOUT != 0
}
