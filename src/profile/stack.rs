//! The stack of the calling thread, by libc's `backtrace`.
//!
//! It reads the unwind tables of all code, whatever that was compiled with, and takes no lock on glibc 2.35 and later. At
//! its first call it loads libgcc, which opens files and allocates: so that comes early, where neither matters, and
//! `begin` tells of it. musl has no such function.

use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most frames of a stack that are kept: its innermost ones.
pub const DEPTH: usize = 64;

/// Frames that are never the program's: `walk`, who samples, and who called that.
const OURS: usize = 3;
/// Room for frames of [`own`](set_own) code.
const ROOM: usize = DEPTH + 16;

/// Code that is not the program's.
static OWN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Innermost frames in this code are left out.
pub fn set_own(own: Range<usize>) {
    OWN[0].store(own.start, Relaxed); // published by `begin`
    OWN[1].store(own.end, Relaxed);
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn backtrace(frames: *mut *mut c_void, most: c_int) -> c_int;
}

/// # Safety
///
/// * There is room for so many frames.
#[cfg(not(target_env = "gnu"))]
unsafe fn backtrace(_: *mut *mut c_void, _: c_int) -> c_int {
    0
}

/// Whether stacks can be walked at all.
pub const IS_KNOWN: bool = cfg!(target_env = "gnu");

/// Loads what walks stacks. May allocate.
pub fn load() {
    let mut frames = [core::ptr::null_mut(); 1];
    // SAFETY: there is room for one.
    unsafe { backtrace(frames.as_mut_ptr(), 1) };
}

/// Runs `f` with the stack of who called the caller's caller, innermost frame first.
#[inline(always)]
pub fn with(f: impl FnOnce(&[usize])) {
    let mut frames = [core::ptr::null_mut(); ROOM];
    let count = walk(&mut frames);
    // SAFETY: pointers are as good as addresses, and so many were written.
    let all = unsafe { core::slice::from_raw_parts(frames.as_ptr().cast::<usize>(), count) };
    let (start, end) = (OWN[0].load(Relaxed), OWN[1].load(Relaxed));
    let mut rest = all.get(OURS..).unwrap_or_default();
    while let Some((_, outer)) = rest.split_first().filter(|(frame, _)| (start..end).contains(frame)) {
        rest = outer;
    }
    f(&rest[..rest.len().min(DEPTH)]);
}

#[inline(never)] // the first frame
fn walk(frames: &mut [*mut c_void; ROOM]) -> usize {
    // SAFETY: there is room for so many.
    let count = unsafe { backtrace(frames.as_mut_ptr(), ROOM as c_int) };
    usize::try_from(count).unwrap_or(0).min(ROOM)
}
