//! The functions of the C family. What each promises is said in the list of exports.
#![allow(clippy::missing_safety_doc)] // the C standard's: pointers are null or live blocks of this library

use core::ffi::{c_int, c_void};
use core::ptr;

use allocator::Perseq;

use crate::{record, standard};

pub static HEAP: Perseq = Perseq::new();

/// Bytes of a page of the kernel's.
fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions, and this question always has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn fail(errno: c_int) -> *mut c_void {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = errno };
    ptr::null_mut()
}

#[inline(always)] // into the symbol of its name
pub fn malloc(size: usize) -> *mut c_void {
    record::request(size, 16);
    HEAP.alloc_block(size).cast()
}

pub fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => {
            record::request(bytes, 16);
            HEAP.alloc_zeroed_bytes(bytes).cast()
        }
        None => fail(libc::ENOMEM),
    }
}

#[inline(always)] // into the symbol of its name
pub unsafe fn free(pointer: *mut c_void) {
    // SAFETY: by the C contract.
    unsafe { HEAP.free(pointer.cast()) };
}

pub unsafe fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: by the C contract.
    unsafe {
        match (pointer.is_null(), size) {
            (true, _) => standard::malloc(size),
            (false, 0) => {
                standard::free(pointer);
                ptr::null_mut()
            }
            (false, _) => {
                record::request(size, 16);
                HEAP.resize(pointer.cast(), size).cast()
            }
        }
    }
}

pub unsafe fn reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: by the C contract.
        Some(bytes) => unsafe { realloc(pointer, bytes) },
        None => fail(libc::ENOMEM),
    }
}

pub unsafe fn free_sized(pointer: *mut c_void, size: usize) {
    // SAFETY: by the C contract.
    unsafe { HEAP.free_sized(pointer.cast(), size, 16) };
}

pub unsafe fn free_aligned_sized(pointer: *mut c_void, align: usize, size: usize) {
    // SAFETY: by the C contract.
    unsafe { HEAP.free_sized(pointer.cast(), size, align.max(16)) };
}

pub fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    record::request(size, align);
    HEAP.alloc_bytes(size, align.max(16)).cast()
}

pub unsafe fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    record::request(size, align);
    let block = HEAP.alloc_bytes(size, align.max(16));
    if block.is_null() {
        fail(errno);
        return libc::ENOMEM;
    }
    // SAFETY: `out` is the caller's to be written.
    unsafe { *out = block.cast() };
    0
}

pub fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => fail(libc::EINVAL),
    }
}

pub fn valloc(size: usize) -> *mut c_void {
    aligned_alloc(page_size(), size)
}

pub fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page_size()) {
        Some(bytes) => aligned_alloc(page_size(), bytes),
        None => fail(libc::ENOMEM),
    }
}

pub unsafe fn malloc_usable_size(pointer: *mut c_void) -> usize {
    // SAFETY: by glibc's contract.
    unsafe { HEAP.usable_size(pointer.cast()) }
}

pub fn malloc_trim(_keep: usize) -> c_int {
    c_int::from(allocator::release() > 0)
}
