//! The first allocation: it reads the environment, decides the mode and makes the process ready.

use crate::decided::{self, DECIDING, Decision};
use crate::errno::keep_errno;
use crate::fatal::fatal;
use crate::front_end::budget;
use crate::front_end::contract::Prepared;
use crate::front_end::modes;
use crate::front_end::registry;
use crate::hardened;
use crate::middle::shards;
use crate::misuse;
use crate::mode::{ActiveMode, AlreadyActive, Mode, Reason};
use crate::process::choice;
use crate::process::exit_report;
use crate::process::fork;
use crate::process::heap_profile;
use crate::process::misused;
use crate::process::options;
use crate::process::reporter;
use crate::process::thread_exit;
use crate::slices;
use crate::stats::live;
use crate::this_thread;
use crate::vdso;
use crate::way;

/// Chooses the mode of this process. `PERSEQ_MODE`, if set, wins over it, so that an experiment can
/// override a program.
///
/// # Errors
///
/// The first allocation has already decided.
pub fn set_mode(mode: Mode) -> Result<(), AlreadyActive> {
    fork::notice_forks();
    let deciding = DECIDING.lock();
    if !decided::is_ready() {
        choice::set_by_program(mode);
        return Ok(());
    }
    drop(deciding);
    Err(AlreadyActive(active_mode()))
}

/// The mode of this process and its reason. Decides it if nothing has been allocated yet.
///
/// # Panics
///
/// Aborts the process if there is not even memory for the allocator's tables, and where nobody can decide: in a handler
/// that interrupted the decision, and in a child process, of a fork in a handler, without the thread that was deciding.
#[must_use]
pub fn active_mode() -> ActiveMode {
    while !initialize(None) {
        if this_thread::went_without() {
            // A fork that holds the lock ends, and this thread has nothing to do but wait for it.
            drop(DECIDING.lock());
            continue;
        }
        fatal(&["no memory for the heap's tables (see ulimit -v and PERSEQ_HARD_LIMIT)"]);
    }
    decided::mode()
}

/// Makes the process ready to allocate, if it is not. False if memory is exhausted, or the thread went without the
/// lock: the next call tries again.
pub fn initialize(default: Option<Mode>) -> bool {
    decided::is_ready() || initialize_slow(default)
}

#[cold]
fn initialize_slow(default: Option<Mode>) -> bool {
    fork::notice_forks();
    let Some(deciding) = DECIDING.lock_unless_forking() else { return false };
    if decided::is_ready() {
        return true; // somebody was faster
    }
    // Before it is judged, all else that is said holds: the program's handler of SIGABRT may allocate.
    let read = options::try_read_environment();
    // Nothing before the announcement allocates through us: it is system calls, getenv and tables of our own.
    let done = keep_errno(|| set_up(default));
    if done {
        exit_report::keep_standard_error();
        decided::announce();
    }
    drop(deciding);
    if let Err(refusal) = read {
        refusal.end();
    }
    if done {
        exit_report::arrange(); // may allocate, so not before the announcement
        reporter::arrange();
        heap_profile::arrange();
    }
    done
}

fn set_up(default: Option<Mode>) -> bool {
    vdso::find();
    misuse::after_bad_free(misused::set_heap_apart);
    let requested = choice::requested(default);
    let (mut active, mut reason, mut prepared) = if hardened::on() {
        (Mode::Central, Reason::Hardened, Prepared::OUT_OF_LINE)
    } else {
        choice::decide(requested)
    };
    let exit_key = if active.has_thread_caches() { thread_exit::key() } else { None };
    if active.has_thread_caches() && exit_key.is_none() {
        // A thread would leave its cache behind; slots outlive their threads.
        (active, reason, prepared) = (Mode::Sharded, Reason::NoKey, Prepared::OUT_OF_LINE);
    }
    if !heap_profile::prepare() || !registry::initialize(modes::rows(active)) {
        exit_key.into_iter().for_each(thread_exit::give_back); // the next call takes one
        return false;
    }
    shards::split_transfer_caches();
    budget::set_lending(active.lends());
    let slices = slices::decide();
    this_thread::begin_asking();
    let mode = ActiveMode { requested, active, reason, slices };
    live::note(&mode);
    // SAFETY: our caller holds `DECIDING` and found nothing announced.
    unsafe { decided::write(Decision { mode, registration: prepared.registration, exit_key }) };
    way::set(active, prepared.word, heap_profile::is_wanted());
    true
}
