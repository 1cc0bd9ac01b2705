//! C++ `operator new` and `operator delete` in all forms, by their mangled names (Itanium C++ ABI, `size_t` = `m`).
//!
//! A form that may not fail calls the new handler until it gives up, as the standard asks. Three limits, because
//! this library does not link the C++ runtime: where `std::bad_alloc` would be thrown the process ends with a message,
//! a new handler must not throw, and the nothrow forms return null without calling it.

use core::ffi::c_void;

use crate::{HEAP, free};

/// What a nothrow form is told by: an empty object.
type NoThrow = *const c_void;
type NewHandler = Option<unsafe extern "C" fn()>;

/// `std::get_new_handler()`, if a C++ runtime is loaded.
fn new_handler() -> NewHandler {
    // SAFETY: looks a symbol up by its constant name.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_ZSt15get_new_handlerv".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the symbol is the function of that mangled name.
    unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> NewHandler>(symbol)() }
}

#[inline]
fn new(size: usize, align: usize) -> *mut c_void {
    let block = HEAP.alloc_bytes(size, align.max(16));
    if block.is_null() { new_slow(size, align) } else { block.cast() }
}

#[cold]
fn new_slow(size: usize, align: usize) -> *mut c_void {
    while let Some(handler) = new_handler() {
        // SAFETY: the program's own handler, which does not throw.
        unsafe { handler() };
        let block = HEAP.alloc_bytes(size, align.max(16));
        if !block.is_null() {
            return block.cast();
        }
    }
    const MESSAGE: &[u8] = b"perseq: operator new: out of memory\n";
    // SAFETY: a live string; abort has no preconditions.
    unsafe {
        libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::abort()
    }
}

macro_rules! operators_new {
    ($($name:ident($($align:ident)?);)*) => {$(
        /// `operator new`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize $(, $align: usize)?) -> *mut c_void {
            let align = 16 $(.max($align))?;
            new(size, align)
        }
    )*};
}

macro_rules! operators_new_nothrow {
    ($($name:ident($($align:ident)?);)*) => {$(
        /// `operator new`, returning null on failure.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, $($align: usize,)? _: NoThrow) -> *mut c_void {
            let align = 16 $(.max($align))?;
            HEAP.alloc_bytes(size, align).cast()
        }
    )*};
}

macro_rules! operators_delete {
    ($($name:ident($($unused:ty),*);)*) => {$(
        /// `operator delete`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(pointer: *mut c_void $(, _: $unused)*) {
            // SAFETY: by the C++ contract.
            unsafe { free(pointer) };
        }
    )*};
}

operators_new! {
    _Znwm();
    _Znam();
    _ZnwmSt11align_val_t(align);
    _ZnamSt11align_val_t(align);
}

operators_new_nothrow! {
    _ZnwmRKSt9nothrow_t();
    _ZnamRKSt9nothrow_t();
    _ZnwmSt11align_val_tRKSt9nothrow_t(align);
    _ZnamSt11align_val_tRKSt9nothrow_t(align);
}

operators_delete! {
    _ZdlPv();
    _ZdaPv();
    _ZdlPvm(usize);
    _ZdaPvm(usize);
    _ZdlPvSt11align_val_t(usize);
    _ZdaPvSt11align_val_t(usize);
    _ZdlPvmSt11align_val_t(usize, usize);
    _ZdaPvmSt11align_val_t(usize, usize);
    _ZdlPvRKSt9nothrow_t(NoThrow);
    _ZdaPvRKSt9nothrow_t(NoThrow);
    _ZdlPvSt11align_val_tRKSt9nothrow_t(usize, NoThrow);
    _ZdaPvSt11align_val_tRKSt9nothrow_t(usize, NoThrow);
}
