//! The word that every operation reads: which way this process takes to its caches.

use core::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use rseq::{CpuId, Handle, MmCid};

use crate::mode::Mode;
use crate::sync::Padded;

/// A handle of rseq for the per-CPU modes, [`front_word`] for the others, 0 before the process's mode is decided. Set
/// once. Every operation reads it, so it shares its line with nothing.
pub static FRONT: Padded<AtomicIsize> = Padded(AtomicIsize::new(0));

/// What `FRONT` says in a mode without a handle: a handle's tags are 0.
pub const fn front_word(mode: Mode) -> isize {
    (mode as isize + 1) << 2
}

/// What `FRONT` says, taken apart.
#[derive(Clone, Copy)]
pub enum Way {
    Undecided,
    Cpu(Handle),
    Cid(Handle),
    Thread,
    GatedThread,
    Shard,
    LockedCpu,
    Uncached,
}

impl Way {
    /// The way of this process.
    #[inline]
    pub fn now() -> Way {
        let front = FRONT.load(Relaxed); // set once; nothing else is read through it
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            return Way::Cpu(handle);
        }
        if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            return Way::Cid(handle);
        }
        match Mode::ALL.get((front as usize >> 2).wrapping_sub(1)) {
            Some(Mode::PerThread) => Way::Thread,
            Some(Mode::PerThreadDrain) => Way::GatedThread,
            Some(Mode::Sharded) => Way::Shard,
            Some(Mode::PerCpuLock) => Way::LockedCpu,
            Some(Mode::Central) => Way::Uncached,
            _ => Way::Undecided,
        }
    }

    /// Threads have caches of their own.
    pub fn caches_threads(self) -> bool {
        matches!(self, Way::Thread | Way::GatedThread)
    }

    /// A thread can take lists of a cache that is another's.
    pub fn reclaims(self) -> bool {
        matches!(self, Way::Cpu(_) | Way::Cid(_) | Way::GatedThread | Way::Shard | Way::LockedCpu)
    }
}
