//! Where something is written to: a path that the environment gave, and whether it can be had.

use core::mem::MaybeUninit;
use core::slice;
use core::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use rseq::syscall;

/// Bytes of a path, and the 0 that ends it: what the kernel takes.
const MOST: usize = 4096;

/// A path, empty before it is [set](OutputPath::set). A copy: programs write over their environment.
pub struct OutputPath {
    /// Ended by 0: the path only grows.
    bytes: [AtomicU8; MOST],
    length: AtomicUsize,
}

impl OutputPath {
    pub const fn new() -> Self {
        OutputPath { bytes: [const { AtomicU8::new(0) }; MOST], length: AtomicUsize::new(0) }
    }

    /// Takes a path that leaves room for so many bytes more. False if it is too long.
    pub fn set(&self, path: &str, room: usize) -> bool {
        self.length.store(0, Relaxed);
        path.len() + room < MOST && self.push(path)
    }

    /// Makes the path longer. False, and it is as it was, if it would be too long. By one thread at a time.
    pub fn push(&self, text: &str) -> bool {
        let length = self.length();
        if length + text.len() >= MOST {
            return false;
        }
        self.bytes[length..].iter().zip(text.as_bytes()).for_each(|(cell, byte)| cell.store(*byte, Relaxed));
        self.length.store(length + text.len(), Release); // pairs with `length`
        true
    }

    /// Makes the path as short as that again. By one thread at a time.
    pub fn cut(&self, length: usize) {
        self.bytes[length.min(MOST)..].iter().for_each(|cell| cell.store(0, Relaxed));
        self.length.store(length.min(self.length()), Release); // pairs with `length`
    }

    /// Bytes of the path.
    pub fn length(&self) -> usize {
        self.length.load(Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// The path.
    pub fn text(&self) -> &str {
        // SAFETY: atomic bytes are bytes, and nobody writes those below the length any more.
        let path = unsafe { slice::from_raw_parts(self.bytes.as_ptr().cast(), self.length()) };
        // SAFETY: `push` copied them from strings.
        unsafe { str::from_utf8_unchecked(path) }
    }

    /// Opens the file for writing with these further flags, or makes it. `None` if that is refused.
    pub fn open(&self, flags: i32) -> Option<i32> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC | flags;
        let arguments = [libc::AT_FDCWD as usize, self.bytes.as_ptr() as usize, flags as usize, 0o666];
        // SAFETY: atomic bytes are bytes, the last of them is 0, and nobody writes them any more.
        unsafe { syscall::call(libc::SYS_openat, arguments) }.ok().map(|file| file as i32)
    }

    /// Whether the file can be opened for writing, or made: it is not made yet, because the program may go to another
    /// folder. Nor is it opened: who reads from a pipe would see its end.
    pub fn can_be_opened(&self) -> bool {
        match self.status() {
            Ok(status) => status.st_mode & libc::S_IFMT != libc::S_IFDIR && is_allowed(&self.bytes, libc::W_OK),
            Err(libc::ENOENT) => self.folder_takes_files(),
            Err(_) => false,
        }
    }

    /// Whether there is a file, of those that are kept, to which somebody wrote since so many nanoseconds after 1970.
    pub fn was_written_since(&self, date: u64) -> bool {
        self.status().is_ok_and(|status| {
            let written = status.st_mtime as u64 * 1_000_000_000 + status.st_mtime_nsec as u64;
            status.st_mode & libc::S_IFMT == libc::S_IFREG && written >= date
        })
    }

    fn status(&self) -> Result<libc::stat, i32> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        let arguments = [libc::AT_FDCWD as usize, self.bytes.as_ptr() as usize, status.as_mut_ptr() as usize, 0];
        // SAFETY: atomic bytes are bytes, the last of them is 0, and `status` is ours to be written.
        unsafe { syscall::call(libc::SYS_newfstatat, arguments)? };
        // SAFETY: it was written.
        Ok(unsafe { status.assume_init() })
    }

    /// Whether a file may be made where the path says.
    pub fn folder_takes_files(&self) -> bool {
        let folder = [const { AtomicU8::new(0) }; MOST];
        let slash = self.bytes[..self.length()].iter().rposition(|byte| byte.load(Relaxed) == b'/');
        // The root is its own folder; without a slash, it is the present one.
        let end = slash.map_or(0, |slash| slash.max(1));
        folder.iter().zip(&self.bytes[..end]).for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
        if end == 0 {
            folder[0].store(b'.', Relaxed);
        }
        is_allowed(&folder, libc::W_OK | libc::X_OK)
    }
}

/// Whether this user may do that with what is at this path, bytes ended by 0.
fn is_allowed(path: &[AtomicU8; MOST], what: i32) -> bool {
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, what as usize];
    // SAFETY: atomic bytes are bytes, the last of them is 0, and they live while the call lasts.
    unsafe { syscall::call(libc::SYS_faccessat, arguments) }.is_ok()
}

/// Closes a descriptor that nobody else uses.
pub fn close(file: i32) {
    // SAFETY: by our own contract.
    _ = unsafe { syscall::call(libc::SYS_close, [file as usize]) };
}
