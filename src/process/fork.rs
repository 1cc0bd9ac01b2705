//! Fork: all locks are taken in the order of their ranks, so the child finds every structure whole. A slab without a
//! lock needs none: its changes are single stores, and a sequence that was under way elsewhere has not committed. A
//! cache is taken from its owner only under the right to reclaim, so none is at the time of a fork.
//!
//! While it holds the locks, a fork may have to wait: for the list of streams of glibc's stdio, or for what another
//! library's handler takes. Whoever has that may be about to allocate, and waits for us. So nobody waits for the locks of
//! a fork for long: a thread goes without the lock after a while, with [`emergency`] memory.
//!
//! In a signal handler, the fork may have interrupted a slow path of its own thread. The locks that this holds stay as
//! they are, in both processes: the slow path goes on in both. Other locks are tried only, because their holders may be
//! waiting for ours. If one cannot be had, its structure may be half changed in the child, which allocates emergency
//! memory from then on and gives nothing back: it is marked, and the slow path that waits for it, if the handler
//! interrupted one, goes without. In a process of one thread that cannot be.
//!
//! libc's `fork` calls our handlers; what forks in another way calls [`Forking`].
//!
//! The handlers have to be registered before the first lock is taken. So they are when the program is loaded, which is
//! before it has threads; and, in a library that is loaded later, or where a call of ours comes earlier, at the first
//! such call. glibc registers no handler while another thread forks, except while it runs another library's handler. A
//! fork at that moment, while perseq is being loaded, is the only one that goes past our handlers.

use core::marker::PhantomData;
use core::mem;
use core::ptr;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use rseq::syscall;

use crate::decided::DECIDING;
use crate::emergency;
use crate::errno::keep_errno;
use crate::front_end::lists::Exclusive;
use crate::front_end::reclaim;
use crate::front_end::registry;
use crate::front_end::thread;
use crate::hardened;
use crate::lock_order;
use crate::middle::back_end::BACK_END;
use crate::middle::spare_arrays::SPARE_ARRAYS;
use crate::misuse::judge;
use crate::mode::Mode;
use crate::process::background;
use crate::process::exit_report;
use crate::process::options;
use crate::process::reporter;
use crate::sync::{self, Lock, Patience, Taken};
use crate::this_thread;
use crate::way;

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = notice_forks;

/// Who registers the handlers: nobody yet, a thread by its id, or it is done.
static NOTICED: AtomicU32 = AtomicU32::new(0);
const DONE: u32 = u32::MAX;

/// Registers the fork handlers, if nobody has.
pub extern "C" fn notice_forks() {
    if NOTICED.load(Acquire) != DONE {
        keep_errno(notice_forks_slow);
    }
}

/// Whether this process has such a thread.
fn exists(thread: u32) -> bool {
    // SAFETY: getpid takes nothing; signal 0 asks only.
    let process = unsafe { syscall::call(libc::SYS_getpid, []) };
    // SAFETY: as above.
    process.and_then(|process| unsafe { syscall::call(libc::SYS_tgkill, [process, thread as usize, 0]) }).is_ok()
}

#[cold]
fn notice_forks_slow() {
    let this = this_thread::kernel_number();
    loop {
        match NOTICED.load(Acquire) {
            DONE => return,
            // Registering allocates, if there are many handlers, and so comes here again.
            thread if thread == this => return,
            // The other thread waits for a fork at most. In a child of that fork it does not exist, and nothing of what
            // it did may have come along: we take its place.
            // Asleep, so that a thread of real-time priority does not keep it off its CPU.
            thread if thread != 0 && exists(thread) => {
                sync::futex_wait(&NOTICED, thread, Some(1));
            }
            thread if NOTICED.compare_exchange(thread, this, Acquire, Relaxed).is_ok() => break,
            _ => {}
        }
    }
    // If it fails, a child forked while a lock is held may hang on it.
    // SAFETY: the handlers are this module's and live for ever.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child)) };
    NOTICED.store(DONE, Release);
}

#[inline(never)] // one for all that is done with them
fn for_each_lock(f: &mut dyn FnMut(&Lock)) {
    f(DECIDING.bare());
    f(options::mutex().bare());
    f(reclaim::mutex().bare());
    f(registry::mutex().bare());
    for cache in registry::all() {
        f(cache.shape().bare());
    }
    for cache in registry::all() {
        f(cache.lists.bare());
    }
    f(hardened::mutex().bare());
    for transfer in BACK_END.transfer.all() {
        f(transfer.mutex().bare());
    }
    for central in &BACK_END.central {
        f(central.mutex().bare());
    }
    f(SPARE_ARRAYS.mutex().bare());
    f(BACK_END.metadata.mutex().bare());
    f(BACK_END.pages.releases.mutex().bare());
    f(BACK_END.pages.mutex().bare());
}

