//! Which mode runs: what was asked for, by whom, and what can run here.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rseq::{Registration, fence};

use crate::front_end::gate;
use crate::mode::{Mode, Reason};

/// The answer of [`crate::set_mode`] as an index into [`Mode::ALL`], plus one.
static BY_PROGRAM: AtomicU8 = AtomicU8::new(0);
/// `PERSEQ_MODE`'s, likewise.
static BY_ENVIRONMENT: AtomicU8 = AtomicU8::new(0);

/// The program says so. Under the lock of the decision.
pub fn set_by_program(mode: Mode) {
    BY_PROGRAM.store(mode as u8 + 1, Relaxed);
}

/// `PERSEQ_MODE` says so.
pub fn set_by_environment(mode: Mode) {
    BY_ENVIRONMENT.store(mode as u8 + 1, Relaxed);
}

/// What the environment, the program, the caller or nobody asked for, in this order.
pub fn requested(default: Option<Mode>) -> Mode {
    let asked = |by: &AtomicU8| Mode::ALL.get((by.load(Relaxed) as usize).wrapping_sub(1)).copied();
    asked(&BY_ENVIRONMENT).or_else(|| asked(&BY_PROGRAM)).or(default).unwrap_or_default()
}

/// The mode that can run when `requested` is wanted.
pub fn decide(requested: Mode) -> (Mode, Reason, Option<Registration>) {
    match requested {
        Mode::PerCpu | Mode::PerCpuMmCid => {}
        Mode::PerThreadDrain => {
            return match gate::register() {
                Ok(()) => (requested, Reason::AsRequested, None),
                Err(errno) => (Mode::PerThread, Reason::NoFence(errno), None),
            };
        }
        Mode::PerCpuLock => return (requested, Reason::AsRequested, rseq::probe().ok()),
        Mode::PerThread | Mode::Sharded | Mode::Central => return (requested, Reason::AsRequested, None),
    }
    let found = match rseq::probe() {
        Ok(found) => found,
        Err(why) => return (Mode::PerThread, Reason::NoRseq(why), None),
    };
    if let Err(errno) = fence::register() {
        return (Mode::PerThread, Reason::NoFence(errno), None);
    }
    if requested == Mode::PerCpuMmCid && !found.has_mm_cid() {
        return (Mode::PerCpu, Reason::NoMmCid, Some(found));
    }
    (requested, Reason::AsRequested, Some(found))
}
