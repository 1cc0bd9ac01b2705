//! C++ `operator new` and `operator delete` in all forms, by their mangled names (Itanium C++ ABI, `size_t` = `m`).
//!
//! A form that may not fail calls the new handler until there is memory or the handler gives up, and then throws
//! `std::bad_alloc`, as the standard asks. Rust code must not be unwound through, so what can throw is called from
//! frames in assembly that say how to unwind them: the handler, which may throw, from [`new_slow`], and
//! `std::__throw_bad_alloc` by a jump, as if the program had called it.
//!
//! Two limits, because this library does not link the C++ runtime: the nothrow forms return null without calling the
//! handler, whose exception they would have to catch; and where no shared libstdc++ is loaded (it is linked
//! statically, or the runtime is another), the process ends with a message in place of the exception.

use core::arch::naked_asm;
use core::ffi::{CStr, c_void};

use crate::family::HEAP;
use crate::record;
use crate::standard::{free, free_aligned_sized, free_sized, malloc};

#[macro_use]
#[cfg_attr(target_arch = "x86_64", path = "cxx/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "cxx/aarch64.rs")]
mod frames;

/// What a nothrow form is told by: an empty object.
type NoThrow = *const c_void;

/// Alignment of the forms that name none, `__STDCPP_DEFAULT_NEW_ALIGNMENT__`: malloc's.
const DEFAULT_ALIGN: usize = 16;

extern "C" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    record::request(size, align);
    HEAP.alloc_bytes(size, align.max(DEFAULT_ALIGN)).cast()
}

/// A function of the C++ runtime, if a shared one is loaded.
fn runtime_function(name: &CStr) -> *mut c_void {
    // SAFETY: looks a symbol up by a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// The new handler, or null.
#[cold]
extern "C" fn new_handler() -> *mut c_void {
    let get = runtime_function(c"_ZSt15get_new_handlerv");
    if get.is_null() {
        return get;
    }
    // SAFETY: `std::get_new_handler()`, which does not throw, is the function of that mangled name.
    unsafe { core::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(get)() }
}

/// `std::__throw_bad_alloc`. Where there is none, the end of the process.
#[cold]
extern "C" fn throw_bad_alloc() -> *mut c_void {
    let throw = runtime_function(c"_ZSt17__throw_bad_allocv");
    if throw.is_null() {
        const MESSAGE: &[u8] = b"perseq: operator new: out of memory, and no shared C++ runtime to throw bad_alloc\n";
        // SAFETY: a live string; abort has no preconditions.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::abort()
        }
    }
    throw
}

/// There was no memory: handlers, attempts, and in the end an exception. Its caller's frame is gone already.
#[unsafe(naked)]
unsafe extern "C" fn new_slow(size: usize, align: usize) -> *mut c_void {
    new_slow_frame!(new_handler, new_aligned, throw_bad_alloc)
}

macro_rules! operators_new {
    ($($name:ident)*) => {$(
        /// `operator new`.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(size: usize) -> *mut c_void {
            new_frame!(malloc, new_slow, DEFAULT_ALIGN)
        }
    )*};
}

macro_rules! operators_new_aligned {
    ($($name:ident)*) => {$(
        /// `operator new` of more than the usual alignment.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(size: usize, align: usize) -> *mut c_void {
            new_aligned_frame!(new_aligned, new_slow)
        }
    )*};
}

macro_rules! operators_new_nothrow {
    ($($name:ident($($align:ident)?);)*) => {$(
        /// `operator new`, returning null on failure.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, $($align: usize,)? _: NoThrow) -> *mut c_void {
            let align = DEFAULT_ALIGN $(.max($align))?;
            record::request(size, align);
            HEAP.alloc_bytes(size, align).cast()
        }
    )*};
}

macro_rules! operators_delete {
    ($($name:ident($($argument:ident: $type:ty),*) = $free:ident($($passed:ident),*);)*) => {$(
        /// `operator delete`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(pointer: *mut c_void $(, $argument: $type)*) {
            // SAFETY: by the C++ contract.
            unsafe { $free(pointer $(, $passed)*) };
        }
    )*};
}

operators_new! { _Znwm _Znam }

operators_new_aligned! { _ZnwmSt11align_val_t _ZnamSt11align_val_t }

operators_new_nothrow! {
    _ZnwmRKSt9nothrow_t();
    _ZnamRKSt9nothrow_t();
    _ZnwmSt11align_val_tRKSt9nothrow_t(align);
    _ZnamSt11align_val_tRKSt9nothrow_t(align);
}

operators_delete! {
    _ZdlPv() = free();
    _ZdaPv() = free();
    _ZdlPvm(size: usize) = free_sized(size);
    _ZdaPvm(size: usize) = free_sized(size);
    _ZdlPvSt11align_val_t(_align: usize) = free();
    _ZdaPvSt11align_val_t(_align: usize) = free();
    _ZdlPvmSt11align_val_t(size: usize, align: usize) = free_aligned_sized(align, size);
    _ZdaPvmSt11align_val_t(size: usize, align: usize) = free_aligned_sized(align, size);
    _ZdlPvRKSt9nothrow_t(_nothrow: NoThrow) = free();
    _ZdaPvRKSt9nothrow_t(_nothrow: NoThrow) = free();
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_align: usize, _nothrow: NoThrow) = free();
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_align: usize, _nothrow: NoThrow) = free();
}
