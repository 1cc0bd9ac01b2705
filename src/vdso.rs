//! The clock, read by code that the kernel lends to every process (its vDSO), found without libc: libc's
//! `clock_gettime` can be interposed, and the system call may be forbidden by the time it is asked.
//!
//! The coarse clock is a number in memory that the kernel writes at each tick. The lent code reads it on every kernel,
//! whatever clock the machine has, so it never goes on to the system call. The exact one, which a heap profile reads, it
//! asks the kernel for on machines whose own clock cannot be trusted. Where there is no such code (`vdso=0`, valgrind), the
//! system call is made.

use core::ffi::CStr;
use core::mem::transmute;
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};

use rseq::syscall;

type ClockGetTime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> i32;

/// The address of the lent function; [`UNKNOWN`] before the first look, [`NONE`] where there is none.
static FUNCTION: AtomicUsize = AtomicUsize::new(UNKNOWN);
const UNKNOWN: usize = 0;
const NONE: usize = 1;

const NAME: &CStr = if cfg!(target_arch = "x86_64") { c"__vdso_clock_gettime" } else { c"__kernel_clock_gettime" };

/// Looks for the lent function. At the start, where calling libc does no harm.
pub fn find() {
    // SAFETY: getauxval has no preconditions.
    let image = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    // SAFETY: the kernel says that its image, which stays mapped, begins there.
    let found = if image == 0 { None } else { unsafe { symbol(image, NAME) } };
    FUNCTION.store(found.unwrap_or(NONE), Release); // pairs with `time`: nothing is published but the number
}

/// The coarse clock that only goes forward.
pub fn coarse_time() -> libc::timespec {
    time(libc::CLOCK_MONOTONIC_COARSE)
}

/// The exact clock that only goes forward.
pub fn exact_time() -> libc::timespec {
    time(libc::CLOCK_MONOTONIC)
}

/// The time of day, coarsely: what files are dated by.
pub fn wall_time() -> libc::timespec {
    time(libc::CLOCK_REALTIME_COARSE)
}

#[inline(always)] // of three callers, one of which is on the slow paths
fn time(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    match FUNCTION.load(Acquire) {
        UNKNOWN | NONE => {
            // SAFETY: `time` is ours to be written.
            _ = unsafe { syscall::call(libc::SYS_clock_gettime, [clock as usize, &raw mut time as usize]) };
        }
        function => {
            // SAFETY: the kernel's function of this name is of this type.
            let function: ClockGetTime = unsafe { transmute(function) };
            // SAFETY: `time` is ours to be written.
            unsafe { function(clock, &mut time) };
        }
    }
    time
}

/// The address of the function called `name` in the ELF image at `image`.
///
/// # Safety
///
/// * A shared object is mapped there as its program headers say.
unsafe fn symbol(image: usize, name: &CStr) -> Option<usize> {
    // SAFETY: by our own contract, for all that is read below: headers and tables lie in the image.
    let header = unsafe { &*(image as *const libc::Elf64_Ehdr) };
    // SAFETY: as above.
    let segments = unsafe {
        core::slice::from_raw_parts((image + header.e_phoff as usize) as *const libc::Elf64_Phdr, header.e_phnum.into())
    };
    let loaded = segments.iter().find(|segment| segment.p_type == libc::PT_LOAD)?;
    let dynamic = segments.iter().find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
    let base = image.wrapping_add(loaded.p_offset as usize).wrapping_sub(loaded.p_vaddr as usize);
    let at = |address: u64| base.wrapping_add(address as usize);

    let [mut strings, mut symbols, mut hash, mut gnu_hash] = [0; 4];
    let mut entry = at(dynamic.p_vaddr) as *const [u64; 2];
    loop {
        // SAFETY: as above; the table ends with a zero.
        let [tag, value] = unsafe { *entry };
        match tag {
            DT_NULL => break,
            DT_HASH => hash = at(value),
            DT_STRTAB => strings = at(value),
            DT_SYMTAB => symbols = at(value),
            DT_GNU_HASH => gnu_hash = at(value),
            _ => {}
        }
        // SAFETY: as above.
        entry = unsafe { entry.add(1) };
    }
    if strings == 0 || symbols == 0 {
        return None;
    }
    // SAFETY: as above.
    let count = unsafe { if hash != 0 { *(hash as *const u32).add(1) } else { symbols_by_gnu_hash(gnu_hash)? } };
    // SAFETY: as above.
    let symbols = unsafe { core::slice::from_raw_parts(symbols as *const libc::Elf64_Sym, count as usize) };
    let found = symbols.iter().find(|symbol| {
        // SAFETY: as above; names are C strings.
        symbol.st_shndx != 0 && unsafe { CStr::from_ptr((strings + symbol.st_name as usize) as *const _) } == name
    })?;
    Some(at(found.st_value))
}

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

/// How many symbols a table has that GNU's hash table at `table` is for.
///
/// # Safety
///
/// * `table` is 0 or such a table.
unsafe fn symbols_by_gnu_hash(table: usize) -> Option<u32> {
    if table == 0 {
        return None;
    }
    // SAFETY: by our own contract, for all that is read below.
    let [buckets, first, filters, _] = unsafe { *(table as *const [u32; 4]) };
    let bucket = table + 16 + filters as usize * 8;
    // SAFETY: as above.
    let last = unsafe { core::slice::from_raw_parts(bucket as *const u32, buckets as usize) }.iter().copied().max()?;
    if last < first {
        return Some(first);
    }
    let chain = bucket + buckets as usize * 4;
    let mut symbol = last;
    // SAFETY: as above; the last of a chain is odd.
    while unsafe { *(chain as *const u32).add((symbol - first) as usize) } & 1 == 0 {
        symbol += 1;
    }
    Some(symbol + 1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_lent_clock_is_the_systems() {
        find();
        let has_image = {
            // SAFETY: getauxval has no preconditions.
            unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) != 0 }
        };
        assert_eq!(FUNCTION.load(Acquire) != NONE, has_image);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        for _ in 0..100 {
            let before = coarse_time();
            // SAFETY: `time` is ours to be written.
            assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) }, 0);
            let after = coarse_time();
            let order = [before, time, after].map(|time| (time.tv_sec, time.tv_nsec));
            assert!(order.is_sorted(), "{order:?}");
            std::thread::sleep(core::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        // SAFETY: getauxval has no preconditions.
        let image = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
        if image != 0 {
            // SAFETY: the kernel's image.
            assert_eq!(unsafe { symbol(image, c"__vdso_clock_settime") }, None);
        }
    }
}
