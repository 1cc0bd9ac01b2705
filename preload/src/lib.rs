//! libperseq: perseq under the names of the C library.
//!
//! `LD_PRELOAD=libperseq.so program` runs a program on it; `libperseq.a` can be linked. Semantics are those of
//! POSIX, C23 and glibc: every block is aligned to 16, `malloc(0)` is a block of its own, failure is null with
//! ENOMEM, `realloc(p, 0)` frees and returns null, and `free` leaves errno alone.
#![no_std]
#![allow(clippy::missing_safety_doc)] // the C standard's: pointers are null or live blocks of this library

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use allocator::Perseq;

mod cxx;

pub(crate) static HEAP: Perseq = Perseq::new();

const OS_PAGE: usize = 4096;

/// Nothing here panics; what the compiler cannot see that of ends the process.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

fn fail(errno: c_int) -> *mut c_void {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = errno };
    ptr::null_mut()
}

/// `size` bytes, aligned to 16.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    HEAP.alloc_block(size).cast()
}

/// `count * size` zeroed bytes, aligned to 16.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => HEAP.alloc_zeroed_bytes(bytes).cast(),
        None => fail(libc::ENOMEM),
    }
}

/// Frees a block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(pointer: *mut c_void) {
    // SAFETY: by the C contract.
    unsafe { HEAP.free(pointer.cast()) };
}

/// Resizes a block, moving it if it must.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: by the C contract.
    unsafe {
        match (pointer.is_null(), size) {
            (true, _) => malloc(size),
            (false, 0) => {
                free(pointer);
                ptr::null_mut()
            }
            (false, _) => HEAP.resize(pointer.cast(), size).cast(),
        }
    }
}

/// [`realloc`] to `count * size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: by the C contract.
        Some(bytes) => unsafe { realloc(pointer, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// C23: [`free`], given the size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(pointer: *mut c_void, _size: usize) {
    // SAFETY: by the C contract.
    unsafe { free(pointer) };
}

/// C23: [`free`], given alignment and size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(pointer: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: by the C contract.
    unsafe { free(pointer) };
}

/// `size` bytes aligned to `align`, a power of two. Sizes need not be a multiple of it, as in glibc.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    HEAP.alloc_bytes(size, align.max(16)).cast()
}

/// Stores `size` bytes aligned to `align` in `*out`; returns 0, EINVAL or ENOMEM and leaves errno alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    let block = HEAP.alloc_bytes(size, align.max(16));
    if block.is_null() {
        fail(errno);
        return libc::ENOMEM;
    }
    // SAFETY: `out` is the caller's to be written.
    unsafe { *out = block.cast() };
    0
}

/// As [`aligned_alloc`], with `align` rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => fail(libc::EINVAL),
    }
}

/// `size` bytes on an OS page boundary.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned_alloc(OS_PAGE, size)
}

/// Whole OS pages, at least `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(OS_PAGE) {
        Some(bytes) => aligned_alloc(OS_PAGE, bytes),
        None => fail(libc::ENOMEM),
    }
}

/// Bytes that may be used at `pointer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(pointer: *mut c_void) -> usize {
    // SAFETY: by glibc's contract.
    unsafe { HEAP.usable_size(pointer.cast()) }
}

/// Gives unused memory back to the kernel; 1 if there was any.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: usize) -> c_int {
    c_int::from(allocator::release() > 0)
}

/// Writes the name of the active mode into the `size` bytes at `text`, cut to fit and ended with a zero byte, and
/// returns its whole length. A fallback shows here: the name is then not the one in `PERSEQ_MODE`.
///
/// # Safety
///
/// * `size` bytes at `text` may be written; `size` may be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn perseq_active_mode(text: *mut c_char, size: usize) -> usize {
    let name = allocator::active_mode().active.name();
    if let Some(room) = size.checked_sub(1) {
        let length = name.len().min(room);
        // SAFETY: `length` and the zero byte after it fit into `size`.
        unsafe { ptr::copy_nonoverlapping(name.as_ptr(), text.cast(), length) };
        // SAFETY: as above.
        unsafe { text.add(length).write(0) };
    }
    name.len()
}
