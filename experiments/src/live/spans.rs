//! The spans of an allocator in another process: which pages it has, and what each is used for.

use super::find::Allocator;
use super::process::{Process, Unread};
use super::record::{Record, word};

/// More than there can be.
const MOST_SPANS: u32 = 1 << 30;
/// Records that are read at a time.
const PART: u64 = 1 << 14;

/// A run of pages with one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its address divided by the bytes of a page.
    pub first_page: u64,
    pub pages: u64,
    pub what: Use,
}

/// What pages are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Objects of the class with this index, of which so many are not free in it.
    Small { class: usize, out: u64 },
    /// A large block.
    Large,
    /// The allocator's own.
    Own,
    /// Free, and resident.
    Free,
    /// Free, and given back to the kernel but for its addresses, or never touched.
    Zero,
    /// Given back whole: nothing is mapped there.
    Hole,
}

/// The spans of `allocator`, by address. Of a process that runs, they are of moments close to one another: what overlaps
/// another is left out.
pub fn spans(process: &Process, allocator: &Allocator) -> Result<Vec<Span>, Unread> {
    let live = allocator.read(process)?;
    let (directory, at) = (&live.pages.directory, &live.pages.directory.span);
    let heap = Record(process.bytes(live.pages.start.address(), live.pages.bytes as usize)?);
    let records = heap.u32(live.pages.records);
    if records > MOST_SPANS || at.stride == 0 || directory.first_segment == 0 {
        return Err(Unread::Unmapped);
    }
    let first = u64::from(directory.first_segment);
    // Records have the numbers from 1 on.
    let (mut place, end) = (first + 1, first + u64::from(records) + 1);
    let mut spans = Vec::new();
    while place < end {
        let segment = place.ilog2();
        let base = word(process, directory.segments.address().wrapping_add(8 * u64::from(segment)))?;
        let count = (end.min(2 << segment) - place).min(PART);
        let start = base.wrapping_add(place * u64::from(at.stride));
        let bytes = process.bytes(start, count as usize * at.stride as usize)?;
        for record in bytes.chunks(at.stride as usize) {
            let record = Record(record.to_vec());
            let [state, class, contents] = [at.state, at.class, at.contents].map(|at| record.u8(at));
            let what = match (state, contents) {
                (1, 0 | 3) | (5, _) => Use::Free,
                (1, 1) => Use::Zero,
                (1, _) => Use::Hole,
                (2, _) => Use::Small { class: class.into(), out: record.u16(at.live).into() },
                (3, _) => Use::Large,
                (4, _) => Use::Own,
                _ => continue,
            };
            spans.push(Span { first_page: record.u64(at.first_page), pages: record.u32(at.pages).into(), what });
        }
        place += count;
    }
    allocator.read(process)?; // as for a look: it was there all the time
    spans.sort_by_key(|span| span.first_page);
    let mut end = 0;
    spans.retain(|span| {
        let apart = span.pages > 0 && span.first_page >= end && span.first_page.checked_add(span.pages).is_some();
        end = if apart { span.first_page + span.pages } else { end };
        apart
    });
    Ok(spans)
}
