//! The kernel's memory calls, made by [`rseq::syscall`]: nobody interposes them, and errno stays. Memory is in one of
//! these states:
//!
//! * **reserved**: address space, no access. From [`reserve`].
//! * **committed**: readable and writable; zero until written. From [`commit`], or at once from [`map_at`] and
//!   [`map_anywhere`]. The kernel accounts for it: it may refuse.
//! * **released**: committed, its contents given back; reads as zero. From [`release`].
//! * **unmapped**: not ours any more. From [`unmap`].
//!
//! Addresses and lengths are multiples of the kernel's page size.

use core::ptr::NonNull;

use rseq::syscall::call;

use crate::config::HUGE_PAGE;
use crate::vdso;

/// Bytes of the largest page a kernel of this architecture may have. arm64's are built for pages of 4, 16 or 64 KiB: what
/// is laid out by the largest is right for all.
pub const MAX_OS_PAGE: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65_536 };

/// Bits of an address that the kernel gives to who does not ask for more: with five levels of page tables on x86-64, or
/// 52 bits on arm64, only a hint above this gets one above it, and none of ours is.
pub const ADDRESS_BITS: u32 = if cfg!(target_arch = "x86_64") { 47 } else { 48 };

/// Bytes of a page of this kernel's. libc has the number in memory; where there is only one, it is a constant.
pub fn page_size() -> usize {
    if cfg!(target_arch = "x86_64") {
        return MAX_OS_PAGE;
    }
    // SAFETY: sysconf has no preconditions, and this question always has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Memory apart from the heap's: readable and writable, zero, aligned to `align`, a power of two. `None` if the kernel
/// has none.
pub fn map_apart(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    map_anywhere(bytes.checked_next_multiple_of(page_size())?, align.max(page_size()))
}

/// Anonymous memory at `address`, if the flags or the kernel will have it there.
///
/// # Safety
///
/// * `flags` do not replace a mapping that somebody uses.
unsafe fn map(address: usize, bytes: usize, protection: i32, flags: i32) -> Result<usize, i32> {
    let flags = (ANONYMOUS | flags) as usize;
    // SAFETY: by our own contract a new mapping touches nothing that exists.
    unsafe { call(libc::SYS_mmap, [address, bytes, protection as usize, flags, usize::MAX, 0]) }
}

/// Address space without access. `None` if the kernel has no room (`RLIMIT_AS`).
pub fn reserve(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: at an address the kernel chooses.
    let address = unsafe { map(0, bytes, libc::PROT_NONE, libc::MAP_NORESERVE) }.ok()?;
    if bytes >= HUGE_PAGE {
        // A core dump need not say that there is nothing.
        // SAFETY: fresh and ours.
        let _ = unsafe { call(libc::SYS_madvise, [address, bytes, libc::MADV_DONTDUMP as usize]) };
    }
    NonNull::new(address as *mut u8)
}

/// Why there is no memory at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Something else is there.
    Taken,
    /// The kernel gives none.
    NoMemory,
}

/// Committed memory at `address`, where nothing is mapped.
pub fn map_at(address: usize, bytes: usize) -> Result<(), Refusal> {
    // The address is a hint. Who is refused it gets another place, and gives that back: unlike with
    // MAP_FIXED_NOREPLACE, kernels before 4.17 and emulators do the same.
    // SAFETY: a hint replaces nothing.
    let mapped = unsafe { map(address, bytes, READ_WRITE, 0) }.map_err(|_| Refusal::NoMemory)?;
    if mapped == address {
        return Ok(());
    }
    // SAFETY: mapped just now; nobody knows of it.
    let _ = unsafe { call(libc::SYS_munmap, [mapped, bytes]) };
    Err(Refusal::Taken)
}

