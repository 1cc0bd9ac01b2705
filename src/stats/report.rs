//! Statistics as text and as JSON, for programs and at exit. Nothing here allocates.
//!
//! `PERSEQ_STATS` asks for one at exit: it is written with write(2) when the process ends by `exit` or by a return
//! from `main`, and not if it is killed or ends by `_exit`. A file is appended to, one JSON object on a line, so
//! processes that end one after another share it.
//!
//! Standard error is what it was at the first allocation. A process that closes it before its end reports all the same;
//! a forked child that does, such as a daemon, reports nothing and keeps nothing open.

use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicI32, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::BUILD_CONFIG;
use crate::stats::{COUNTS_HITS, CacheStats, ClassStats, Stats, for_each_cache, for_each_class, stats};
use crate::sync::keep_errno;

/// The names and values that this build counts.
fn counted<const N: usize>(
    names: &'static [&'static str],
    values: [u64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.iter().copied().zip(values).filter(|(name, _)| COUNTS_HITS || !name.ends_with("_hits"))
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:20} {}", "mode", self.mode)?;
        writeln!(f, "{:20} {BUILD_CONFIG}", "config")?;
        for (name, value) in counted(Self::NAMES, self.values()) {
            writeln!(f, "{name:20} {value:>16}")?;
        }
        if !COUNTS_HITS {
            writeln!(f, "hits are counted by builds with the feature count-hits only")?;
        }
        Ok(())
    }
}

impl Stats {
    /// Writes the totals as one JSON object, without a line's end.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> fmt::Result {
        let mode = &self.mode;
        write!(out, "{{\"config\":\"{BUILD_CONFIG}\",\"requested_mode\":\"{}\"", mode.requested)?;
        write!(out, ",\"mode\":\"{}\"", mode.active)?;
        write!(out, ",\"mode_reason\":\"{}\"", mode.reason)?; // constant texts and numbers: nothing to escape
        write_fields(out, ",", counted(Self::NAMES, self.values()))?;
        out.write_char('}')
    }
}

fn write_fields(
    out: &mut impl Write,
    mut before: &str,
    fields: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    for (name, value) in fields {
        write!(out, "{before}\"{name}\":{value}")?;
        before = ",";
    }
    Ok(())
}

/// Writes everything as one JSON object on a line: the process, the totals, each cache, and each size class that
/// was ever used.
///
/// # Errors
///
/// Those of `out`.
pub fn write_json(out: &mut impl Write) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    // SAFETY: getpid has no preconditions.
    write!(out, "{{\"perseq\":\"{version}\",\"process\":{},\"total\":", unsafe { libc::getpid() })?;
    stats().write_json(out)?;
    let (mut result, mut before) = (out.write_str(",\"caches\":["), "");
    for_each_cache(&mut |cache| {
        result = result.and_then(|()| {
            write!(out, "{before}{{\"owner\":\"{}\"", cache.owner)?;
            write_fields(out, ",", counted(CacheStats::NAMES, cache.values()))?;
            out.write_char('}')
        });
        before = ",";
    });
    result?;
    (result, before) = (out.write_str("],\"classes\":["), "");
    for_each_class(&mut |class| {
        if was_used(class) {
            result = result.and_then(|()| {
                out.write_str(before)?;
                write_fields(out, "{", counted(ClassStats::NAMES, class.values()))?;
                out.write_char('}')
            });
            before = ",";
        }
    });
    result?;
    out.write_str("]}\n")
}

/// Writes everything as text: the totals, a table of caches, and one of the size classes that were ever used.
///
/// # Errors
///
/// Those of `out`.
pub fn write_text(out: &mut impl Write) -> fmt::Result {
    // SAFETY: getpid has no preconditions.
    writeln!(out, "perseq {}, process {}", env!("CARGO_PKG_VERSION"), unsafe { libc::getpid() })?;
    write!(out, "{}", stats())?;
    let mut result = table_head(out, "cache", CacheStats::NAMES);
    for_each_cache(&mut |cache| {
        result = result
            .and_then(|()| write!(out, "{:16}", cache.owner))
            .and_then(|()| table_row(out, CacheStats::NAMES, cache.values()));
    });
    result?;
    result = table_head(out, "class", ClassStats::NAMES);
    for_each_class(&mut |class| {
        if was_used(class) {
            result = result
                .and_then(|()| write!(out, "{:16}", class.size))
                .and_then(|()| table_row(out, ClassStats::NAMES, class.values()));
        }
    });
    result
}

fn table_head<W: Write>(out: &mut W, first: &str, names: &'static [&'static str]) -> fmt::Result {
    write!(out, "\n{first:16}")?;
    for (name, _) in counted(names, [0; 32]) {
        write!(out, " {name:>width$}", width = name.len().max(10))?;
    }
    out.write_char('\n')
}

fn table_row<W: Write, const N: usize>(out: &mut W, names: &'static [&'static str], values: [u64; N]) -> fmt::Result {
    for (name, value) in counted(names, values) {
        write!(out, " {value:>width$}", width = name.len().max(10))?;
    }
    out.write_char('\n')
}

fn was_used(class: &ClassStats) -> bool {
    class.spans + class.uncached_allocs + class.refilled_objects > 0
}

