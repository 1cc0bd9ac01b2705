//! The end of a process whose heap is whole: one constant line to standard error, then abort.

use crate::lock_order;
use crate::message::message;

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
