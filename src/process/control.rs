//! What a program may say at run time about the memory that the process's heap holds.

use crate::middle::BACK_END;
use crate::page_heap::release::Policy;
use crate::process::background;

/// Limits on what the process's heap holds, in bytes: pages in use, free pages that are still resident, and tables.
/// [`Stats::held_bytes`](crate::Stats::held_bytes) is compared with them. `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Above it, free pages go back to the kernel before more memory is taken. It may be exceeded by what is in use.
    pub soft: Option<usize>,
    /// Beyond it, allocation fails: null, with ENOMEM. What is held already stays.
    pub hard: Option<usize>,
}

/// Sets both limits, in place of those of the environment (`PERSEQ_SOFT_LIMIT`, `PERSEQ_HARD_LIMIT`).
pub fn set_limits(limits: Limits) {
    crate::process::options::read_environment(); // which would say otherwise later
    BACK_END.pages.limits.set_soft(limits.soft.unwrap_or(usize::MAX));
    BACK_END.pages.limits.set_hard(limits.hard.unwrap_or(usize::MAX));
}

/// The limits that hold now.
#[must_use]
pub fn limits() -> Limits {
    crate::process::options::read_environment();
    let (soft, hard) = BACK_END.pages.limits.get();
    let some = |bytes| Some(bytes).filter(|bytes| *bytes != usize::MAX);
    Limits { soft: some(soft), hard: some(hard) }
}

/// Sets when free pages go back to the kernel, in place of `PERSEQ_RELEASE`.
pub fn set_release(policy: Policy) {
    crate::process::options::read_environment();
    BACK_END.pages.releases.set_policy(policy);
}

/// Has a thread give memory back (`true`), or the slow paths of the program's own threads, in place of
/// `PERSEQ_BACKGROUND`. The thread begins when there is something to give back and ends when nothing is left, within
/// two periods.
pub fn set_background(wanted: bool) {
    crate::process::options::read_environment();
    background::set(wanted);
}
