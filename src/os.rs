//! The kernel's memory calls. A region is in one of three states:
//!
//! * **reserved**: address space, no access. From [`reserve`].
//! * **committed**: readable and writable; zero until written. From [`commit`] or [`map`].
//! * **released**: committed, its contents given back; reads as zero. From [`release`].
//!
//! Addresses and lengths are multiples of the kernel's page size.

use core::ptr::{self, NonNull};

use crate::sync::keep_errno;

/// Address space without access. `None` if the kernel has no room (`RLIMIT_AS`).
pub fn reserve(bytes: usize) -> Option<NonNull<u8>> {
    map_with(bytes, libc::PROT_NONE)
}

/// Readable and writable zeroes, resident only where touched.
pub fn map(bytes: usize) -> Option<NonNull<u8>> {
    map_with(bytes, libc::PROT_READ | libc::PROT_WRITE)
}

fn map_with(bytes: usize, protection: i32) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
    let address = keep_errno(|| unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) });
    if address == libc::MAP_FAILED { None } else { NonNull::new(address.cast()) }
}

/// Unmaps.
///
/// # Safety
///
/// * The range was returned by [`reserve`] or [`map`] and nobody uses it.
pub unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: by our own contract.
    keep_errno(|| unsafe { libc::munmap(start.as_ptr().cast(), bytes) });
}

/// Makes a reserved range readable and writable. False if the kernel refuses (out of memory).
///
/// # Safety
///
/// * The range is reserved and ours.
pub unsafe fn commit(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    keep_errno(|| unsafe { libc::mprotect(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) }) == 0
}

/// Gives the contents of a committed range back. It reads as zero afterwards. False if the kernel refuses
/// (locked memory).
///
/// # Safety
///
/// * The range is committed, ours, and holds nothing anybody needs.
pub unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    keep_errno(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) }) == 0
}

/// Physical memory in bytes, or 0 where the kernel does not say.
pub fn physical_memory() -> usize {
    // SAFETY: a plain structure of integers; all zero is a value.
    let mut info: libc::sysinfo = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is ours to be written.
    if keep_errno(|| unsafe { libc::sysinfo(&mut info) }) != 0 {
        return 0;
    }
    info.totalram as usize * info.mem_unit as usize
}

/// Bytes of address space this process may have (`RLIMIT_AS`).
pub fn address_space_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is ours to be written; if the call fails it keeps saying "no limit".
    keep_errno(|| unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) });
    limit.rlim_cur as usize
}

/// How many CPUs this thread may run on, at least 1.
pub fn allowed_cpus() -> usize {
    let mut mask = [0u64; 128]; // 8192 CPUs, the kernel's largest configuration
    // SAFETY: the kernel writes at most the size given. The raw call returns how many bytes.
    let written =
        keep_errno(|| unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) });
    if written <= 0 {
        return 1;
    }
    mask.iter().map(|word| word.count_ones() as usize).sum::<usize>().max(1)
}

/// One more than the largest CPU number this kernel can give: from `/sys/devices/system/cpu/possible`,
/// else the number libc reports.
pub fn possible_cpus() -> usize {
    keep_errno(|| {
        let mut text = [0u8; 256];
        // SAFETY: a constant path, and at most `text.len()` bytes are written to `text`.
        let length = unsafe {
            let file = libc::open(c"/sys/devices/system/cpu/possible".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            let length = if file >= 0 { libc::read(file, text.as_mut_ptr().cast(), text.len()) } else { -1 };
            if file >= 0 {
                libc::close(file);
            }
            length
        };
        let listed = last_number(&text[..length.max(0) as usize]).map_or(0, |last| last + 1);
        // SAFETY: sysconf has no preconditions.
        let configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        listed.max(configured.max(1) as usize)
    })
}

/// The last decimal number in a list such as `0-3,8`.
fn last_number(text: &[u8]) -> Option<usize> {
    let end = text.iter().rposition(u8::is_ascii_digit)? + 1;
    let start = text[..end].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |before| before + 1);
    text[start..end].iter().try_fold(0usize, |number, digit| number.checked_mul(10)?.checked_add((digit - b'0').into()))
}

#[cfg(test)]
mod tests {
    use super::last_number;

    #[test]
    fn last_number_of_cpu_lists() {
        assert_eq!(last_number(b"0\n"), Some(0));
        assert_eq!(last_number(b"0-127\n"), Some(127));
        assert_eq!(last_number(b"0-3,8,12-15\n"), Some(15));
        assert_eq!(last_number(b"\n"), None);
        assert_eq!(last_number(b"99999999999999999999999"), None);
    }
}
