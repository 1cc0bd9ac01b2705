//! The report at exit.
//!
//! `PERSEQ_STATS` asks for it: it is written with write(2) when the process ends by `exit` or by a return
//! from `main`, and not if it is killed or ends by `_exit`. A file is appended to, one JSON object on a line, and locked
//! meanwhile, so processes share it; that it cannot be written is said at the first allocation already. How the process
//! ends does not depend on whether anybody reads the report. Reports before the end are `reporter`'s to ask for.
//!
//! A signal handler that ends the process may have interrupted a slow path of its own thread, whose locks nobody gives
//! back any more. Then a line says that there is no report, and the process ends as it would have.
//!
//! Standard error is what it was at the first allocation. A process that closes it before its end reports all the same;
//! a forked child that does, such as a daemon, reports nothing and keeps nothing open.

use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use rseq::syscall;

use crate::decided;
use crate::emergency;
use crate::errno::keep_errno;
use crate::message::message;
use crate::process::output_path::{OutputPath, close};
use crate::stats::collect::stats;
use crate::stats::file_writer::FileWriter;
use crate::stats::report;
use crate::sync::futex_wait;

const NONE: u8 = 0;
const TEXT: u8 = 1;
const JSON: u8 = 2;

/// What `PERSEQ_STATS` asked for.
static FORM: AtomicU8 = AtomicU8::new(NONE);
/// The file's path; empty for standard error.
static PATH: OutputPath = OutputPath::new();

/// Takes `text`, `json`, or one of them with `:` and a path. False if it is neither.
pub fn set(asked: &str) -> bool {
    let (form, path) = match asked.split_once(':') {
        Some((form, path)) => (form, Some(path)),
        None => (asked, None),
    };
    let form = match form {
        "text" => TEXT,
        "json" => JSON,
        _ => return false,
    };
    if path == Some("") || !PATH.set(path.unwrap_or_default(), 0) {
        return false;
    }
    FORM.store(form, Release); // pairs with `write`
    true
}

/// Another descriptor of standard error, or -1. Many programs close theirs in an exit handler of their own, which runs
/// before ours. A forked child has none: it may live long after its parent, and whoever reads from the other end of a
/// pipe would wait for it.
static COPY: AtomicI32 = AtomicI32::new(-1);
/// Device and inode of standard error at the first allocation: a program may have given its number, or the copy's, to
/// another file since, which is not ours to write to.
static DEVICE: AtomicU64 = AtomicU64::new(u64::MAX);
static INODE: AtomicU64 = AtomicU64::new(u64::MAX);
/// Above what programs usually have, so that they get the numbers they expect.
const LOWEST_COPY: i32 = 100;

