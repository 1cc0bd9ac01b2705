//! Reports while the process runs, if `PERSEQ_STATS` asks for them: one in so many seconds (`every`), or whenever a signal
//! arrives (`signal`).
//!
//! A thread of ours writes them. Statistics wait for locks, which a signal handler may not: it only wakes the thread. The
//! thread begins at the end of a slow path, like the one that gives memory back, and in a child of `fork` again. It ends
//! when it is the process's last one, so that it keeps no process alive; who asks for reports that seldom come has it look
//! once a second.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{
    AtomicI32, AtomicU8, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use rseq::syscall;

use crate::errno::keep_errno;
use crate::message::message;
use crate::os;
use crate::process::exit_report;
use crate::process::own_thread;
use crate::sync::{futex_wait, futex_wake};

/// Seconds from one report to the next; 0: none are asked for.
static EVERY: AtomicU32 = AtomicU32::new(0);
/// The signal that asks for one; 0: none does.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// How often the signal came, which the thread waits on, and how often that was answered. A child of `fork` owes what its
/// parent owed.
static ASKED: AtomicU32 = AtomicU32::new(0);
static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// Whether the thread is there.
static STATE: AtomicU8 = AtomicU8::new(UNWANTED);
const UNWANTED: u8 = 0;
const MISSING: u8 = 1;
const RUNNING: u8 = 2;

/// Milliseconds after which the thread looks whether it is the last one.
const LOOK_MS: u64 = 1000;
/// Most seconds between two reports: a day.
const MOST_SECONDS: u32 = 86_400;
/// Signals that may ask for a report: those that are for programs to give a meaning.
const SIGNALS: [(&str, c_int); 2] = [("USR1", libc::SIGUSR1), ("USR2", libc::SIGUSR2)];

/// Takes what [`exit_report::set`] does, perhaps with `,every=SECONDS` or `,signal=NAME` behind it. False if it makes no
/// sense.
pub fn set(asked: &str) -> bool {
    let (mut report, mut every, mut signal) = (asked, 0, 0);
    while let Some((before, last)) = report.rsplit_once(',') {
        if let Some(text) = last.strip_prefix("every=") {
            let seconds = text.parse().ok().filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
            let (Some(seconds), 0, false) = (seconds, every, text.starts_with('+')) else { return false };
            every = seconds;
        } else if let Some(name) = last.strip_prefix("signal=") {
            let known = SIGNALS.iter().find(|(known, _)| *known == name);
            let (Some((_, number)), 0) = (known, signal) else { return false };
            signal = *number;
        } else {
            break; // a comma of the path
        }
        report = before;
    }
    if !exit_report::set(report) {
        return false;
    }
    // Relaxed: read by this thread, which allocates for the first time, and by those that come after that.
    EVERY.store(every, Relaxed);
    SIGNAL.store(signal, Relaxed);
    true
}

/// Arranges for what was asked for. At the first allocation, once it is announced.
pub fn arrange() {
    let signal = SIGNAL.load(Relaxed);
    if signal != 0 && !keep_errno(|| listen(signal)) {
        message(&["PERSEQ_STATS: the program has a use for the signal already, or ignores it: it asks for no report"]);
        SIGNAL.store(0, Relaxed);
    }
    if SIGNAL.load(Relaxed) != 0 || EVERY.load(Relaxed) != 0 {
        STATE.store(MISSING, Release);
    }
}

/// Whether the thread is wanted and not there.
#[inline]
pub fn is_missing() -> bool {
    STATE.load(Relaxed) == MISSING // whoever acts on it looks again
}

/// Starts the thread, unless another did. No lock is held.
#[cold]
#[inline(never)]
pub fn start() {
    // Allocates, and so may come back here.
    if STATE.compare_exchange(MISSING, RUNNING, AcqRel, Relaxed).is_ok() && !keep_errno(|| own_thread::start(run)) {
        STATE.store(UNWANTED, Release);
        message(&["PERSEQ_STATS: there is no thread for reports before the end: the system refuses it"]);
    }
}

