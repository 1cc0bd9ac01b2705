//! Time slice extensions (`PERSEQ_SLICE=1`): a thread that holds a lock of ours asks the kernel not to preempt it for a
//! moment, where the kernel has that (Linux 7.0 with `CONFIG_RSEQ_SLICE_EXTENSION`).
//!
//! `this_thread` counts locks and does the asking: from a thread's first lock until it has none, as it holds the outermost
//! of several. The request is a store in the thread's rseq area, and so is its end; there is a system call only where an
//! extension was granted, and one in each thread before its first request. A thread that had a lock before the first
//! allocation decided, other than the one that does, never asks.
//!
//! A grant ends with the next system call, whichever it is, before that does anything. Where a holder that was granted more
//! time wakes a waiter, the waiter is woken when the holder runs again; the lock is free meanwhile.
//!
//! `PERSEQ_SLICE=observe` makes the requests of threads that are granted none, and so only counts how often a holder was
//! preempted: what the extensions are compared with.

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use rseq::slice::{End, Refused, Slice};

use crate::written_once::WrittenOnce;

/// Whether threads that hold a lock of the allocator's ask for more time. Made by the first allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Slices {
    /// Nobody wanted that.
    Off,
    /// They ask.
    On,
    /// They ask and are granted nothing: it is counted what becomes of holders.
    Observed,
    /// It was wanted, and cannot be had.
    Refused(Refused),
}

impl fmt::Display for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slices::Off => f.write_str("off"),
            Slices::On => f.write_str("on"),
            Slices::Observed => f.write_str("observed"),
            Slices::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

const NO: u8 = 0;
const EXTEND: u8 = 1;
const OBSERVE: u8 = 2;

/// What the environment wants.
static WANTED: AtomicU8 = AtomicU8::new(NO);

/// The extensions of this process, once they were found.
static SLICE: WrittenOnce<Slice> = WrittenOnce::new();

/// Times the kernel granted a holder more time, and it was enough.
static GRANTED: AtomicU64 = AtomicU64::new(0);
/// Times a holder was preempted all the same.
static LOST: AtomicU64 = AtomicU64::new(0);

/// `PERSEQ_SLICE` says so. False if it makes no sense.
pub fn set(text: &str) -> bool {
    let wanted = match text {
        "0" => NO,
        "1" => EXTEND,
        "observe" => OBSERVE,
        _ => return false,
    };
    WANTED.store(wanted, Relaxed);
    true
}

/// Finds out whether what is wanted can be had, and lets the calling thread have it. By the thread that decides, once.
pub fn decide() -> Slices {
    let wanted = WANTED.load(Relaxed);
    if wanted == NO {
        return Slices::Off;
    }
    let found = rseq::probe().map_err(Refused::NoArea).and_then(|registration| Slice::find(&registration));
    let had = found.and_then(|slice| if wanted == EXTEND { slice.enable_thread().map(|()| slice) } else { Ok(slice) });
    match had {
        Ok(slice) => {
            // SAFETY: this thread alone decides, once.
            unsafe { SLICE.write(slice) };
            SLICE.announce();
            if wanted == EXTEND { Slices::On } else { Slices::Observed }
        }
        Err(why) => Slices::Refused(why),
    }
}

/// Whether the calling thread may ask from now on. A system call in threads that are granted more time.
pub fn begin_thread() -> bool {
    // What is refused later, by a filter, leaves the thread without.
    SLICE.is_announced() && (WANTED.load(Relaxed) == OBSERVE || slice().enable_thread().is_ok())
}

/// The thread has a lock. Only for threads that [began](begin_thread).
#[inline]
pub fn request() {
    slice().request();
}

/// The thread waits, and holds no lock.
#[inline]
pub fn withdraw() {
    _ = slice().withdraw();
}

/// The thread has no lock any more: counts what became of it. True if it owes the kernel a system call.
#[inline]
pub fn end() -> bool {
    match slice().withdraw() {
        End::Undisturbed => false,
        End::Granted => {
            GRANTED.fetch_add(1, Relaxed); // counts
            true
        }
        End::Lost => {
            LOST.fetch_add(1, Relaxed);
            false
        }
    }
}

/// Pays it.
#[cold]
pub fn give_up() {
    slice().give_up();
}

/// Times the kernel granted more time, and times it preempted a holder.
pub const fn counts() -> [&'static AtomicU64; 2] {
    [&GRANTED, &LOST]
}

fn slice() -> &'static Slice {
    // SAFETY: written before it was announced, and threads come here that saw that.
    unsafe { SLICE.get() }
}