/// A file descriptor, through a small buffer on the stack: a [`Write`] that allocates nothing.
#[derive(Debug)]
pub struct FileWriter {
    file: i32,
    length: usize,
    buffer: [u8; 1024],
}

impl FileWriter {
    /// Writes to `file`, an open descriptor.
    #[must_use]
    pub fn new(file: i32) -> Self {
        FileWriter { file, length: 0, buffer: [0; 1024] }
    }

    /// Writes what is in the buffer. Dropping does too, without a word about errors.
    ///
    /// # Errors
    ///
    /// The descriptor takes no more.
    pub fn flush(&mut self) -> fmt::Result {
        let mut rest = &self.buffer[..core::mem::take(&mut self.length)];
        while !rest.is_empty() {
            // SAFETY: `rest` is live memory of its length.
            let written = keep_errno(|| unsafe {
                let written = libc::write(self.file, rest.as_ptr().cast(), rest.len());
                if written < 0 { -i64::from(*libc::__errno_location()) } else { written as i64 }
            });
            match written {
                1.. => rest = &rest[written as usize..],
                _ if written == -i64::from(libc::EINTR) => {}
                _ => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

impl Write for FileWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            if self.length == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.length);
            self.buffer[self.length..self.length + count].copy_from_slice(&bytes[..count]);
            self.length += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let _ = self.flush(); // nobody is left to tell
    }
}

// At exit.

const NONE: u8 = 0;
const TEXT: u8 = 1;
const JSON: u8 = 2;

/// What `PERSEQ_STATS` asked for.
static FORM: AtomicU8 = AtomicU8::new(NONE);
/// The file's path, ended by 0; empty for standard error. A copy: programs write over their environment.
static PATH: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];
static PATH_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Takes `text`, `json`, or one of them with `:` and a path. False if it is neither.
pub fn set_at_exit(asked: &str) -> bool {
    let (form, path) = match asked.split_once(':') {
        Some((form, path)) => (form, Some(path)),
        None => (asked, None),
    };
    let form = match form {
        "text" => TEXT,
        "json" => JSON,
        _ => return false,
    };
    let bytes = path.unwrap_or_default().as_bytes();
    if path == Some("") || bytes.len() >= PATH.len() {
        return false;
    }
    for (cell, byte) in PATH.iter().zip(bytes) {
        cell.store(*byte, Relaxed);
    }
    PATH_LENGTH.store(bytes.len(), Relaxed);
    FORM.store(form, Release); // pairs with `write_at_exit`
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
    keep_errno(|| unsafe {
        (libc::fstat(file, status.as_mut_ptr()) == 0).then(|| {
            let status = status.assume_init_ref();
            (status.st_dev, status.st_ino)
        })
    })
}

fn is_standard_error(file: i32) -> bool {
    identity(file) == Some((DEVICE.load(Relaxed), INODE.load(Relaxed)))
}

/// Takes the copy, if a report to standard error was asked for.
pub fn keep_standard_error() {
    if FORM.load(Acquire) == NONE || PATH_LENGTH.load(Relaxed) > 0 {
        return;
    }
    if let Some((device, inode)) = identity(libc::STDERR_FILENO) {
        // Relaxed: read at exit, and in a child.
        DEVICE.store(device, Relaxed);
        INODE.store(inode, Relaxed);
        // SAFETY: fcntl of numbers.
        let copy = keep_errno(|| unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, LOWEST_COPY) });
        COPY.store(copy, Relaxed);
    }
}

/// Arranges for the report at exit, if one was asked for. May allocate.
pub fn arrange_exit() {
    if FORM.load(Acquire) != NONE {
        // SAFETY: the function is this module's and lives for ever.
        keep_errno(|| unsafe { libc::atexit(write_at_exit) });
    }
}

/// The child of a fork reports to its own standard error, if it still has it at its end.
pub fn forget_in_child() {
    let copy = COPY.swap(-1, Relaxed);
    if copy >= 0 && is_standard_error(copy) {
        // SAFETY: ours, and of no use to anybody else.
        keep_errno(|| unsafe { libc::close(copy) });
    }
}

extern "C" fn write_at_exit() {
    let form = FORM.load(Acquire);
    let named = PATH_LENGTH.load(Relaxed) > 0;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    let file = if named {
        // SAFETY: atomic bytes are bytes, the last of them is 0, and nobody writes them any more.
        unsafe { libc::open(PATH.as_ptr().cast(), flags, 0o666) }
    } else {
        let known = [COPY.load(Relaxed), libc::STDERR_FILENO].into_iter().find(|file| is_standard_error(*file));
        let Some(file) = known else { return }; // the program gave it up
        file
    };
    if file < 0 {
        crate::fatal::message(&["PERSEQ_STATS: the file cannot be opened for writing"]);
        return;
    }
    let mut out = FileWriter::new(file);
    let written = if form == JSON { write_json(&mut out) } else { write_text(&mut out) };
    if written.and_then(|()| out.flush()).is_err() {
        crate::fatal::message(&["PERSEQ_STATS: the file takes no more"]);
    }
    if named {
        // SAFETY: opened above.
        unsafe { libc::close(file) };
    }
}
