//! Names of our mappings, for who reads `/proc/PID/maps` and `smaps`: `[anon:perseq:heap]` and others, where the kernel
//! has that (`PR_SET_VMA_ANON_NAME`: Linux 5.17, with `CONFIG_ANON_VMA_NAME`).
//!
//! The kernel joins two mappings side by side if both have the same name, and not if one has none. So what is mapped
//! beside a mapping of ours is named at once, and there are as many mappings as without names. What is of one kind has one
//! name: a name within the heap would cost mappings, and the huge pages that it cuts.
//!
//! They are asked for (`PERSEQ_NAMES=1`) and not given to everybody: `prctl` would be one call more of those that a
//! filter has to allow which a program sets late.

use core::ffi::CStr;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rseq::syscall::call;

use crate::os;

/// What is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Name {
    /// Pages of the process's heap: blocks, caches and their arrays.
    Heap,
    /// Tables of the process's heap that say what lies at an address, beyond those in the program's own memory.
    Tables,
    /// Memory for threads that must not wait for a lock.
    Emergency,
    /// A heap, or a page allocator, apart from the process's.
    #[default]
    Apart,
}

impl Name {
    fn text(self) -> &'static CStr {
        match self {
            Name::Heap => c"perseq:heap",
            Name::Tables => c"perseq:tables",
            Name::Emergency => c"perseq:emergency",
            Name::Apart => c"perseq:apart",
        }
    }
}

/// Names are given. Nothing is published with it.
static GIVEN: AtomicBool = AtomicBool::new(false);

/// Gives names to what will be mapped, or none.
pub fn set(given: bool) {
    GIVEN.store(given, Relaxed);
}

/// Names a range, if names are given and it is of whole pages of the kernel's.
///
/// # Safety
///
/// * The range is mapped and ours.
pub unsafe fn give(name: Name, start: NonNull<u8>, bytes: usize) {
    if !GIVEN.load(Relaxed) || !(start.as_ptr() as usize | bytes).is_multiple_of(os::page_size()) {
        return;
    }
    let (option, kind) = (libc::PR_SET_VMA as usize, libc::PR_SET_VMA_ANON_NAME as usize);
    let arguments = [option, kind, start.as_ptr() as usize, bytes, name.text().as_ptr() as usize];
    // SAFETY: by our own contract; contents do not change, and the name lives for ever.
    match unsafe { call(libc::SYS_prctl, arguments) } {
        // Without memory for it, or with too many mappings, this one has none.
        Ok(_) | Err(libc::ENOMEM) => {}
        // A kernel without names (EINVAL), or a filter: the next answer would be the same.
        Err(_) => GIVEN.store(false, Relaxed),
    }
}
