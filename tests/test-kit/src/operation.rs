//! What a stream is made of.

use std::fmt;

/// What a thread does with a block that it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Errand {
    /// Frees it.
    Free,
    /// Resizes it, and hands it back.
    Resize(usize),
    /// Sends it to the other thread, which frees it.
    PassOn,
}

/// Something a program does with an allocator.
///
/// Each block has a key. An operation that says which one it is about means the held block with that key or the next
/// higher one, counted round. So what it means stays the same where others are taken out of the stream, as far as can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// One block, aligned to a power of two.
    Allocate {
        /// Bytes.
        size: usize,
        /// The power.
        align_bits: u32,
        /// Of the block.
        key: u16,
    },
    /// The same, zero.
    AllocateZeroed {
        /// Bytes.
        size: usize,
        /// The power.
        align_bits: u32,
        /// Of the block.
        key: u16,
    },
    /// So many of one size that caches grow, overflow and are refilled.
    AllocateMany {
        /// Bytes.
        size: usize,
        /// How many.
        count: usize,
        /// Of the first block; the others' are scattered.
        key: u16,
    },
    /// More than there can be: must be refused.
    AllocateImpossible {
        /// The power of two that it is aligned to.
        align_bits: u32,
    },
    /// One block, freed.
    Free {
        /// Which.
        which: u16,
    },
    /// Blocks freed, by their keys.
    FreeMany {
        /// From which on.
        from: u16,
        /// How many.
        count: usize,
    },
    /// One block, with another size.
    Resize {
        /// Which.
        which: u16,
        /// Bytes.
        size: usize,
    },
    /// All blocks are looked at.
    Check,
    /// Blocks sent to a thread; this one goes on.
    Send {
        /// From which on.
        from: u16,
        /// How many.
        count: usize,
        /// To which of the two.
        to: u8,
        /// What for.
        errand: Errand,
    },
    /// Waits until the threads have done all they were sent.
    Await,
    /// The same; then the threads end, and blocks are sent to new ones.
    EndThreads,
    /// This thread runs on another CPU from now on.
    MoveToCpu {
        /// Which of those allowed.
        cpu: u8,
    },
    /// From now on a signal interrupts, again and again; 0: no more.
    Signals {
        /// Microseconds from one to the next.
        every: u32,
    },
    /// A child goes on with the heap: it checks what is held, does the next operations, and frees everything. Then so does
    /// this process, which must see nothing of it.
    Fork,
    /// The subject gives back what it keeps for later; to the kernel too, if `whole`.
    Drain {
        /// Memory goes back to the kernel.
        whole: bool,
    },
    /// Blocks until there is no memory left, within a limit that is lifted afterwards.
    Exhaust {
        /// Bytes of each.
        size: usize,
    },
}

/// Words for an alignment that was asked for.
struct Aligned(u32);

impl fmt::Display for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, ", aligned to {},", 1_u64 << self.0) }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Operation::Allocate { size, align_bits, key } => {
                write!(f, "allocate {size}{} as #{key}", Aligned(align_bits))
            }
            Operation::AllocateZeroed { size, align_bits, key } => {
                write!(f, "allocate {size}, zeroed{} as #{key}", Aligned(align_bits))
            }
            Operation::AllocateMany { size, count, key } => write!(f, "allocate {size}, {count} times, from #{key} on"),
            Operation::AllocateImpossible { align_bits } => {
                write!(f, "allocate more than there can be{}", Aligned(align_bits))
            }
            Operation::Free { which } => write!(f, "free #{which}"),
            Operation::FreeMany { from, count } => write!(f, "free {count} from #{from} on"),
            Operation::Resize { which, size } => write!(f, "resize #{which} to {size}"),
            Operation::Check => write!(f, "check all"),
            Operation::Send { from, count, to, errand } => {
                write!(f, "send {count} from #{from} on to thread {to}, which ")?;
                match errand {
                    Errand::Free => write!(f, "frees them"),
                    Errand::Resize(size) => write!(f, "resizes them to {size}"),
                    Errand::PassOn => write!(f, "passes them on to the other, which frees them"),
                }
            }
            Operation::Await => write!(f, "wait for the threads"),
            Operation::EndThreads => write!(f, "end the threads"),
            Operation::MoveToCpu { cpu } => write!(f, "move to CPU #{cpu}"),
            Operation::Signals { every: 0 } => write!(f, "no more signals"),
            Operation::Signals { every } => write!(f, "a signal every {every} us"),
            Operation::Fork => write!(f, "fork"),
            Operation::Drain { whole: false } => write!(f, "drain"),
            Operation::Drain { whole: true } => write!(f, "drain, and give memory back"),
            Operation::Exhaust { size } => write!(f, "allocate {size} until there is no memory"),
        }
    }
}
