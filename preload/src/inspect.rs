//! Functions that look at the heap: mallinfo, malloc_info and the like.

use core::ffi::{c_char, c_int};
use core::fmt::{self, Write};

use allocator::{ClassStats, FileWriter, Stats};
use libc::FILE;

use crate::structures::{mallinfo, mallinfo2};

/// `M_ARENA_MAX`, the last of glibc's parameters that are below 0; those of System V are 1 to 4.
const LAST_PARAMETER: c_int = -8;
const MXFAST: c_int = 1;
/// Largest value that glibc takes for it.
const MOST_FAST: c_int = 160;

pub fn mallopt(parameter: c_int, value: c_int) -> c_int {
    c_int::from(match parameter {
        MXFAST => (0..=MOST_FAST).contains(&value),
        2..=4 | LAST_PARAMETER..=-1 => true,
        _ => false,
    })
}

pub fn mallinfo2() -> mallinfo2 {
    let stats = allocator::stats();
    let (mut free, mut page_bytes) = (0, stats.free_page_bytes + stats.released_bytes + stats.quarantined_bytes);
    allocator::for_each_class(&mut |class| {
        free += class.cached_objects + class.transfer_objects + class.central_objects + class.quarantined_objects;
        page_bytes = page_bytes.saturating_sub(class.quarantined_objects * class.size);
    });
    free += page_bytes / allocator::PAGE_SIZE as u64;
    let live = stats.live_small_bytes + stats.live_large_bytes;
    mallinfo2 {
        arena: stats.committed_bytes as usize,
        ordblks: free as usize,
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: stats.peak_held_bytes as usize,
        fsmblks: 0,
        uordblks: live as usize,
        fordblks: stats.committed_bytes.saturating_sub(live) as usize,
        keepcost: stats.free_page_bytes as usize,
    }
}

pub fn mallinfo() -> mallinfo {
    let info = mallinfo2();
    let int = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
    mallinfo {
        arena: int(info.arena),
        ordblks: int(info.ordblks),
        smblks: int(info.smblks),
        hblks: int(info.hblks),
        hblkhd: int(info.hblkhd),
        usmblks: int(info.usmblks),
        fsmblks: int(info.fsmblks),
        uordblks: int(info.uordblks),
        fordblks: int(info.fordblks),
        keepcost: int(info.keepcost),
    }
}

pub fn malloc_stats() {
    let mut out = FileWriter::new(2);
    // glibc's does not say whether it could write either.
    let _ = allocator::write_text(&mut out);
}

pub unsafe fn malloc_info(options: c_int, stream: *mut FILE) -> c_int {
    if options != 0 || stream.is_null() {
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return -1;
    }
    let mut out = Stream(stream);
    if write_xml(&mut out).is_ok() { 0 } else { -1 }
}

/// A stream of the C library's, which may allocate a buffer through us: nothing is locked meanwhile.
struct Stream(*mut FILE);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the caller of `malloc_info` gave an open stream; `text` is live.
        let written = unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), self.0) };
        if written == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The elements and attributes of glibc's `malloc_info`, for one heap.
fn write_xml(out: &mut impl Write) -> fmt::Result {
    let stats = allocator::stats();
    out.write_str("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n")?;
    let (mut result, mut below, mut free) = (Ok(()), 0, 0);
    allocator::for_each_class(&mut |class| {
        let ClassStats { size, transfer_objects, central_objects, .. } = *class;
        let count = transfer_objects + central_objects;
        if count > 0 {
            let (from, total) = (below + 1, count * size);
            result = result.and_then(|()| {
                writeln!(out, "  <size from=\"{from}\" to=\"{size}\" total=\"{total}\" count=\"{count}\"/>")
            });
        }
        below = size;
        free += count;
    });
    result?;
    out.write_str("</sizes>\n")?;
    write_totals(out, &stats, free)?;
    out.write_str("</heap>\n")?;
    write_totals(out, &stats, free)?;
    out.write_str("</malloc>\n")
}

fn write_totals(out: &mut impl Write, stats: &Stats, free: u64) -> fmt::Result {
    let rest = stats.transfer_bytes + stats.central_bytes;
    writeln!(out, "<total type=\"fast\" count=\"{}\" size=\"{}\"/>", stats.cached_objects, stats.cached_bytes)?;
    writeln!(out, "<total type=\"rest\" count=\"{free}\" size=\"{rest}\"/>")?;
    writeln!(out, "<system type=\"current\" size=\"{}\"/>", stats.held_bytes)?;
    writeln!(out, "<system type=\"max\" size=\"{}\"/>", stats.peak_held_bytes)?;
    writeln!(out, "<aspace type=\"total\" size=\"{}\"/>", stats.reserved_bytes)?;
    writeln!(out, "<aspace type=\"mprotect\" size=\"{}\"/>", stats.committed_bytes)
}

pub fn perseq_mode() -> *const c_char {
    allocator::active_mode().active.c_name().as_ptr()
}

pub fn perseq_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

pub fn perseq_drain() -> usize {
    allocator::drain()
}

pub fn perseq_write_profile(file: c_int) -> c_int {
    let mut out = FileWriter::new(file);
    if allocator::write_profile(&mut out).and_then(|()| out.flush()).is_ok() { 0 } else { -1 }
}

pub fn perseq_write_stats(file: c_int, json: c_int) -> c_int {
    let mut out = FileWriter::new(file);
    let written = if json == 0 { allocator::write_text(&mut out) } else { allocator::write_json(&mut out) };
    if written.and_then(|()| out.flush()).is_ok() { 0 } else { -1 }
}
