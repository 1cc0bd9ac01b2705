//! The heap profile that `PERSEQ_PROFILE` asks for: when it begins, and the file that it is written to at the end.
//!
//! It is written with write(2) when the process ends by `exit` or by a return from `main`, as reports are, to a file of
//! the process's own: `PREFIX.PID.heap`. Nothing is locked for it, so it is written also where a handler that interrupted
//! an allocation ends the process. Where a process has several allocators of ours, as a Rust program on perseq has under
//! libperseq, each further one writes `PREFIX.PID.2.heap` and so on. A forked child begins with what was sampled before, as
//! it does with the memory.
//!
//! What walks stacks is loaded among the constructors of the program or library that this code is in. So blocks that the
//! loader and constructors before that allocate are no samples.

use core::fmt::{self, Write};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rseq::syscall;

use crate::errno::keep_errno;
use crate::message::message;
use crate::os;
use crate::process::environment;
use crate::process::exit_report::without_signals;
use crate::process::output_path::{OutputPath, close};
use crate::process::resident;
use crate::profile::{in_use, sampler, samples, sites, stack, text};
use crate::stats::file_writer::FileWriter;

/// The variable that asks for it.
pub const NAME: &str = "PERSEQ_PROFILE";
/// What the file's name begins with, unless the variable says otherwise.
const PREFIX: &str = "perseq";
/// Least bytes from one sample to the next: each sample takes a page of ours, and its stack is walked.
pub const LEAST_RATE: usize = 4 << 10;
/// Most bytes of what follows the prefix.
const SUFFIX: usize = 32;

/// Most allocators in a process that write.
const ALLOCATORS: u32 = 16;

/// What the file's name begins with; the whole of it once it is written.
static PATH: OutputPath = OutputPath::new();
/// Bytes of the prefix.
static PREFIX_LENGTH: AtomicUsize = AtomicUsize::new(0);
/// When the allocator began, as files are dated.
static BEGAN: AtomicU64 = AtomicU64::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = load;

extern "C" fn load() {
    if stack::IS_KNOWN && environment::asks_for(NAME) {
        keep_errno(stack::load); // allocates
        samples::begin(own_code());
    }
}

/// The code of a library that is the process's malloc: nothing in there is a program's.
fn own_code() -> Range<usize> {
    let code = resident::own_library().unwrap_or_default();
    if code.contains(&(libc::malloc as *const () as usize)) { code } else { 0..0 }
}

/// A profile with so many bytes from one sample to the next, written to files of this prefix. False if that makes no
/// sense.
pub fn set(rate: usize, prefix: Option<&str>) -> bool {
    let prefix = prefix.unwrap_or(PREFIX);
    if prefix.is_empty() || prefix.ends_with('/') || !PATH.set(prefix, SUFFIX) {
        return false;
    }
    PREFIX_LENGTH.store(PATH.length(), Relaxed); // before the first allocation, as all that is set here
    samples::set_rate(rate);
    true
}

/// Whether a profile was asked for that can be taken. Before the first allocation.
pub fn is_wanted() -> bool {
    stack::IS_KNOWN && samples::rate().is_some()
}

/// Makes ready for what was asked for, before the first allocation. False: there is no memory for its table.
pub fn prepare() -> bool {
    if !is_wanted() {
        return true;
    }
    // SAFETY: the kernel's vector, whose entry names 16 random bytes.
    unsafe {
        let random = libc::getauxval(libc::AT_RANDOM) as *const u64;
        sampler::seed(if random.is_null() { 0 } else { random.read_unaligned() });
    }
    BEGAN.store(os::date(), Relaxed);
    sites::prepare() && in_use::prepare()
}

/// Arranges for the file at exit, if a profile is taken. May allocate. Says at once if it cannot be had.
pub fn arrange() {
    if samples::on() {
        if !PATH.folder_takes_files() {
            message(&[NAME, ": ", PATH.text(), ".PID.heap cannot be written"]);
        }
        // SAFETY: the function is this module's and lives for ever.
        keep_errno(|| unsafe { libc::atexit(write_at_exit) });
    } else if samples::rate().is_some() {
        message(&[NAME, ": no profile: this C library has no backtrace()"]);
    }
}

extern "C" fn write_at_exit() {
    // SAFETY: getpid takes nothing.
    let process = unsafe { syscall::call(libc::SYS_getpid, []) }.unwrap_or(0);
    let Some(file) = open(process) else {
        return message(&[NAME, ": ", PATH.text(), " cannot be written"]);
    };
    without_signals(|| {
        let mut out = FileWriter::new(file);
        let done = text::write(&mut out).and_then(|()| out.flush()).is_ok();
        if !done {
            message(&[NAME, ": ", PATH.text(), " takes no more"]);
        }
        done
    });
    close(file);
}

/// Opens the file of this allocator in this process: the first that none wrote since it began. One from before is of
/// another process, which had the number earlier.
fn open(process: usize) -> Option<i32> {
    for number in 1..=ALLOCATORS {
        PATH.cut(PREFIX_LENGTH.load(Relaxed));
        _ = match number {
            1 => write!(Name, ".{process}.heap"), // it has room for that
            number => write!(Name, ".{process}.{number}.heap"),
        };
        if let Some(file) = PATH.open(libc::O_EXCL) {
            return Some(file);
        }
        if !PATH.was_written_since(BEGAN.load(Relaxed)) {
            return PATH.open(libc::O_TRUNC);
        }
    }
    None
}

/// The end of the path.
struct Name;

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if PATH.push(text) { Ok(()) } else { Err(fmt::Error) }
    }
}
