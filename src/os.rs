//! The kernel's memory calls. A region is in one of three states:
//!
//! * **reserved**: address space, no access. From [`reserve`].
//! * **committed**: readable and writable; zero until written. From [`commit`] or [`map`].
//! * **released**: committed, its contents given back; reads as zero. From [`release`].
//!
//! Addresses and lengths are multiples of the kernel's page size.

use core::ptr::{self, NonNull};

use crate::sync::keep_errno;

/// Bytes of a page of the kernel's on x86-64.
pub const OS_PAGE: usize = 4096;

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

/// Takes access to a committed range away, until [`commit`]. False if the kernel refuses.
///
/// # Safety
///
/// * The range is committed and ours.
pub unsafe fn protect(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    keep_errno(|| unsafe { libc::mprotect(start.cast(), bytes, libc::PROT_NONE) }) == 0
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
