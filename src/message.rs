//! Lines to standard error, and the end of a process whose heap is not whole. Nothing here allocates or formats.

use rseq::syscall;

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
    _ = unsafe { syscall::call(libc::SYS_writev, [2, pieces.as_ptr() as usize, count]) };
}

/// Writes the [message] and aborts the process, whose heap is not whole any more. Locks may be held, so the program's
/// handler of SIGABRT does not run.
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

/// `law!(holds, "name: what it says")` ends the process if the law does not hold, in debug builds. In place of an
/// assertion where a lock may be held: an assertion that fails formats, and so allocates.
macro_rules! law {
    ($holds:expr, $law:literal) => {
        if cfg!(debug_assertions) && !$holds {
            $crate::message::broken(&["a law is broken: ", $law]);
        }
    };
}
pub(crate) use law;