/// A fork of which libc tells nobody, as by the system call or by `clone` without `CLONE_VM`. All locks are held while this
/// lives, so that the child finds every structure whole: the parent drops it, and the child calls
/// [`in_child`](Forking::in_child). Neither may allocate before. In a signal handler, as `fork` is there.
///
/// libperseq does it in its `clone`. A program that has perseq for its allocator and no libperseq does it itself:
///
/// ```
/// let forking = perseq::Forking::begin();
/// // SAFETY: what `fork` does, without its handlers.
/// let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
/// if child == 0 {
///     // SAFETY: this is the child.
///     unsafe { forking.in_child() };
///     drop(Box::new([0_u8; 64]));
///     // SAFETY: ends the child.
///     unsafe { libc::_exit(0) };
/// }
/// drop(forking);
/// # let mut status = 1;
/// # assert!(unsafe { libc::waitpid(child as i32, &mut status, 0) } as i64 == child && status == 0);
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the fork"]
pub struct Forking {
    _not_send: PhantomData<*mut ()>,
}

impl Forking {
    /// Takes all locks.
    pub fn begin() -> Self {
        notice_forks(); // before the first lock
        before_fork();
        Forking { _not_send: PhantomData }
    }

    /// In the child: its memory is its own, and other threads do not exist.
    ///
    /// # Safety
    ///
    /// * The calling thread is the only one of a process that was forked since [`begin`](Forking::begin), with memory and
    ///   thread-local storage as they were in its parent.
    pub unsafe fn in_child(self) {
        mem::forget(self);
        after_fork_child();
    }
}

impl Drop for Forking {
    fn drop(&mut self) {
        after_fork_parent();
    }
}

/// The handlers may be registered twice, if a fork came between their registration and the note of it; and a signal
/// handler may fork while its thread does, with all locks. The outermost pair of calls does the work.
extern "C" fn before_fork() {
    if this_thread::begin_fork() > 0 {
        return;
    }
    let mut patience = if this_thread::locks() == 0 { Patience::Waits } else { Patience::Tries };
    for_each_lock(&mut |lock| {
        // The child is not whole then, and each further lock that it lacks changes nothing of that.
        if lock.take(patience) == Taken::Not {
            patience = Patience::Looks;
        }
    });
    if patience == Patience::Waits {
        lock_order::assert_all_held(registry::all().next().is_some());
    }
}

extern "C" fn after_fork_parent() {
    if this_thread::end_fork() != Some(0) {
        return;
    }
    // SAFETY: this thread forked. No cache is added while this walks the caches, although the registry's lock is free
    // again: that takes metadata's as well, which is freed after the caches'.
    for_each_lock(&mut |lock| unsafe { lock.give() });
    sync::forget_stuck_fork();
}

extern "C" fn after_fork_child() {
    if this_thread::end_fork() != Some(0) {
        return;
    }
    NOTICED.store(DONE, Release); // by the thread whose note of it may not have come along
    let mut whole = true;
    // SAFETY: this thread forked, and is the child's only one.
    for_each_lock(&mut |lock| whole &= unsafe { lock.give_in_child() });
    sync::forget_stuck_fork();
    background::forget_in_child();
    exit_report::forget_in_child();
    reporter::forget_in_child();
    lock_order::forget_other_threads();
    if !whole {
        emergency::begin_for_ever();
    }
    // In a handler that interrupted a slow path, the caches of threads that do not exist stay as they are.
    if !whole || this_thread::locks() > 0 || !way::mode().is_some_and(Mode::has_thread_caches) {
        return;
    }
    let own = thread::present_cache();
    let mut finding = Ok(());
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        if own.is_some_and(|own| ptr::eq(own, cache)) {
            cache.owner.store(this_thread::kernel_number(), Relaxed);
            continue;
        }
        cache.gate.reset();
        let mut shape = cache.shape().lock();
        // SAFETY: the thread it belonged to does not exist here.
        let lists = unsafe { Exclusive::new(&cache.slab) };
        finding = finding.and(cache.remove_all_arrays(lists, &mut shape));
        drop(shape); // the registry's lock comes first
        registry::retire(cache);
    }
    judge(finding);
}
