//! A thread that gives memory back, if one is asked for (`PERSEQ_BACKGROUND=1`), and the look at the clock without it.
//!
//! The thread lives while there is something free that could go back, and a period longer. So it does not keep a
//! process alive whose other threads have ended, and a child of `fork`, which does not have it, starts its own.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Relaxed, Release},
};

use crate::emergency;
use crate::errno::keep_errno;
use crate::middle::back_end::BACK_END;
use crate::process::deferred::free_deferred;
use crate::sync::futex_wait;

static WANTED: AtomicBool = AtomicBool::new(false);
/// A thread runs, or is about to. Acquire and release, so that a new thread sees what the last one did.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// What the thread waits on.
static NOBODY_WAKES: AtomicU32 = AtomicU32::new(0);

/// Bytes of the thread's stack: it calls the kernel and little else, but thread-local data are in there.
const STACK: usize = 256 << 10;

/// Asks for the thread, or for none.
pub fn set(wanted: bool) {
    WANTED.store(wanted, Relaxed); // read at the next slow path
}

/// Frees what is deferred, and looks whether memory is due to go back, or has the thread look. For the end of slow
/// paths: no lock is held.
#[inline]
pub fn tend() {
    if emergency::has_deferred() {
        free_deferred();
    }
    if BACK_END.pages.dirty_pages() > 0 {
        tend_slow();
    }
}

#[cold]
#[inline(never)]
fn tend_slow() {
    if WANTED.load(Relaxed) && BACK_END.pages.releases.period().is_some() {
        if RUNNING.load(Relaxed) || RUNNING.swap(true, AcqRel) {
            return;
        }
        // Allocates, and so may come back here: `RUNNING` is set.
        if keep_errno(start) {
            return;
        }
        RUNNING.store(false, Release);
    }
    BACK_END.pages.tend();
}

/// The child of a fork does not have its parent's thread.
pub fn forget_in_child() {
    RUNNING.store(false, Release);
}

/// Starts a thread that takes no signals. False if the system has none.
fn start() -> bool {
    let mut attributes = MaybeUninit::uninit();
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut thread = 0;
    // SAFETY: plain calls of libc; each structure is initialized by the first call that names it. The thread runs
    // `run`, which borrows nothing.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            return false;
        }
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let result = libc::pthread_create(&mut thread, attributes.as_ptr(), run, ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        result == 0
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    // SAFETY: names the calling thread; the string ends with a zero.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), c"perseq-release".as_ptr()) };
    let pages = &BACK_END.pages;
    loop {
        let mut idle = 0;
        while idle < 2 {
            let Some(period) = pages.releases.period().filter(|_| WANTED.load(Relaxed)) else { break };
            futex_wait(&NOBODY_WAKES, 0, Some(period.max(1)));
            // A step at a time, so that the heap's lock is free between; all that is due.
            let mut dirty = usize::MAX;
            while pages.dirty_pages() < dirty {
                dirty = pages.dirty_pages();
                pages.tend();
            }
            idle = if pages.dirty_pages() == 0 { idle + 1 } else { 0 };
        }
        RUNNING.store(false, Release);
        // What became free since the last look found a thread running, and started none.
        let again = WANTED.load(Relaxed) && pages.releases.period().is_some() && pages.dirty_pages() > 0;
        if !again || RUNNING.swap(true, AcqRel) {
            return ptr::null_mut();
        }
    }
}
