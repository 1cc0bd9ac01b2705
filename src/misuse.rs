//! What a program did that it may not do: found anywhere, said where no lock is held.
//!
//! Most misuse is found deep in a tier, with the locks of the tiers above held. The process must not end there: a
//! program's handler of SIGABRT may allocate, fork, or jump out of the handler and go on, and would wait for a lock of
//! its own thread. So the code that holds a lock answers `Err(Misuse)`, having left out what is wrong and done the
//! rest, and the slow path that took the first lock passes the answer to [`judge`] once it has given up the last.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

use crate::fatal::fatal;

/// What is done before the end where an object may have been freed twice, a `fn()`; null: nothing.
static AFTER_BAD_FREE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Has `done` called once such a free was found, before it is said. No lock is held then by who found it.
pub fn after_bad_free(done: fn()) {
    AFTER_BAD_FREE.store(done as *mut (), Release); // with what the function reads
}

/// One finding, by what is said of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a misuse ends the process, once no lock is held: see `judge`"]
pub enum Misuse {
    FreeOfForeign,
    FreeWithOtherSize,
    FreeIntoTheMiddle,
    DoubleFree,
    DoubleFreeOfLarge,
    FreeOfForeignLarge,
    FreeOfForeignToHeap,
    ResizeOfForeignLarge,
    ResizeOfFreedLarge,
    SizeOfForeign,
    WriteAfterFree,
    NoRunBeginsThere,
}

impl Misuse {
    /// The line.
    fn text(self) -> &'static str {
        match self {
            Misuse::FreeOfForeign => "free of a pointer that was not allocated here",
            Misuse::FreeWithOtherSize => "free with another size than the allocation's",
            Misuse::FreeIntoTheMiddle => "free of a pointer into the middle of an object",
            Misuse::DoubleFree => "double free",
            Misuse::DoubleFreeOfLarge => "double free of a large block",
            Misuse::FreeOfForeignLarge => "free of a large block that was not allocated here, or was freed before",
            Misuse::FreeOfForeignToHeap => "free of a large block that is not this heap's, or was freed before",
            Misuse::ResizeOfForeignLarge => "resize of a large block that was not allocated here, or was freed before",
            Misuse::ResizeOfFreedLarge => "resize of a large block that was freed before",
            Misuse::SizeOfForeign => "size of a pointer that was not allocated here",
            Misuse::WriteAfterFree => "write to an object after it was freed",
            Misuse::NoRunBeginsThere => "no run of pages begins at the address given",
        }
    }

    /// Whether a small object may have been freed twice: by the second time, its span may be gone or something else.
    fn may_be_double_free(self) -> bool {
        use Misuse::{DoubleFree, FreeIntoTheMiddle, FreeOfForeign, FreeWithOtherSize};
        matches!(self, DoubleFree | FreeIntoTheMiddle | FreeOfForeign | FreeWithOtherSize)
    }

    /// Says it and ends the process. The caller holds no lock.
    #[cold]
    #[inline(never)]
    pub fn end(self) -> ! {
        let done = AFTER_BAD_FREE.load(Acquire);
        if self.may_be_double_free() && !done.is_null() {
            // SAFETY: nothing but a `fn()` was stored.
            unsafe { core::mem::transmute::<*mut (), fn()>(done)() };
        }
        fatal(&[self.text()])
    }
}

/// The value, or the end of the process. The caller holds no lock.
#[inline]
pub fn judge<T>(finding: Result<T, Misuse>) -> T {
    match finding {
        Ok(value) => value,
        Err(misuse) => misuse.end(),
    }
}
