//! An allocator to preload that hands everything on to the C library.

use std::path::Path;
use std::process::Command;

/// Builds `libplain.so` in a folder.
pub fn build(folder: &Path) {
    let source = folder.join("plain.rs");
    let text = "#![no_std]\n#[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
        unsafe extern \"C\" { fn __libc_malloc(n: usize) -> *mut u8; fn __libc_free(p: *mut u8); \
        fn __libc_calloc(n: usize, m: usize) -> *mut u8; fn __libc_realloc(p: *mut u8, n: usize) -> *mut u8; }\n\
        #[unsafe(no_mangle)] extern \"C\" fn malloc(n: usize) -> *mut u8 { unsafe { __libc_malloc(n) } }\n\
        #[unsafe(no_mangle)] extern \"C\" fn calloc(n: usize, m: usize) -> *mut u8 { unsafe { __libc_calloc(n, m) } }\n\
        #[unsafe(no_mangle)] extern \"C\" fn realloc(p: *mut u8, n: usize) -> *mut u8 { unsafe { __libc_realloc(p, n) } }\n\
        #[unsafe(no_mangle)] extern \"C\" fn free(p: *mut u8) { unsafe { __libc_free(p) } }";
    std::fs::write(&source, text).expect("a source file");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=cdylib", "-O", "-Cpanic=abort", "-Alinker_messages", "-o"]);
    let built = rustc.arg(folder.join("libplain.so")).arg(&source).output().expect("rustc starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
