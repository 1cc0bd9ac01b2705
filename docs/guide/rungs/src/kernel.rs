//! What the rungs ask of Linux.

use std::ptr::{self, NonNull};

/// Bytes of the kernel's page.
fn page_bytes() -> usize {
    // SAFETY: sysconf has no preconditions, and this question always has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// A mapping of `bytes` that begins on a multiple of `align`, a power of two.
fn map_with(bytes: usize, align: usize, flags: libc::c_int) -> Option<NonNull<u8>> {
    let page = page_bytes();
    let bytes = bytes.checked_next_multiple_of(page)?;
    // The kernel aligns to its page. For more, what is too much at both ends goes back.
    let spare = if align > page { align } else { 0 };
    let (length, protection) = (bytes.checked_add(spare)?, libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new mapping where the kernel likes replaces nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(align.max(page));
    // SAFETY: `before` is at most `spare`, so all three parts are within the mapping, and nobody uses the outer two.
    unsafe {
        let block = start.add(before);
        if before > 0 {
            libc::munmap(start.cast(), before);
        }
        if spare > before {
            libc::munmap(block.add(bytes).cast(), spare - before);
        }
        NonNull::new(block)
    }
}

/// Memory of `bytes` that begins on a multiple of `align`, a power of two. It reads as zero. `None`: there is none.
pub fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    map_with(bytes, align, 0)
}

/// As [`map`], for far more than will be used: it is only counted as it is touched, and in the kernel's small pages.
pub fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let start = map_with(bytes, align, libc::MAP_NORESERVE)?;
    // SAFETY: a mapping of our own. The kernel may not know the advice, and nothing depends on it.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
    Some(start)
}

/// Ends what [`map`] made.
///
/// # Safety
///
/// * `start` and `bytes` are one `map`'s, and nobody uses the memory.
pub unsafe fn unmap(start: *mut u8, bytes: usize) {
    // SAFETY: by our own contract. What the kernel refuses, for want of another mapping's record, stays mapped.
    unsafe { libc::munmap(start.cast(), bytes.next_multiple_of(page_bytes())) };
}

/// Gives the memory behind the kernel's pages that are wholly within a range back; they stay mapped and read as zero.
/// Returns how many bytes: 0 if the kernel refuses.
///
/// # Safety
///
/// * The range is mapped and holds nothing anybody needs.
pub unsafe fn release(start: *mut u8, bytes: usize) -> usize {
    let page = page_bytes();
    let before = start.align_offset(page);
    let whole = bytes.saturating_sub(before) / page * page;
    if whole == 0 {
        return 0;
    }
    // SAFETY: whole pages of the range, by our own contract.
    let done = unsafe { libc::madvise(start.wrapping_add(before).cast(), whole, libc::MADV_DONTNEED) == 0 };
    if done { whole } else { 0 }
}

/// Milliseconds of a clock that never goes back, as of the last tick: some nanoseconds and no system call.
pub fn milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Bytes of this process that are in memory.
///
/// # Panics
///
/// The kernel does not say.
pub fn resident_bytes() -> usize {
    // The numbers of /proc/self/statm are only as good as a few pages for each thread and CPU.
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc/self/smaps_rollup, since Linux 4.14");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line Rss:");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kB") * 1024
}
