//! The kernel's memory calls. A region is in one of three states:
//!
//! * **reserved**: address space, no access. From [`reserve`].
//! * **committed**: readable and writable; zero until written. From [`commit`].
//! * **released**: committed, its contents given back; reads as zero. From [`release`].
//!
//! Addresses and lengths are multiples of the kernel's page size.

use core::ptr::{self, NonNull};

use rseq::syscall;

use crate::errno::keep_errno;
use crate::vdso;

/// Bytes of the largest page a kernel of this architecture may have. arm64's are built for pages of 4, 16 or 64 KiB: what
/// is laid out by the largest is right for all.
pub const MAX_OS_PAGE: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65_536 };

/// Bytes of a page of this kernel's. libc has the number in memory; where there is only one, it is a constant.
pub fn page_size() -> usize {
    if cfg!(target_arch = "x86_64") {
        return MAX_OS_PAGE;
    }
    // SAFETY: sysconf has no preconditions, and this question always has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Address space without access. `None` if the kernel has no room (`RLIMIT_AS`).
pub fn reserve(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
    let address = keep_errno(|| unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, ANONYMOUS, -1, 0) });
    if address == libc::MAP_FAILED { None } else { NonNull::new(address.cast()) }
}

/// Memory apart from the heap's: readable and writable, zero, aligned to `align`, a power of two. `None` if the kernel
/// has none.
pub fn map_apart(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let spare = align.saturating_sub(page_size());
    let all = bytes.checked_add(spare)?;
    let arguments = [0, all, READ_WRITE as usize, ANONYMOUS as usize, usize::MAX, 0];
    // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
    let first = unsafe { syscall::call(libc::SYS_mmap, arguments) }.ok()?;
    let start = first.next_multiple_of(align);
    for (from, to) in [(first, start), (start + bytes.next_multiple_of(page_size()), first + all)] {
        if from < to {
            // SAFETY: part of the new mapping, which nobody has seen.
            _ = unsafe { syscall::call(libc::SYS_munmap, [from, to - from]) };
        }
    }
    NonNull::new(start as *mut u8)
}

/// Unmaps.
///
/// # Safety
///
/// * The range was returned by [`reserve`] and nobody uses it.
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
    keep_errno(|| unsafe { libc::mprotect(start.cast(), bytes, READ_WRITE) }) == 0
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

/// Puts huge pages (`MAP_HUGETLB`, 2 MiB) under a reserved range: readable and writable zeroes, taken from the
/// system's pool now, so that a touch cannot fail. False, and the range as it was, if the pool has too few, or the
/// kernel cannot move them (before 5.16).
///
/// # Safety
///
/// * The range is reserved, ours, never committed, and begins and ends on 2 MiB.
pub unsafe fn commit_huge(start: *mut u8, bytes: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    keep_errno(|| {
        // At another place first: a mapping at a fixed place that fails may leave a hole there.
        // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
        let pages = unsafe { libc::mmap(ptr::null_mut(), bytes, READ_WRITE, flags, -1, 0) };
        if pages == libc::MAP_FAILED {
            return false;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: moves what nobody has seen over a range nobody uses.
        if unsafe { libc::mremap(pages, bytes, bytes, flags, start.cast::<libc::c_void>()) } != libc::MAP_FAILED {
            return true;
        }
        // SAFETY: nobody has seen them.
        unsafe { libc::munmap(pages, bytes) };
        // SAFETY: the hole is where our reservation was.
        if unsafe { fill_hole(start, bytes, libc::PROT_NONE) } == Some(libc::EEXIST) {
            crate::message::broken(&["another mapping came into the heap's address space"]);
        }
        false
    })
}

/// What became of a range that was to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relocation {
    /// Its contents are at the new place. The old one reads as zero and is as usable as before.
    Moved,
    /// Nothing happened, but that the new place reads as zero.
    Refused,
    /// The contents are where they were. The new place is not ours any more: never touch it.
    Lost,
}