/// Device and inode of an open descriptor.
fn identity(file: i32) -> Option<(u64, u64)> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` is ours to be written, and is if the call succeeds.
    unsafe {
        syscall::call(libc::SYS_fstat, [file as usize, status.as_mut_ptr() as usize]).ok()?;
        let status = status.assume_init_ref();
        Some((status.st_dev, status.st_ino))
    }
}

fn is_standard_error(file: i32) -> bool {
    identity(file) == Some((DEVICE.load(Relaxed), INODE.load(Relaxed)))
}

/// Takes the copy, if a report to standard error was asked for.
pub fn keep_standard_error() {
    if FORM.load(Acquire) == NONE || !PATH.is_empty() {
        return;
    }
    if let Some((device, inode)) = identity(libc::STDERR_FILENO) {
        // Relaxed: read at exit, and in a child.
        DEVICE.store(device, Relaxed);
        INODE.store(inode, Relaxed);
        // SAFETY: fcntl of numbers.
        let arguments = [libc::STDERR_FILENO as usize, libc::F_DUPFD_CLOEXEC as usize, LOWEST_COPY as usize];
        // SAFETY: as above.
        let copy = unsafe { syscall::call(libc::SYS_fcntl, arguments) };
        COPY.store(copy.map_or(-1, |copy| copy as i32), Relaxed);
    }
}

/// Arranges for the report at exit, if one was asked for. May allocate. Says at once if the file cannot be had.
pub fn arrange() {
    if FORM.load(Acquire) != NONE {
        if !PATH.is_empty() && !PATH.can_be_opened() {
            refuse();
        }
        // SAFETY: the function is this module's and lives for ever.
        keep_errno(|| unsafe { libc::atexit(write_at_exit) });
    }
}

/// The child of a fork reports to its own standard error, if it still has it at its end.
pub fn forget_in_child() {
    WRITING.store(0, Relaxed); // by the child's only thread
    let copy = COPY.swap(-1, Relaxed);
    if copy >= 0 && is_standard_error(copy) {
        close(copy); // ours, and of no use to anybody else
    }
}

/// Says that the file cannot be opened, once.
fn refuse() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        message(&["PERSEQ_STATS: ", PATH.text(), " cannot be opened for writing"]);
    }
}

/// A report is being written by the thread that reports while the process runs, and the last one begins. Sequentially
/// consistent: each side writes its own and then looks at the other's.
static WRITING: AtomicU32 = AtomicU32::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);
/// Looks, a hundredth of a second apart, after which the end does not wait for a report any more: its reader may be gone.
const MOST_LOOKS: u32 = 100;

/// Writes a report before the end. By one thread.
pub fn write_now() {
    WRITING.store(1, SeqCst);
    if !ENDING.load(SeqCst) && can_report() {
        write();
    }
    WRITING.store(0, SeqCst);
}

extern "C" fn write_at_exit() {
    if !can_report() {
        return; // nor would a report that is being written end
    }
    ENDING.store(true, SeqCst);
    for _ in 0..MOST_LOOKS {
        if WRITING.load(SeqCst) == 0 {
            break;
        }
        futex_wait(&WRITING, 1, Some(10));
    }
    write();
}

/// Whether no lock is held by who does not give it back. Says so otherwise, once.
fn can_report() -> bool {
    static SAID: AtomicBool = AtomicBool::new(false);
    let can = !emergency::is_now();
    if !can && !SAID.swap(true, Relaxed) {
        message(&[
            "PERSEQ_STATS: no report: a signal handler interrupted the allocator, and ended or forked the process",
        ]);
    }
    can
}

fn write() {
    let form = FORM.load(Acquire);
    let named = !PATH.is_empty();
    let file = if named {
        PATH.open(libc::O_APPEND).unwrap_or(-1)
    } else {
        let known = [COPY.load(Relaxed), libc::STDERR_FILENO].into_iter().find(|file| is_standard_error(*file));
        let Some(file) = known else { return }; // the program gave it up
        file
    };
    if file < 0 {
        refuse();
        return;
    }
    if named {
        lock(file);
    }
    let total = stats(decided::mode());
    without_signals(|| {
        let mut out = FileWriter::new(file);
        let written = if form == JSON { report::json(&total, &mut out) } else { report::text(&total, &mut out) };
        let done = written.and_then(|()| out.flush()).is_ok();
        if !done {
            message(&["PERSEQ_STATS: the file takes no more"]);
        }
        done
    });
    if named {
        close(file);
    }
}

/// Keeps other processes' reports from between the parts of this one, until the file is closed; if one of them holds it
/// for a second, it may be stopped, and is not waited for.
fn lock(file: i32) {
    static NOBODY_WAKES: AtomicU32 = AtomicU32::new(0);
    for _ in 0..MOST_LOOKS {
        let exclusive = libc::LOCK_EX | libc::LOCK_NB;
        // SAFETY: of numbers.
        if unsafe { syscall::call(libc::SYS_flock, [file as usize, exclusive as usize]) } != Err(libc::EWOULDBLOCK) {
            return;
        }
        futex_wait(&NOBODY_WAKES, 0, Some(10));
    }
}

/// Runs `write`, which says whether all was written, without the signals that end a process whose reader is gone
/// (SIGPIPE) or whose file may not grow (SIGXFSZ).
pub fn without_signals(write: impl FnOnce() -> bool) {
    // As the kernel has sets of signals.
    let signals: u64 = 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGXFSZ - 1);
    let mut before = 0_u64;
    let mask = |how: i32, new: *const u64, old: *mut u64| {
        let arguments = [how as usize, new as usize, old as usize, size_of::<u64>()];
        // SAFETY: the sets are live, and `old` is ours to be written or null.
        unsafe { syscall::call(libc::SYS_rt_sigprocmask, arguments) }
    };
    let blocked = mask(libc::SIG_BLOCK, &raw const signals, &raw mut before).is_ok();
    let done = write();
    if !blocked {
        return;
    }
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let news = signals & !before;
    let arguments = [&raw const news as usize, 0, &raw const never as usize, size_of::<u64>()];
    // SAFETY: the set and the time are live, and nothing is written.
    while !done && unsafe { syscall::call(libc::SYS_rt_sigtimedwait, arguments) }.is_ok() {}
    _ = mask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut());
}
