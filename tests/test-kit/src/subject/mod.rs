//! What is tested.

#[cfg(feature = "allocator-api2")]
pub mod allocator;
pub mod c;
pub mod global;

use std::alloc::Layout;

/// What an allocator promises of the calling thread's errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno {
    /// A request that fails sets it to `ENOMEM`.
    pub enomem: bool,
    /// `free` leaves it as it was.
    pub kept_by_free: bool,
    /// A request that succeeds leaves it as it was.
    pub kept_by_success: bool,
}

impl Errno {
    /// Nothing.
    pub const UNJUDGED: Errno = Errno { enomem: false, kept_by_free: false, kept_by_success: false };
    /// What POSIX.1-2024 asks of `malloc` and `free`.
    pub const POSIX: Errno = Errno { enomem: true, kept_by_free: true, kept_by_success: false };
    /// That nothing but failure changes it.
    pub const KEPT: Errno = Errno { enomem: true, kept_by_free: true, kept_by_success: true };
}

/// An allocator, as the kit uses it: from several threads, in children of a fork, and, where it says so, in handlers of
/// signals.
///
/// Layouts never have a size of 0. A method that hands out memory returns null if there is none.
///
/// # Safety
///
/// An implementation passes calls on as they come. It need not be right: what it does wrong is looked for, in a process
/// that may crash. But its methods must not change what is the kit's.
pub unsafe trait Subject: Sync {
    /// A block of this layout.
    ///
    /// # Safety
    ///
    /// The size is not 0.
    unsafe fn allocate(&self, layout: Layout) -> *mut u8;

    /// As [`allocate`](Self::allocate), and zero.
    ///
    /// # Safety
    ///
    /// The size is not 0.
    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8;

    /// The block with another size, the same alignment, and the contents that both have room for; perhaps elsewhere. Null:
    /// there is no memory, and the block is as it was.
    ///
    /// # Safety
    ///
    /// The block is held with this layout. The size is not 0.
    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8;

    /// Takes the block back.
    ///
    /// # Safety
    ///
    /// The block is held with this layout, and nobody's afterwards.
    unsafe fn free(&self, block: *mut u8, layout: Layout);

    /// Empties what it keeps for later; `whole`: gives memory back to the kernel, too. False: it has no such thing.
    fn drain(&self, whole: bool) -> bool {
        let _ = whole;
        false
    }

    /// From now on it may take no more than about so many bytes more than it has; `None`: it may again. False: it has no
    /// limit of its own, and the kit limits the address space of the process instead.
    fn limit(&self, bytes: Option<usize>) -> bool {
        let _ = bytes;
        false
    }

    /// The bytes that are held, if it knows exactly: as many at the end of a stream as at its beginning, or there is a leak.
    /// What handlers of signals freed may count as held until [`drain`](Self::drain). Two numbers, for those that count small and large blocks apart; else one is 0.
    fn live_bytes(&self) -> Option<[u64; 2]> {
        None
    }

    /// Whether a handler of a signal may allocate and free.
    fn allows_handlers(&self) -> bool {
        false
    }

    /// What it promises of errno.
    fn errno(&self) -> Errno {
        Errno::UNJUDGED
    }
}

// SAFETY: passes everything on.
unsafe impl<S: Subject> Subject for &S {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by our own contract, here and below.
        unsafe { (**self).allocate(layout) }
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (**self).allocate_zeroed(layout) }
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (**self).resize(block, layout, size) }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { (**self).free(block, layout) }
    }

    fn drain(&self, whole: bool) -> bool {
        (**self).drain(whole)
    }

    fn limit(&self, bytes: Option<usize>) -> bool {
        (**self).limit(bytes)
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        (**self).live_bytes()
    }

    fn allows_handlers(&self) -> bool {
        (**self).allows_handlers()
    }

    fn errno(&self) -> Errno {
        (**self).errno()
    }
}
