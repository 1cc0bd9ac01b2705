//! What a program may say and ask at run time.

use core::fmt::{self, Write};

use crate::decided;
use crate::emergency;
use crate::front_end::reclaim;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::misuse::judge;
use crate::page_heap::release::Policy;
use crate::process::background;
use crate::process::deferred::free_deferred;
use crate::process::fork;
use crate::process::options;
use crate::process::start::active_mode;
use crate::profile::{samples, text};
use crate::stats::collect;
use crate::stats::numbers::Stats;
use crate::stats::report;

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
    read_environment(); // which would say otherwise later
    BACK_END.pages.limits.set_soft(limits.soft.unwrap_or(usize::MAX));
    BACK_END.pages.limits.set_hard(limits.hard.unwrap_or(usize::MAX));
}

/// The limits that hold now.
#[must_use]
pub fn limits() -> Limits {
    read_environment();
    let (soft, hard) = BACK_END.pages.limits.get();
    let some = |bytes| Some(bytes).filter(|bytes| *bytes != usize::MAX);
    Limits { soft: some(soft), hard: some(hard) }
}

/// Sets when free pages go back to the kernel, in place of `PERSEQ_RELEASE`.
pub fn set_release(policy: Policy) {
    read_environment();
    BACK_END.pages.releases.set_policy(policy);
}

/// Has a thread give memory back (`true`), or the slow paths of the program's own threads, in place of
/// `PERSEQ_BACKGROUND`. The thread begins when there is something to give back and ends when nothing is left, within
/// two periods. While it runs, `unshare(CLONE_NEWUSER)` fails, as in any process of several threads.
pub fn set_background(wanted: bool) {
    read_environment();
    background::set(wanted);
}

fn read_environment() {
    fork::notice_forks();
    options::read_environment();
}

/// Moves all free objects from caches to the tiers behind them; returns how many bytes. In `perthread` it can empty the
/// calling thread's cache only. Costs one fence for every 32 caches, but none in the modes with locks.
pub fn drain() -> usize {
    if emergency::is_now() {
        return 0;
    }
    free_deferred();
    if hardened::on() {
        return judge(hardened::drain());
    }
    judge(reclaim::drain())
}

/// Gives all memory that nobody uses back to the kernel: drains the caches and the transfer caches, then
/// releases free pages. Returns how many bytes went back.
pub fn release() -> usize {
    if !decided::is_ready() || emergency::is_now() {
        return 0;
    }
    drain();
    judge(BACK_END.trim());
    BACK_END.pages.release_free()
}

/// Looks at every tier. Exact if nothing is allocated or freed meanwhile.
#[must_use]
pub fn stats() -> Stats {
    collect::stats(active_mode())
}

/// Writes everything as one JSON object on a line: the process, the totals, each cache, and each size class that
/// was ever used.
///
/// # Errors
///
/// Those of `out`.
pub fn write_json(out: &mut impl Write) -> fmt::Result {
    report::json(&stats(), out)
}

/// Writes everything as text: the totals, a table of caches, and one of the size classes that were ever used.
///
/// # Errors
///
/// Those of `out`.
pub fn write_text(out: &mut impl Write) -> fmt::Result {
    report::text(&stats(), out)
}

/// Writes the heap profile that `PERSEQ_PROFILE` asked for, as text that pprof reads, as it is now. It takes no lock and
/// allocates nothing, so it may be called in a signal handler, if `out` allows it.
///
/// # Errors
///
/// Those of `out`, and where no profile is taken.
pub fn write_profile(out: &mut impl Write) -> fmt::Result {
    if samples::on() { text::write(out) } else { Err(fmt::Error) }
}
