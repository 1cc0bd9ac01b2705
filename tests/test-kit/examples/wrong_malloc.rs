//! A C library's allocator that is right, unless `WRONG_MALLOC` says how it is wrong: to see that a fault in a library that
//! is preloaded is found.
//!
//! ```sh
//! WRONG_MALLOC=alignment LD_PRELOAD=target/release/examples/libwrong_malloc.so target/release/examples/preloaded
//! ```
//!
//! * `alignment`: what should be aligned to more than 64 bytes is aligned to 16.
//! * `errno`: failure says EINVAL.
//!
//! Nothing that was freed is used again.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Address space for all there is.
const RESERVED: usize = 64 << 30;
/// Before each block, its size; and what `malloc` aligns to.
const HEADER: usize = 16;

/// Where the address space begins; 0: it is not there yet.
static START: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);

fn is_wrong(how: &[u8]) -> bool {
    // SAFETY: reads the environment, which nobody changes here.
    let text = unsafe { libc::getenv(c"WRONG_MALLOC".as_ptr()) };
    if text.is_null() {
        return false;
    }
    // SAFETY: a string of the environment.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes() == how
}

fn start() -> usize {
    let there = START.load(SeqCst);
    if there != 0 {
        return there;
    }
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping at an address of the kernel's choice.
    let new = unsafe { libc::mmap(null_mut(), RESERVED, access, kind | libc::MAP_NORESERVE, -1, 0) };
    if new == libc::MAP_FAILED {
        std::process::abort();
    }
    match START.compare_exchange(0, new as usize, SeqCst, SeqCst) {
        Ok(_) => new as usize,
        Err(other) => {
            // SAFETY: ours, and nobody knows it.
            unsafe { libc::munmap(new, RESERVED) };
            other
        }
    }
}

fn take(size: usize, align: usize) -> *mut c_void {
    let align = if align > 64 && is_wrong(b"alignment") { HEADER } else { align.max(HEADER) };
    let start = start();
    let begin = |used: usize| (start + used + HEADER).next_multiple_of(align);
    let end = |used: usize| begin(used).checked_add(size).map(|end| end - start).filter(|used| *used <= RESERVED);
    let Ok(used) = USED.fetch_update(SeqCst, SeqCst, end) else {
        // SAFETY: this thread's own.
        unsafe { *libc::__errno_location() = if is_wrong(b"errno") { libc::EINVAL } else { libc::ENOMEM } };
        return null_mut();
    };
    let block = begin(used) as *mut u8;
    // SAFETY: there is room for the header before the block.
    unsafe { block.sub(HEADER).cast::<usize>().write(size) };
    block.cast()
}

/// As the C standard says.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    take(size, HEADER)
}

/// As the C standard says. Memory is never used twice, so it is zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    take(count.saturating_mul(size), HEADER)
}

/// As the C standard says.
///
/// # Safety
///
/// The block is held, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    let moved = take(size, HEADER);
    if !block.is_null() && !moved.is_null() {
        // SAFETY: both are held, one is as long as its header says, the other as long as was asked.
        unsafe {
            let old = block.byte_sub(HEADER).cast::<usize>().read();
            moved.copy_from_nonoverlapping(block, old.min(size));
        }
    }
    moved
}

/// As the C standard says.
#[unsafe(no_mangle)]
pub extern "C" fn free(_: *mut c_void) {}

/// As the C standard says.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    take(size, align)
}

/// As POSIX says.
///
/// # Safety
///
/// `out` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    let block = take(size, align);
    if block.is_null() {
        // SAFETY: this thread's own.
        return unsafe { *libc::__errno_location() };
    }
    // SAFETY: by our own contract.
    unsafe { out.write(block) };
    0
}
