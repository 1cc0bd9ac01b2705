//! The end: one constant line to standard error, then abort. Nothing here allocates or formats.

/// Writes `perseq: `, the parts and a newline to standard error and aborts the process.
#[cold]
#[inline(never)]
pub fn fatal(parts: &[&str]) -> ! {
    message(parts);
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
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
