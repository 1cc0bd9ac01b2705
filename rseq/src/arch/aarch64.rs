//! Thread-local storage on aarch64: `tpidr_el0` holds the thread pointer. System calls.

use core::arch::{asm, global_asm};
use core::ffi::c_long;

/// The kernel accepts one signature per process; libc's is this one, a `brk`.
pub const SIGNATURE: u32 = 0xd428_bc00;

/// Whether kernels' arm64 troubles are ours.
pub const IS_ARM64: bool = true;

global_asm!(
    // Our own area: static TLS, `cpu_id_start` 0, `cpu_id` -1 until the kernel takes over. `mm_cid` is -1
    // as well, so that an unregistered thread has no index of either kind.
    ".pushsection .tdata.rseq_own_area, \"awT\", @progbits",
    ".balign {length}",
    ".globl rseq_own_area",
    ".hidden rseq_own_area",
    ".type rseq_own_area, @object",
    "rseq_own_area: .long 0, -1, 0, 0, 0, 0, -1, 0",
    ".zero {length} - 32",
    ".size rseq_own_area, {length}",
    ".popsection",
    length = const crate::abi::OWN_LENGTH,
);

/// The register TLS is addressed from.
#[inline(always)]
pub fn thread_pointer() -> isize {
    let pointer: isize;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, pure, nomem));
    }
    pointer
}

/// Bytes from the thread pointer to our own area.
pub fn own_area_offset() -> isize {
    let offset: isize;
    // SAFETY: loads the link-time offset of a TLS symbol this module defines.
    unsafe {
        asm!("adrp {offset}, :gottprel:rseq_own_area",
             "ldr {offset}, [{offset}, :gottprel_lo12:rseq_own_area]",
             offset = out(reg) offset, options(nostack, preserves_flags, pure, readonly));
    }
    offset
}

/// Addresses of libc's `__rseq_offset`, `__rseq_size` and `__rseq_flags`; null where it has none.
pub fn libc_symbols() -> (*const isize, *const u32, *const u32) {
    let (offset, size, flags): (*const isize, *const u32, *const u32);
    // SAFETY: loads three addresses from the global offset table.
    unsafe {
        asm!(
            // Weak: a libc without them leaves null. Said here, as each object file has to say it.
            ".weak __rseq_offset",
            ".weak __rseq_size",
            ".weak __rseq_flags",
            "adrp {offset}, :got:__rseq_offset",
            "ldr {offset}, [{offset}, :got_lo12:__rseq_offset]",
            "adrp {size}, :got:__rseq_size",
            "ldr {size}, [{size}, :got_lo12:__rseq_size]",
            "adrp {flags}, :got:__rseq_flags",
            "ldr {flags}, [{flags}, :got_lo12:__rseq_flags]",
            offset = out(reg) offset, size = out(reg) size, flags = out(reg) flags,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    (offset, size, flags)
}

/// Loads a u32 of the calling thread. Not `pure`: the kernel changes it between any two reads.
///
/// # Safety
///
/// * `offset` from the thread pointer is a readable, aligned u32 of this thread.
#[inline(always)]
pub unsafe fn load_u32(offset: isize) -> u32 {
    let value: u32;
    // SAFETY: by our own contract.
    unsafe {
        asm!("ldr {:w}, [{}]", out(reg) value, in(reg) thread_pointer() + offset,
             options(nostack, preserves_flags, readonly));
    }
    value
}

/// Loads a word of the calling thread.
///
/// # Safety
///
/// * `offset` from the thread pointer is a readable, aligned word of this thread.
#[inline(always)]
pub unsafe fn load_word(offset: isize) -> usize {
    let value: usize;
    // SAFETY: by our own contract.
    unsafe {
        asm!("ldr {}, [{}]", out(reg) value, in(reg) thread_pointer() + offset,
             options(nostack, preserves_flags, readonly));
    }
    value
}

/// Stores a word of the calling thread, in one instruction.
///
/// # Safety
///
/// * `offset` from the thread pointer is a writable, aligned word of this thread.
#[inline(always)]
pub unsafe fn store_word(offset: isize, value: usize) {
    // SAFETY: by our own contract.
    unsafe {
        asm!("str {}, [{}]", in(reg) value, in(reg) thread_pointer() + offset, options(nostack, preserves_flags));
    }
}

/// Loads a byte of the calling thread. Not `pure`, as above.
///
/// # Safety
///
/// * `offset` from the thread pointer is a readable byte of this thread.
#[inline(always)]
pub unsafe fn load_u8(offset: isize) -> u8 {
    let value: u32;
    // SAFETY: by our own contract.
    unsafe {
        asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) thread_pointer() + offset,
             options(nostack, preserves_flags, readonly));
    }
    value as u8
}

/// Stores a byte of the calling thread. No access of memory is moved across it.
///
/// # Safety
///
/// * `offset` from the thread pointer is a writable byte of this thread.
#[inline(always)]
pub unsafe fn store_u8(offset: isize, value: u8) {
    // SAFETY: by our own contract.
    unsafe {
        asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) thread_pointer() + offset,
             options(nostack, preserves_flags));
    }
}

/// Makes a system call; the answer as the kernel gives it.
///
/// # Safety
///
/// * As for [`crate::syscall::call`].
#[inline(always)]
pub unsafe fn syscall(number: c_long, arguments: [usize; 6]) -> usize {
    let answer: usize;
    // SAFETY: by our own contract. The kernel changes `x0` only, and no stack.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as usize,
            inlateout("x0") arguments[0] => answer,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack, preserves_flags),
        );
    }
    answer
}

/// Loads `$symbol`'s offset from the thread pointer: one load from the global offset table.
#[doc(hidden)]
#[macro_export]
macro_rules! __thread_offset {
    ($symbol:literal) => {{
        let offset: isize;
        ::core::arch::asm!(
            concat!("adrp {offset}, :gottprel:", $symbol),
            concat!("ldr {offset}, [{offset}, :gottprel_lo12:", $symbol, "]"),
            offset = out(reg) offset,
            options(nostack, preserves_flags, pure, nomem),
        );
        offset
    }};
}