/// Moves the pages of a range, without a copy (`MREMAP_DONTUNMAP`, Linux 5.7). Before 6.17 the kernel does it only
/// within one of its mappings, so a range that was put together from moved ones may be refused. So is one that does not
/// begin and end where the kernel's pages do.
///
/// # Safety
///
/// * Both ranges are committed, ours, apart, and nobody else uses them. The new one holds nothing anybody needs.
pub unsafe fn relocate(from: *mut u8, to: *mut u8, bytes: usize) -> Relocation {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    if !(from as usize | to as usize | bytes).is_multiple_of(page_size()) {
        return Relocation::Refused;
    }
    let (mark, place) = (to as usize ^ 0x6d61_726b, to.cast::<usize>());
    // SAFETY: the new place is ours, and aligned to a page.
    unsafe { place.write(mark) };
    keep_errno(|| {
        // SAFETY: by our own contract.
        let moved = unsafe { libc::mremap(from.cast(), bytes, bytes, flags, to.cast::<libc::c_void>()) };
        if moved != libc::MAP_FAILED {
            return Relocation::Moved;
        }
        // Some failures come before the kernel unmaps the new place, some after. Where it did, the hole is filled; if
        // something is there, it is the place as it was or, in a hole for a moment, a mapping of another thread's.
        // SAFETY: what was unmapped was ours and empty.
        if unsafe { fill_hole(to, bytes, READ_WRITE) }.is_none() {
            return Relocation::Refused;
        }
        if read_carefully(to) != Some(mark) {
            return Relocation::Lost;
        }
        // SAFETY: the mark says that the place is still ours.
        unsafe { place.write(0) };
        Relocation::Refused
    })
}

/// Maps a range where nothing is mapped. The errno if that fails.
///
/// # Safety
///
/// * The range was ours.
unsafe fn fill_hole(start: *mut u8, bytes: usize, protection: i32) -> Option<i32> {
    let flags = ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: it touches nothing that exists.
    let mapped = unsafe { libc::mmap(start.cast(), bytes, protection, flags, -1, 0) };
    // SAFETY: errno is this thread's.
    (mapped != start.cast()).then(|| unsafe { *libc::__errno_location() })
}

/// The word at an address that may not be readable.
fn read_carefully(address: *mut u8) -> Option<usize> {
    let mut word = 0usize;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size_of::<usize>() };
    let remote = libc::iovec { iov_base: address.cast(), iov_len: size_of::<usize>() };
    // SAFETY: the kernel checks the address; `word` is ours to be written.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    (read == size_of::<usize>() as isize).then_some(word)
}

/// What [`advise_huge`] says of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugeAdvice {
    Use,
    Avoid,
}

/// Asks for huge pages in a committed range, or for none. A kernel without them does not mind.
///
/// # Safety
///
/// * The range is committed and ours.
pub unsafe fn advise_huge(start: *mut u8, bytes: usize, advice: HugeAdvice) {
    let advice = match advice {
        HugeAdvice::Use => libc::MADV_HUGEPAGE,
        HugeAdvice::Avoid => libc::MADV_NOHUGEPAGE,
    };
    // SAFETY: by our own contract; contents do not change.
    keep_errno(|| unsafe { libc::madvise(start.cast(), bytes, advice) });
}

/// Milliseconds of a clock that only goes forward, exact to about four: without a system call where the kernel lends code
/// for it ([`vdso`]).
pub fn milliseconds() -> u64 {
    let time = vdso::coarse_time();
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Physical memory in bytes, or 0 where the kernel does not say.
pub fn physical_memory() -> usize {
    // SAFETY: a plain structure of integers; all zero is a value.
    let mut info: libc::sysinfo = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is ours to be written.
    match unsafe { syscall::call(libc::SYS_sysinfo, [&raw mut info as usize]) } {
        Ok(_) => info.totalram as usize * info.mem_unit as usize,
        Err(_) => 0,
    }
}

/// Bytes of address space this process may have (`RLIMIT_AS`).
pub fn address_space_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    let arguments = [0, libc::RLIMIT_AS as usize, 0, &raw mut limit as usize];
    // SAFETY: `limit` is ours to be written; if the call fails it keeps saying "no limit".
    _ = unsafe { syscall::call(libc::SYS_prlimit64, arguments) };
    limit.rlim_cur as usize
}
