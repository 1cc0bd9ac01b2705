//! Which mode runs: what was asked for, by whom, and what can run here.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::front_end::contract::{Fallback, Prepared};
use crate::front_end::modes;
use crate::mode::{Mode, Reason};

/// The answer of [`crate::set_mode`] as [`Mode::number`].
static BY_PROGRAM: AtomicU8 = AtomicU8::new(0);
/// `PERSEQ_MODE`'s, likewise.
static BY_ENVIRONMENT: AtomicU8 = AtomicU8::new(0);

/// The program says so. Under the lock of the decision.
pub fn set_by_program(mode: Mode) {
    BY_PROGRAM.store(mode.number(), Relaxed);
}

/// `PERSEQ_MODE` says so.
pub fn set_by_environment(mode: Mode) {
    BY_ENVIRONMENT.store(mode.number(), Relaxed);
}

/// The mode that the environment asks for, else the program, else the caller, else the default.
pub fn requested(default: Option<Mode>) -> Mode {
    let asked = |by: &AtomicU8| Mode::from_number(by.load(Relaxed));
    asked(&BY_ENVIRONMENT).or_else(|| asked(&BY_PROGRAM)).or(default).unwrap_or_default()
}

/// The mode that runs when `requested` is wanted, why, and what it found. Under the lock of the decision.
pub fn decide(requested: Mode) -> (Mode, Reason, Prepared) {
    let (mut mode, mut reason) = (requested, Reason::AsRequested);
    loop {
        match modes::prepare(mode) {
            Ok(prepared) => return (mode, reason, prepared),
            Err(Fallback(other, why)) => (mode, reason) = (other, why),
        }
    }
}
