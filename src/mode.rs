//! Which index the front end uses, and why.

use core::fmt;

use rseq::Unavailable;

/// How the front end chooses a cache. Everything behind it is the same in each mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// One cache per CPU, indexed by the kernel's `cpu_id`, changed in restartable sequences.
    #[default]
    PerCpu,
    /// One cache per concurrency id (`mm_cid`, Linux 6.3): dense ids, at most one per running thread.
    PerCpuMmCid,
    /// One cache per thread, changed by plain loads and stores, flushed when the thread exits.
    PerThread,
    /// As [`Mode::PerThread`], but a thread says that it is inside its cache, so that others can empty the cache of a
    /// thread that is idle. Needs membarrier (Linux 4.14).
    PerThreadDrain,
    /// A fixed number of caches, each with a lock; a thread's is chosen by a hash of its id.
    Sharded,
    /// One cache per CPU, each with a lock: the index of [`Mode::PerCpu`] without its sequences.
    PerCpuLock,
    /// No cache: each operation takes the lock of its size class.
    Central,
}

impl Mode {
    /// Every mode, in the order reports list them.
    pub const ALL: [Mode; 7] = [
        Mode::PerCpu,
        Mode::PerCpuMmCid,
        Mode::PerThread,
        Mode::PerThreadDrain,
        Mode::Sharded,
        Mode::PerCpuLock,
        Mode::Central,
    ];

    /// The name used by `PERSEQ_MODE`, by reports and by [`Mode::from_name`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::PerCpu => "percpu",
            Mode::PerCpuMmCid => "percpu-mmcid",
            Mode::PerThread => "perthread",
            Mode::PerThreadDrain => "perthread-drain",
            Mode::Sharded => "sharded",
            Mode::PerCpuLock => "percpu-lock",
            Mode::Central => "central",
        }
    }

    /// The mode called `name`, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The mode asked for, the mode that runs, and why they differ if they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveMode {
    /// What `PERSEQ_MODE`, [`crate::set_mode`] or the default asked for.
    pub requested: Mode,
    /// What every thread of this process uses.
    pub active: Mode,
    /// Why `active` was chosen.
    pub reason: Reason,
}

impl fmt::Display for ActiveMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.active, self.reason)
    }
}

/// Why the active mode is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It was asked for.
    AsRequested,
    /// A per-CPU mode was asked for, but restartable sequences are not available.
    NoRseq(Unavailable),
    /// A mode was asked for whose caches are emptied by others, but the kernel refused the fences that this needs
    /// (membarrier) with this errno.
    NoFence(i32),
    /// Concurrency ids were asked for, but this kernel does not give them.
    NoMmCid,
    /// `PERSEQ_HARDENED` checks every operation, which leaves no place for caches.
    Hardened,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AsRequested => f.write_str("as requested"),
            Reason::NoRseq(why) => why.fmt(f),
            Reason::NoFence(errno) => write!(f, "membarrier was refused (errno {errno})"),
            Reason::Hardened => f.write_str("hardened: every operation is checked"),
            Reason::NoMmCid => f.write_str("the kernel gives no mm_cid (Linux 6.3)"),
        }
    }
}

/// The mode cannot be changed any more: this is the active one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyActive(pub ActiveMode);

impl fmt::Display for AlreadyActive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mode was decided by the first allocation: {}", self.0)
    }
}

impl core::error::Error for AlreadyActive {}
