//! The end: one constant line to standard error, then abort. Nothing here allocates or formats.

use crate::lock_order;

/// Writes `perseq: `, the parts and a newline to standard error and aborts the process. What a program did leads here.
///
/// The caller holds no lock, and leaves everything whole: the program's handler of SIGABRT may use the heap, fork, or
/// jump to somewhere else and go on. Debug builds check the first.
#[cold]
#[inline(never)]
pub fn fatal(parts: &[&str]) -> ! {
    lock_order::assert_none_held(parts);
    message(parts);
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

/// As [`fatal`], where the heap itself is not whole any more: locks may be held, so the program's handler of SIGABRT does
/// not run.
#[cold]
#[inline(never)]
pub fn broken(parts: &[&str]) -> ! {
    message(parts);
    // SAFETY: signal and abort have no preconditions; the default action is no function.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        libc::abort()
    }
}

/// Writes `perseq: `, the parts and a newline to standard error, as one `writev`.
pub fn message(parts: &[&str]) {
    const MOST: usize = 8;
    let mut pieces = [libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; MOST + 2];
    let all = core::iter::once("perseq: ").chain(parts.iter().copied().take(MOST)).chain(core::iter::once("\n"));
    let mut count = 0;
    for (piece, text) in pieces.iter_mut().zip(all) {
        *piece = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
        count += 1;
    }
    // SAFETY: `pieces[..count]` are live strings; writev reads them only.
    unsafe { libc::writev(2, pieces.as_ptr(), count) };
}