/// Committed memory at an address that the kernel chooses, a multiple of `align`.
pub fn map_anywhere(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    // SAFETY: at an address the kernel chooses.
    let lucky = unsafe { map(0, bytes, READ_WRITE, 0) }.ok()?;
    let mut start = lucky;
    if !lucky.is_multiple_of(align) {
        let longer = bytes.checked_add(align)?;
        // SAFETY: mapped just now; nobody knows of it.
        let _ = unsafe { call(libc::SYS_munmap, [lucky, bytes]) };
        // Without access, so that the kernel does not account for what is cut off at once.
        // SAFETY: as above.
        let whole = unsafe { map(0, longer, libc::PROT_NONE, libc::MAP_NORESERVE) }.ok()?;
        start = whole.next_multiple_of(align);
        let (before, after) = (start - whole, longer - bytes - (start - whole));
        // SAFETY: the ends of what was mapped just now.
        unsafe {
            if before > 0 {
                let _ = call(libc::SYS_munmap, [whole, before]);
            }
            if after > 0 {
                let _ = call(libc::SYS_munmap, [start + bytes, after]);
            }
        }
        // SAFETY: over the middle of it.
        if unsafe { map(start, bytes, READ_WRITE, libc::MAP_FIXED) }.is_err() {
            // SAFETY: as above.
            let _ = unsafe { call(libc::SYS_munmap, [start, bytes]) };
            return None;
        }
    }
    if start.checked_add(bytes)? > 1 << ADDRESS_BITS {
        // SAFETY: as above.
        let _ = unsafe { call(libc::SYS_munmap, [start, bytes]) };
        return None;
    }
    NonNull::new(start as *mut u8)
}

/// Unmaps. False if the kernel refuses: a hole between two mappings needs one mapping more.
///
/// # Safety
///
/// * The range is ours and nobody uses it.
pub unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    unsafe { call(libc::SYS_munmap, [start.as_ptr() as usize, bytes]) }.is_ok()
}

/// Makes a reserved range readable and writable. False if the kernel refuses (out of memory).
///
/// # Safety
///
/// * The range is reserved and ours.
pub unsafe fn commit(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    let done = unsafe { call(libc::SYS_mprotect, [start as usize, bytes, READ_WRITE as usize]) }.is_ok();
    if done {
        // What `reserve` kept out of core dumps belongs there now.
        // SAFETY: as above.
        let _ = unsafe { call(libc::SYS_madvise, [start as usize, bytes, libc::MADV_DODUMP as usize]) };
    }
    done
}

/// Takes access to a committed range away. False if the kernel refuses.
///
/// # Safety
///
/// * The range is committed and ours.
pub unsafe fn protect(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    unsafe { call(libc::SYS_mprotect, [start as usize, bytes, libc::PROT_NONE as usize]) }.is_ok()
}

/// Gives access to a range back that [`protect`] closed. False if the kernel refuses.
///
/// # Safety
///
/// * The range is committed and ours.
pub unsafe fn unprotect(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    unsafe { call(libc::SYS_mprotect, [start as usize, bytes, READ_WRITE as usize]) }.is_ok()
}

/// Gives the contents of a committed range back. It reads as zero afterwards. False if the kernel refuses
/// (locked memory).
///
/// # Safety
///
/// * The range is committed, ours, and holds nothing anybody needs.
pub unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by our own contract.
    unsafe { call(libc::SYS_madvise, [start as usize, bytes, libc::MADV_DONTNEED as usize]) }.is_ok()
}

/// Makes pages readable that nobody touched, many at a time instead of each by a fault; they take no memory. A kernel
/// before 5.14 does not, and the faults come as usual.
///
/// # Safety
///
/// * The range is committed and ours.
pub unsafe fn make_readable(start: *const u8, bytes: usize) {
    // SAFETY: by our own contract; contents do not change.
    let _ = unsafe { call(libc::SYS_madvise, [start as usize, bytes, libc::MADV_POPULATE_READ as usize]) };
}

/// Puts huge pages (`MAP_HUGETLB`, 2 MiB) under a reserved range: readable and writable zeroes, taken from the
/// system's pool now, so that a touch cannot fail. False, and the range as it was, if the pool has too few, or the
/// kernel cannot move them (before 5.16).
///
/// # Safety
///
/// * The range is reserved, ours, never committed, and begins and ends on 2 MiB.
pub unsafe fn commit_huge(start: *mut u8, bytes: usize) -> bool {
    let flags = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    // At another place first: a mapping at a fixed place that fails may leave a hole there.
    // SAFETY: at an address the kernel chooses.
    let Ok(pages) = (unsafe { map(0, bytes, READ_WRITE, flags) }) else { return false };
    // SAFETY: moves what nobody has seen over a range nobody uses.
    if unsafe { move_to(pages, bytes, start as usize, 0) } {
        return true;
    }
    // SAFETY: nobody has seen them.
    let _ = unsafe { call(libc::SYS_munmap, [pages, bytes]) };
    // SAFETY: the hole is where our reservation was.
    if unsafe { fill_hole(start, bytes, libc::PROT_NONE) } == Some(libc::EEXIST) {
        crate::message::broken(&["another mapping came into the heap's address space"]);
    }
    false
}

