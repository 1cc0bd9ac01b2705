//! Whom a cache belongs to.

use core::fmt;

/// Whose cache it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Owner {
    /// A CPU, by the kernel's `cpu_id`.
    Cpu(u32),
    /// A concurrency id (`mm_cid`).
    Cid(u32),
    /// A thread, by its kernel thread id.
    Thread(u32),
    /// A slot of the mode `sharded`.
    Shard(u32),
}

impl Owner {
    /// What it is, in a word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Owner::Cpu(_) => "cpu",
            Owner::Cid(_) => "cid",
            Owner::Thread(_) => "thread",
            Owner::Shard(_) => "shard",
        }
    }

    /// Its number among those of its kind.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Owner::Cpu(number) | Owner::Cid(number) | Owner::Thread(number) | Owner::Shard(number) => number,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Cpu(number) => write!(f, "cpu {number}"),
            Owner::Cid(number) => write!(f, "cid {number}"),
            Owner::Thread(number) => write!(f, "thread {number}"),
            Owner::Shard(number) => write!(f, "slot {number}"),
        }
    }
}
