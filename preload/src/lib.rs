//! libperseq: perseq under the names of the C library.
//!
//! `LD_PRELOAD=libperseq.so program` runs a program on it; `libperseq.a` can be linked; `perseq.h` declares every
//! function once more under `perseq_`, for programs that use both allocators (of `libperseq.so`: the archive has the standard
//! names as well, so a program with a malloc of its own cannot link it). Semantics are those of POSIX, C23 and
//! glibc: every block is aligned to 16, `malloc(0)` is a block of its own, failure is null with ENOMEM,
//! `realloc(p, 0)` frees and returns null, and `free` leaves errno alone.
//!
//! | file | what it holds |
//! |---|---|
//! | `exports.rs` | the list of all functions, with their promises |
//! | `family.rs` | malloc and its family |
//! | `inspect.rs` | mallinfo, malloc_info and what else looks at the heap |
//! | `structures.rs` | what mallinfo answers with |
//! | `record.rs` | a histogram of requests, in builds that want it |
//! | `cxx.rs` | C++ `new` and `delete` |
//! | `children.rs` | `vfork` and `clone`, so that a child may allocate on its parent's memory |
//!
//! # mallopt
//!
//! The parameters of glibc are accepted, with the values that glibc takes, so that programs which insist on them run; the
//! answer is 1, and nothing changes. Others are refused with 0.
//!
//! | parameter | what there is in its place |
//! |---|---|
//! | `M_MXFAST` | caches hold every small size; their bytes are `PERSEQ_CACHE_BYTES` |
//! | `M_TRIM_THRESHOLD`, `M_TOP_PAD` | free pages go back when `PERSEQ_RELEASE` says, or by `malloc_trim` |
//! | `M_MMAP_THRESHOLD`, `M_MMAP_MAX` | nothing: no block has a mapping of its own |
//! | `M_CHECK_ACTION` | misuse that is seen always aborts |
//! | `M_PERTURB` | `PERSEQ_HARDENED` fills freed memory, from the start of a process |
//! | `M_ARENA_TEST`, `M_ARENA_MAX` | caches are one for each CPU or thread: `PERSEQ_MODE` |
//! | 2, 3 and 4, of System V (`M_NLBLKS`, `M_GRAIN`, `M_KEEP`) | nothing |
//!
//! Under musl the functions that it has not are there as well, and `perseq.h` declares glibc's structures for them. There
//! the mode is decided when the library is loaded, as musl's `pthread_atfork` allocates.
//!
//! glibc's `malloc_get_state` and `malloc_set_state`, hooks and `mcheck` do not exist here.
#![no_std]

#[allow(unused_imports)] // the types of the list
use core::ffi::{c_char, c_int, c_void};

use libc::FILE;

use structures::{mallinfo, mallinfo2};

mod children;
mod cxx;
mod family;
mod inspect;
mod record;
mod structures;

// The `libc` crate leaves this to `std` when any package of the same build has its feature `std`.
#[link(name = "c")]
unsafe extern "C" {}

/// Nothing here panics; what the compiler cannot see that of ends the process.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

// The core library is compiled to unwind, and names what says how. Optimized builds drop the code that does; a debug
// build keeps it, and does not load if nobody defines the symbol. Nothing unwinds here, so it is never called. Hidden:
// a Rust program's own must not be replaced by it. Weak: a program that has one may link `libperseq.a`.
core::arch::global_asm!(
    ".pushsection .text.rust_eh_personality, \"ax\", @progbits",
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality, @function",
    "rust_eh_personality:",
    ".long 0x0b0f", // ud2 on x86-64, udf on aarch64
    ".size rust_eh_personality, . - rust_eh_personality",
    ".popsection",
);

/// Makes the symbols of the list.
macro_rules! c_family {
    (
        standard { $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        own { $($(#[$own_doc:meta])* $own:ident($($own_argument:ident: $own_type:ty),*) $(-> $own_result:ty)?;)* }
        aliases { $($alias:ident = $of:ident($($alias_argument:ident: $alias_type:ty),*) $(-> $alias_result:ty)?;)* }
    ) => {
        mod standard {
            use super::*;
            $(
                $(#[$doc])*
                #[inline(never)] // the other names jump here
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
                    #[allow(unused_unsafe)] // some are safe
                    // SAFETY: by the function's own contract.
                    unsafe { functions::$name($($argument),*) }
                }
            )*
        }
        mod prefixed {
            use super::*;
            $(
                $(#[$doc])*
                #[unsafe(export_name = concat!("perseq_", stringify!($name)))]
                pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
                    // SAFETY: by the function's own contract.
                    unsafe { standard::$name($($argument),*) }
                }
            )*
        }
        mod own {
            use super::*;
            $(
                $(#[$own_doc])*
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $own($($own_argument: $own_type),*) $(-> $own_result)? {
                    #[allow(unused_unsafe)] // some are safe
                    // SAFETY: by the function's own contract.
                    unsafe { functions::$own($($own_argument),*) }
                }
            )*
        }
        mod aliases {
            use super::*;
            $(
                #[doc = concat!("As `", stringify!($of), "`.")]
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $alias($($alias_argument: $alias_type),*) $(-> $alias_result)? {
                    // SAFETY: by the function's own contract.
                    unsafe { standard::$of($($alias_argument),*) }
                }
            )*
        }
    };
}

/// What the symbols do.
mod functions {
    pub use crate::family::*;
    pub use crate::inspect::*;
}

include!("exports.rs");
