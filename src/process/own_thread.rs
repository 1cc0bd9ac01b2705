//! A thread of the allocator's own.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use core::ptr;

/// Bytes of its stack: it calls the kernel and little else, but thread-local data are in there.
const STACK: usize = 256 << 10;

/// What such a thread runs.
pub type Run = extern "C" fn(*mut c_void) -> *mut c_void;

/// Starts a thread that takes no signals and is waited for by nobody. False if the system has none. Allocates.
pub fn start(run: Run) -> bool {
    let mut attributes = MaybeUninit::uninit();
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut thread = MaybeUninit::uninit();
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
        let result = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        result == 0
    }
}

/// Names the calling thread, for who lists threads: 15 letters at most.
pub fn name(name: &CStr) {
    // SAFETY: names the calling thread; the string ends with a zero.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
}