/// # Safety
///
/// * `from` is ours, and so is `to`, which nobody needs.
unsafe fn move_to(from: usize, bytes: usize, to: usize, flags: i32) -> bool {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags) as usize;
    // SAFETY: by our own contract.
    unsafe { call(libc::SYS_mremap, [from, bytes, bytes, flags, to]) }.is_ok()
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
    if !(from as usize | to as usize | bytes).is_multiple_of(page_size()) {
        return Relocation::Refused;
    }
    let (mark, place) = (to as u32 ^ 0x6d61_726b, to.cast::<u32>());
    // SAFETY: the new place is ours, and aligned to a page.
    unsafe { place.write(mark) };
    // SAFETY: by our own contract.
    if unsafe { move_to(from as usize, bytes, to as usize, libc::MREMAP_DONTUNMAP) } {
        return Relocation::Moved;
    }
    // Some failures come before the kernel unmaps the new place, some after. Where it did, the hole is filled; if
    // something is there, it is the place as it was or, in a hole for a moment, a mapping of another thread's.
    // SAFETY: what was unmapped was ours and empty.
    if unsafe { fill_hole(to, bytes, READ_WRITE) }.is_none() {
        return Relocation::Refused;
    }
    if !holds(place, mark) {
        return Relocation::Lost;
    }
    // SAFETY: the mark says that the place is still ours.
    unsafe { place.write(0) };
    Relocation::Refused
}

/// Maps a range where nothing is mapped. The errno if that fails.
///
/// # Safety
///
/// * The range was ours.
unsafe fn fill_hole(start: *mut u8, bytes: usize, protection: i32) -> Option<i32> {
    // SAFETY: it touches nothing that exists.
    match unsafe { map(start as usize, bytes, protection, libc::MAP_FIXED_NOREPLACE) } {
        Ok(mapped) if mapped == start as usize => None,
        Ok(elsewhere) => {
            // The flag is not known before Linux 4.17.
            // SAFETY: mapped just now; nobody knows of it.
            let _ = unsafe { call(libc::SYS_munmap, [elsewhere, bytes]) };
            Some(libc::EEXIST)
        }
        Err(errno) => Some(errno),
    }
}

/// Whether the word at an address that may not be readable is `value`. A futex waits, and here for no time at all, if
/// its word is the expected one: a look at memory that any sandbox allows, as locks need the call.
fn holds(address: *mut u32, value: u32) -> bool {
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the kernel checks the address and only reads there.
        let waited =
            unsafe { call(libc::SYS_futex, [address as usize, operation, value as usize, &raw const never as usize]) };
        // EAGAIN is another value, EFAULT no memory.
        if waited != Err(libc::EINTR) {
            return waited == Err(libc::ETIMEDOUT);
        }
    }
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
    let _ = unsafe { call(libc::SYS_madvise, [start as usize, bytes, advice as usize]) };
}

/// Milliseconds of a clock that only goes forward, exact to about four: without a system call where the kernel lends code
/// for it ([`vdso`]).
pub fn milliseconds() -> u64 {
    let time = vdso::coarse_time();
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Nanoseconds of such a clock, exactly.
pub fn nanoseconds() -> u64 {
    in_nanoseconds(vdso::exact_time())
}

/// Nanoseconds since 1970, as files are dated.
pub fn date() -> u64 {
    in_nanoseconds(vdso::wall_time())
}

fn in_nanoseconds(time: libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Physical memory in bytes, or 0 where the kernel does not say.
pub fn physical_memory() -> usize {
    // SAFETY: a plain structure of integers; all zero is a value.
    let mut info: libc::sysinfo = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is ours to be written.
    match unsafe { call(libc::SYS_sysinfo, [&raw mut info as usize]) } {
        Ok(_) => info.totalram as usize * info.mem_unit as usize,
        Err(_) => 0,
    }
}

/// Where a heap may begin to grow upwards: far below where the kernel puts mappings, and as random as the places of this
/// stack and of the C library are.
pub fn growth_start() -> usize {
    let here = 0_u8;
    let stack = &raw const here as usize;
    let library = libc::getauxval as *const () as usize;
    let below = stack - stack / 8;
    (below - library % (stack / 16)) & !(HUGE_PAGE - 1)
}
