//! The calling thread's errno: kept where an allocation succeeds, set where it does not.

use core::ptr;

/// Null, and why. A call of its own: who returns what it returns needs no frame.
#[cold]
#[inline(never)]
pub fn out_of_memory() -> *mut u8 {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    ptr::null_mut()
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
