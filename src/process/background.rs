//! A thread that gives memory back, if one is asked for (`PERSEQ_BACKGROUND=1`), and the look at the clock without it.
//!
//! The thread lives while there is something free that could go back, and a period longer. So it does not keep a
//! process alive whose other threads have ended, and a child of `fork`, which does not have it, starts its own.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Relaxed, Release},
};

use crate::emergency;
use crate::errno::keep_errno;
use crate::middle::back_end::BACK_END;
use crate::process::deferred::free_deferred;
use crate::process::own_thread;
use crate::process::reporter;
use crate::sync::futex_wait;

static WANTED: AtomicBool = AtomicBool::new(false);
/// A thread runs, or is about to. Acquire and release, so that a new thread sees what the last one did.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// What the thread waits on.
static NOBODY_WAKES: AtomicU32 = AtomicU32::new(0);

/// Asks for the thread, or for none.
pub fn set(wanted: bool) {
    WANTED.store(wanted, Relaxed); // read at the next slow path
}

/// Frees what is deferred, and looks whether memory is due to go back, or has the thread look; starts a thread that
/// reports, if one was asked for. For the end of slow paths: no lock is held.
#[inline]
pub fn tend() {
    if emergency::has_deferred() {
        free_deferred();
    }
    if BACK_END.pages.dirty_pages() > 0 {
        tend_slow();
    }
    if reporter::is_missing() {
        reporter::start();
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
        if keep_errno(|| own_thread::start(run)) {
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

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    own_thread::name(c"perseq-release");
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
