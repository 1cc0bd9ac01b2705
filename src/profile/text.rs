//! The profile as text, as gperftools writes it and pprof, `go tool pprof` and jeprof read it.
//!
//! ```text
//! heap profile: 3: 3072 [ 5: 5120] @ heap_v2/524288
//! 2: 2048 [ 4: 4096] @ 0x55d0c8f3a1b2 0x55d0c8f3a0c4 0x7f1c2e42724a
//! # of 2 freed: 1 on another CPU, 0 by another thread, after 0 0 1 0 1 0 0 0 0
//! # site 0x7f1c2a001440
//! 1: 1024 [ 1: 1024] @ 0x55d0c8f3a1d9 0x55d0c8f3a0c4 0x7f1c2e42724a
//! # site 0x7f1c2a001980
//! # 0x7f1c2a001440 in use: CPU 3, thread 4711
//! # 0x7f1c2a001980 in use: CPU 0, thread 4711
//!
//! MAPPED_LIBRARIES:
//! ```
//!
//! and then the process's mappings, by which a reader finds files and symbols. A line has the samples in use, their bytes,
//! and in brackets all that were taken, as they were counted: `heap_v2` has the reader weight them, by what the rate makes
//! of the bytes of one.
//!
//! What became of freed ones is a comment for such readers: samples that were freed on another CPU than the one they were
//! allocated on, by another thread, and how many lived for less than 10 us, from there to 100 us, and so on by
//! [powers of ten](crate::profile::fate), the last for 100 s and more. Those that a handler gave up which could not wait for
//! a lock are not among them. So are the samples in use, of which a site [with such](crate::profile::in_use) has a name: the
//! CPU that each was allocated on, or `-`, and the kernel's number of the thread.

use core::fmt::{self, Write};

use rseq::syscall;

use crate::profile::fate::FateCounts;
use crate::profile::in_use::{self, InUse, UNKNOWN_CPU};
use crate::profile::samples::{lost, rate};
use crate::profile::sites;

/// Writes the profile, without allocating.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write) -> fmt::Result {
    let mut sums = [0_u64; 4];
    for site in sites::all() {
        let counts = site.counts();
        let these = [counts.live, counts.live_bytes, counts.allocs, counts.alloc_bytes];
        sums.iter_mut().zip(these).for_each(|(sum, this)| *sum += this);
    }
    let [live, live_bytes, allocs, alloc_bytes] = sums;
    let rate = rate().unwrap_or(1);
    writeln!(out, "heap profile: {live}: {live_bytes} [ {allocs}: {alloc_bytes}] @ heap_v2/{rate}")?;
    for site in sites::all() {
        let counts = site.counts();
        write!(out, "{}: {} [ {}: {}] @", counts.live, counts.live_bytes, counts.allocs, counts.alloc_bytes)?;
        site.frames().iter().try_for_each(|frame| write!(out, " {frame:#x}"))?;
        out.write_str("\n")?;
        let fates = site.fates();
        if fates.freed() > 0 {
            let FateCounts { other_cpu, other_thread, ages } = fates;
            write!(out, "# of {} freed: {other_cpu} on another CPU, ", fates.freed())?;
            write!(out, "{other_thread} by another thread, after")?;
            ages.iter().try_for_each(|age| write!(out, " {age}"))?;
            out.write_str("\n")?;
        }
        if counts.live > 0 {
            writeln!(out, "# site {site:p}")?;
        }
    }
    for InUse { site, cpu, thread } in in_use::all() {
        write!(out, "# {site:#x} in use: CPU ")?;
        if cpu == UNKNOWN_CPU {
            out.write_str("-")?
        } else {
            write!(out, "{cpu}")?
        }
        writeln!(out, ", thread {thread}")?;
    }
    if lost() > 0 {
        writeln!(out, "# {} samples were not taken, for want of memory", lost())?;
    }
    out.write_str("\nMAPPED_LIBRARIES:\n")?;
    write_mappings(out)
}

/// Bytes of `/proc/self/maps` that are read at a time: most lines are shorter, and stacks of handlers are small.
const PART: usize = 1024;

/// Copies the list of mappings, as far as the kernel gives it. Names that are not UTF-8 are shown as such.
fn write_mappings(out: &mut dyn Write) -> fmt::Result {
    let (path, flags) = (c"/proc/self/maps".as_ptr() as usize, (libc::O_RDONLY | libc::O_CLOEXEC) as usize);
    // SAFETY: the path is a string.
    let Ok(file) = (unsafe { syscall::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0]) }) else {
        return Ok(());
    };
    let (mut part, mut length, mut result) = ([0_u8; PART], 0, Ok(()));
    loop {
        let room = &mut part[length..];
        // SAFETY: the descriptor is ours, and so is the memory.
        let read = unsafe { syscall::call(libc::SYS_read, [file, room.as_mut_ptr() as usize, room.len()]) };
        let count = match read {
            Err(libc::EINTR) => continue,
            read => read.unwrap_or(0),
        };
        length += count;
        // Whole lines, so that no letter is cut; what has no end goes as it is.
        let whole = part[..length].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = if whole == 0 || count == 0 { length } else { whole };
        for chunk in part[..end].utf8_chunks() {
            result = result.and_then(|()| out.write_str(chunk.valid()));
            if !chunk.invalid().is_empty() {
                result = result.and_then(|()| out.write_str("\u{fffd}"));
            }
        }
        part.copy_within(end..length, 0);
        length -= end;
        if count == 0 || result.is_err() {
            break;
        }
    }
    // SAFETY: the descriptor is ours.
    _ = unsafe { syscall::call(libc::SYS_close, [file]) };
    result
}
