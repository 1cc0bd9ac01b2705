//! Whom a cache belongs to.

use core::fmt;

/// Whose cache it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
