//! What a program asks for, by size: counted only with the feature `record-sizes`, for `perseq classes`.
//!
//! At exit the counts are appended to the file that `LIBPERSEQ_SIZES` names, as lines of `size,count`. Several
//! processes may share a file: their lines are added up. A request with an alignment above 16 counts as its size
//! rounded up to it, and all above 256 KiB as one size.

pub use imp::request;

#[cfg(feature = "record-sizes")]
mod imp {
    use core::fmt::Write;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use allocator::FileWriter;

    /// Largest size that is counted by itself: what the largest size class may be.
    const LARGEST: usize = 256 << 10;
    static COUNTS: [AtomicU64; LARGEST + 2] = [const { AtomicU64::new(0) }; LARGEST + 2];

    /// `size` bytes were asked for.
    #[inline]
    pub fn request(size: usize, align: usize) {
        let size = if align > 16 { size.checked_next_multiple_of(align).unwrap_or(usize::MAX) } else { size };
        COUNTS[size.min(LARGEST + 1)].fetch_add(1, Relaxed);
    }

    // Run when the library is unloaded, after the program's own functions at exit.
    #[used]
    #[unsafe(link_section = ".fini_array")]
    static AT_EXIT: extern "C" fn() = write;

    extern "C" fn write() {
        // SAFETY: the name is a C string; at exit nobody changes the environment.
        let path = unsafe { libc::getenv(c"LIBPERSEQ_SIZES".as_ptr()) };
        if path.is_null() {
            return;
        }
        // SAFETY: `path` is a C string. The lock ends with the descriptor: lines of two processes do not mix.
        let file = unsafe {
            let file = libc::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC, 0o666);
            libc::flock(file, libc::LOCK_EX);
            file
        };
        let mut out = FileWriter::new(file);
        let counts = COUNTS.iter().map(|count| count.load(Relaxed)).enumerate();
        let lines =
            counts.filter(|(_, count)| *count > 0).try_for_each(|(size, count)| writeln!(out, "{size},{count}"));
        if lines.and_then(|()| out.flush()).is_err() {
            const MESSAGE: &[u8] = b"perseq: LIBPERSEQ_SIZES: the file cannot be written\n";
            // SAFETY: a live string.
            unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        }
        // SAFETY: opened above, or -1.
        unsafe { libc::close(file) };
    }
}

#[cfg(not(feature = "record-sizes"))]
mod imp {
    /// Nothing.
    #[inline(always)]
    pub fn request(_size: usize, _align: usize) {}
}
