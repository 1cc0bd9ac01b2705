//! What the first allocation decided about this process: written once, by `process`, and read by everything below it.

use core::ffi::c_void;
use core::ptr;

use rseq::{Registration, Unavailable, syscall};

use crate::errno::keep_errno;
use crate::lock_order::Rank;
use crate::mode::ActiveMode;
use crate::place::Extent;
use crate::sync::Mutex;
use crate::written_once::WrittenOnce;

/// Held by the thread that decides. A fork waits for it, as for every lock, so no child finds half a decision.
pub static DECIDING: Mutex<()> = Mutex::new(Rank::Decision, ());

/// What the first allocation decided.
pub struct Decision {
    pub mode: ActiveMode,
    /// The rseq registration, in a mode that reads numbers from it.
    pub registration: Option<Registration>,
    /// The key whose destructor tells of thread exit, where threads have caches.
    pub exit_key: Option<libc::pthread_key_t>,
}

static DECIDED: WrittenOnce<Decision> = WrittenOnce::new();

/// Where the decision is.
pub const fn extent() -> Extent {
    Extent::of(&raw const DECIDED)
}

/// Whether the decision was made: the process can allocate.
#[inline]
pub fn is_ready() -> bool {
    DECIDED.is_announced()
}

/// Notes the decision, which is read once it is [announced](announce).
///
/// # Safety
///
/// * The caller holds [`DECIDING`], and nothing was announced yet.
pub unsafe fn write(decision: Decision) {
    // SAFETY: by our own contract.
    unsafe { DECIDED.write(decision) };
}

/// Lets everybody read what was [written](write).
pub fn announce() {
    DECIDED.announce();
}

fn decision() -> &'static Decision {
    // SAFETY: callers come here after the process was made ready.
    unsafe { DECIDED.get() }
}

/// The mode and its reason. Once it [is ready](is_ready).
pub fn mode() -> ActiveMode {
    decision().mode
}

/// The CPU the calling thread is on, from its rseq area where the kernel keeps one. Once it [is ready](is_ready).
#[inline]
pub fn current_cpu() -> u32 {
    let known = decision().registration.as_ref().and_then(Registration::cpu_id);
    // Where the kernel refuses, it is no CPU's number.
    known.or_else(syscall::current_cpu).unwrap_or(u32::MAX)
}

/// Registers the calling thread with rseq, where that is ours to do. Once it [is ready](is_ready), in a per-CPU mode.
pub fn ensure_thread() -> Result<(), Unavailable> {
    match &decision().registration {
        Some(registration) => registration.ensure_thread(),
        None => Err(Unavailable::ThreadNotRegistered),
    }
}

/// Arranges for the calling thread's cache to be emptied when the thread exits. Once it [is ready](is_ready).
pub fn notice_exit() {
    if let Some(key) = decision().exit_key {
        // SAFETY: the key is valid; the value only has to be other than null.
        keep_errno(|| unsafe { libc::pthread_setspecific(key, ptr::dangling::<c_void>()) });
    }
}