/// The child of a fork does not have its parent's thread.
pub fn forget_in_child() {
    if STATE.load(Relaxed) == RUNNING {
        STATE.store(MISSING, Relaxed); // by its only thread
    }
}

/// Has the signal wake the thread. False if the program has it do something else.
fn listen(signal: c_int) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `now` is ours to be written, and is if the call succeeds; the new action is a structure of integers, of which
    // all zero is a value, with a handler that lives for ever and does what handlers may.
    unsafe {
        if libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) != 0
            || now.assume_init_ref().sa_sigaction != libc::SIG_DFL
        {
            return false;
        }
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = wake as extern "C" fn(c_int) as usize;
        // On the stack that the program has for signals, if it has one: others of its threads may be too small.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal, &action, ptr::null_mut()) == 0
    }
}

extern "C" fn wake(_: c_int) {
    ASKED.fetch_add(1, Release); // pairs with `run`
    futex_wake(&ASKED, 1);
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    own_thread::name(c"perseq-stats");
    let every = u64::from(EVERY.load(Relaxed)) * 1000;
    let mut due = os::milliseconds() + every;
    loop {
        let (asked, now) = (ASKED.load(Acquire), os::milliseconds());
        if asked != ANSWERED.load(Relaxed) || (every > 0 && now >= due) {
            // Those that come while it is written are answered by one more. Nobody else writes the word.
            ANSWERED.store(asked, Relaxed);
            exit_report::write_now();
            if every > 0 && now >= due {
                due = (due + every).max(now);
            }
            continue;
        }
        if is_last_thread() {
            STATE.store(UNWANTED, Release);
            return ptr::null_mut();
        }
        let wait = if every > 0 { (due - now).min(LOOK_MS) } else { LOOK_MS };
        futex_wait(&ASKED, asked, Some(wait.max(1) as u32));
    }
}

/// Whether the process has no other thread that runs: its folder of threads has a link for each, and two of its own. One
/// whose first thread has ended keeps that until its end.
fn is_last_thread() -> bool {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    let folder = c"/proc/self/task".as_ptr() as usize;
    // SAFETY: the path is a string, and `status` is ours to be written.
    let known = unsafe {
        syscall::call(libc::SYS_newfstatat, [libc::AT_FDCWD as usize, folder, status.as_mut_ptr() as usize, 0])
    };
    if known.is_err() {
        return false;
    }
    // SAFETY: it was written.
    match unsafe { status.assume_init_ref() }.st_nlink {
        ..=3 => true,
        4 => first_thread_has_ended(),
        _ => false,
    }
}

/// Whether the thread that the process began with has ended.
fn first_thread_has_ended() -> bool {
    let (path, flags) = (c"/proc/self/stat".as_ptr() as usize, (libc::O_RDONLY | libc::O_CLOEXEC) as usize);
    // SAFETY: the path is a string.
    let Ok(file) = (unsafe { syscall::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0]) }) else {
        return false;
    };
    let mut text = [0_u8; 128];
    // SAFETY: the descriptor is ours, and so is the buffer.
    let length = unsafe {
        let length = syscall::call(libc::SYS_read, [file, text.as_mut_ptr() as usize, text.len()]);
        _ = syscall::call(libc::SYS_close, [file]);
        length.unwrap_or(0).min(text.len())
    };
    // `PID (NAME) STATE`, where the name may hold anything.
    let name_end = text[..length].iter().rposition(|byte| *byte == b')');
    name_end.and_then(|end| text.get(end + 2)).is_some_and(|state| matches!(state, b'Z' | b'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "every=1",
            "text,every=0",
            "text,every=86401",
            "text,every=-1",
            "text,every=1s",
            "text,every=+1",
            "text,every=1,every=2",
            "text,signal=KILL",
            "text,signal=USR1,signal=USR2",
            "text,every=1,",
            "xml,every=1",
            "json:,signal=USR1",
        ] {
            assert!(!set(bad), "{bad}");
        }
    }
}
