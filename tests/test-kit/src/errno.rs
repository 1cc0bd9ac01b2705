//! The calling thread's errno.

/// Its value.
pub fn get() -> i32 {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() }
}

/// Another value for it.
pub fn set(value: i32) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = value };
}
