//! Thread-local storage on x86-64: `fs` holds the thread pointer, and `fs:0` is its own address. System calls.

use core::arch::{asm, global_asm};
use core::ffi::c_long;

/// The kernel accepts one signature per process; libc's is this one. Behind `ud1` it disassembles.
pub const SIGNATURE: u32 = 0x5305_3053;

/// Whether kernels' arm64 troubles are ours.
pub const IS_ARM64: bool = false;

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
    // SAFETY: the first word of the thread control block points to itself in every x86-64 ABI.
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, pure, readonly));
    }
    pointer
}

/// Bytes from the thread pointer to our own area.
pub fn own_area_offset() -> isize {
    let offset: isize;
    // SAFETY: loads the link-time offset of a TLS symbol this module defines.
    unsafe {
        asm!("mov {}, qword ptr [rip + rseq_own_area@GOTTPOFF]", out(reg) offset,
             options(nostack, preserves_flags, pure, readonly));
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
            "mov {}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {}, qword ptr [rip + __rseq_size@GOTPCREL]",
            "mov {}, qword ptr [rip + __rseq_flags@GOTPCREL]",
            out(reg) offset, out(reg) size, out(reg) flags,
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
        asm!("mov {:e}, dword ptr fs:[{}]", out(reg) value, in(reg) offset,
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
        asm!("mov {}, qword ptr fs:[{}]", out(reg) value, in(reg) offset, options(nostack, preserves_flags, readonly));
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
        asm!("mov qword ptr fs:[{}], {}", in(reg) offset, in(reg) value, options(nostack, preserves_flags));
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
        asm!("movzx {:e}, byte ptr fs:[{}]", out(reg) value, in(reg) offset,
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
        asm!("mov byte ptr fs:[{}], {}", in(reg) offset, in(reg_byte) value, options(nostack, preserves_flags));
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
    // SAFETY: by our own contract. The kernel changes `rax`, `rcx` and `r11` only, and no stack.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
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
            concat!("mov {}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
            out(reg) offset,
            options(nostack, preserves_flags, pure, nomem),
        );
        offset
    }};
}
