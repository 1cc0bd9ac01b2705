//! The word that says who has a row, and how one waits for it: a futex, so that a waiter sleeps and does not keep the
//! holder off its CPU.
//!
//! Sequences read the word and leave if it is not 0. `tests/loom.rs` explores this file, with atomics and a futex of
//! loom's.

use super::platform::{AtomicU32, LOOKS, futex_wait, futex_wake, spin_loop};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Sequences may use the row. They compare with 0.
const RUNNING: u32 = 0;
/// Somebody has the row.
const HELD: u32 = 1;
/// Somebody has the row, and others may sleep until it is given back.
const AWAITED: u32 = 2;

/// The stop word of a row. All zeros: nobody has it.
#[repr(transparent)]
#[derive(Debug)]
pub struct Hold(AtomicU32);

impl Hold {
    /// A row that nobody has.
    #[allow(dead_code)] // rows begin as zeros; models do not
    pub fn new() -> Self {
        Hold(AtomicU32::new(RUNNING))
    }

    /// Takes the row if nobody has it. Later sequences leave; a fence deals with those that read 0 before.
    pub fn try_take(&self) -> bool {
        // AcqRel: we see what the last holder did, and the fence comes after this store.
        self.0.compare_exchange(RUNNING, HELD, AcqRel, Relaxed).is_ok()
    }

    /// As [`Hold::try_take`]; sleeps until the row is free.
    pub fn take(&self) {
        for _ in 0..LOOKS {
            if self.try_take() {
                return;
            }
            spin_loop();
        }
        // AcqRel: as in `try_take`. Whoever gets the row here does not know whether more threads sleep, and so wakes
        // one.
        while self.0.swap(AWAITED, AcqRel) != RUNNING {
            futex_wait(&self.0, AWAITED);
        }
    }

    /// Lets sequences, and those who wait, have the row. Only for who has it.
    pub fn give_back(&self) {
        // Release: pairs with the load of the word in each sequence, and with the takes.
        if self.0.swap(RUNNING, Release) == AWAITED {
            futex_wake(&self.0, 1);
        }
    }

    /// Whether somebody has the row.
    pub fn is_held(&self) -> bool {
        // Acquire: whoever finds it free sees what its last holder did.
        self.0.load(Acquire) != RUNNING
    }
}
