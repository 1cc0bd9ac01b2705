//! The Rust faces of the sequences in `asm/`, whose README is their specification.
//!
//! Each runs on the slab that the calling thread's [`ThreadCell`] names, if that slab's id is the
//! thread's index at that moment. If not, the outcome is [`Miss::Moved`]: look up the slab of the
//! current index, store it in the cell, try again. An abort is not an outcome: the sequence restarts
//! itself, and inputs live in registers it never writes.
//!
//! Sequences on [`Rows`](crate::Rows) find their row by arithmetic; there [`Miss::Moved`] means that the index has no
//! row, or that it is stopped. [`crate::Registration::ensure_thread`] and another try, or the overflow row, follow.
//!
//! Everything here is inlined into its caller. All need Linux 4.18, or 6.3 for [`crate::MmCid`]; stopping another
//! index, 5.10. Instructions on x86-64 from after the arming store (two more with it) up to and with the commit; a test
//! counts them. A batch that ends because the list is empty or full takes three or two more.
//!
//! | | | | |
//! |---|---|---|---|
//! | [`pop`] | 11 | [`push`] | 11 |
//! | [`pop_batch`] | 9 + 9 per object | [`push_batch`] | 9 + 9 per object |
//! | [`replace`] | 7 | [`add`], [`load`], [`store`] | 8 |
//! | [`compare_exchange`] | 10 | [`linked_push`] | 10 |
//! | [`linked_pop`] | 12 | [`linked_pop_all`] | 11 |
//! | [`append`] | 14 | [`take`] | 14 |

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[macro_use]
mod template;
mod cell;
mod on_row;
mod on_slab;
mod word;

pub use cell::ThreadCell;
pub use on_row::{add, append, compare_exchange, linked_pop, linked_pop_all, linked_push, load, store, take};
pub use on_slab::{pop, pop_batch, push, push_batch, replace};
pub use word::ThreadWord;

global_asm!(
    ".pushsection .bss.rseq_sequence_restarts, \"aw\", @nobits",
    ".balign 64",
    ".globl rseq_sequence_restarts",
    ".hidden rseq_sequence_restarts",
    "rseq_sequence_restarts: .zero 64",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "rseq_sequence_restarts"]
    static RESTARTS: AtomicU64;
}

/// Sequences that the kernel aborted and that were restarted, since the process started: all of this copy of the crate.
#[must_use]
pub fn restarts() -> u64 {
    // SAFETY: the word defined above, which starts as 0 and is changed by atomic additions only.
    unsafe { RESTARTS.load(Relaxed) } // a count; nothing is published by it
}

/// Where the word of [`restarts`] is, for who reads this process's memory from outside.
#[must_use]
pub const fn restarts_place() -> *const AtomicU64 {
    &raw const RESTARTS
}

/// Why a sequence did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// The cell's slab is not the slab of the thread's index, or the index has no row: the thread moved, the slab or
    /// row is stopped, or the thread is not registered.
    Moved,
    /// There is nothing to take, no room, or not what was expected; each sequence says which.
    Unfit,
}

const MOVED: usize = 3;
const UNFIT: usize = 1;
#[cfg(target_arch = "aarch64")] // elsewhere what a sequence leaves in its register is even anyway
const DONE: usize = 0;
const MOVED_COUNT: isize = -1;

/// Even outcomes are success.
#[inline(always)]
fn done(outcome: usize) -> Result<(), Miss> {
    if outcome & UNFIT == 0 { Ok(()) } else { Err(miss(outcome)) }
}

#[inline(always)]
fn miss(outcome: usize) -> Miss {
    if outcome == MOVED { Miss::Moved } else { Miss::Unfit }
}
