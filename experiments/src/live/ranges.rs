//! Where the metadata of an allocator lies, tier by tier, for who attributes accesses to it.
//!
//! Metadata never goes back and never serves another tier, so what is found at rest holds for all the time before. Arrays
//! of lists pass from cache to cache, and those that no list has belong to the caches as well.
//!
//! Not found are a thread's own words and small statics of slow paths.

use super::find::Allocator;
use super::process::{Process, Unread};
use super::record::{Record, word};
use super::spans::{Use, spans};
use crate::marks::TIERS;
use perseq::live::{Extent, Live};
use std::sync::atomic::Ordering::Relaxed;

const CACHES: usize = 0;
const TRANSFER: usize = 1;
const SPANS: usize = 2;
const PAGE_MAP: usize = 3;
const PAGE_HEAP: usize = 4;
const SHARED: usize = 5;
const _: () = assert!(SHARED + 1 == TIERS.len());

/// More than there can be: what says so is no allocator's any more.
const MOST: usize = 1 << 22;
/// Ranges that there is room for before the first is looked for: where the process is this one, its caches should not
/// change while they are walked.
const ROOM: usize = 1 << 15;
/// What tables are rounded up to.
const LINE: u64 = 64;

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Its tier: a place in [`TIERS`].
    pub tier: usize,
    pub first: u64,
    pub bytes: u64,
}

/// The ranges of an allocator in a process at rest, by tier. `Ok(None)`: nobody has allocated yet.
pub fn ranges(process: &Process, allocator: &Allocator) -> Result<Option<Vec<Range>>, Unread> {
    let live = allocator.read(process)?;
    if live.decision.made.load(Relaxed) == 0 {
        return Ok(None);
    }
    // What takes memory comes before what walks.
    let own: Vec<_> = spans(process, allocator)?.into_iter().filter(|span| span.what == Use::Own).collect();
    let mut found = Found { process, ranges: Vec::with_capacity(ROOM) };
    found.caches(&live)?;
    found.transfer_caches(&live)?;
    found.spans(&live)?;
    found.page_map(&live)?;
    found.extent(PAGE_HEAP, live.pages.itself);
    live.shared.iter().for_each(|extent| found.extent(SHARED, *extent));
    // Of the allocator's own pages all is found but the bitmaps of spans of many objects, the tables of a heap profile,
    // and what nobody has yet.
    let page = u64::from(live.page_bytes);
    let mut told = found.ranges.clone();
    told.sort_unstable_by_key(|range| range.first);
    for span in own {
        let (first, bytes) = (span.first_page * page, span.pages * page);
        found.ranges.extend(rest(first, bytes, &told));
    }
    allocator.read(process)?; // as for a look: it was there all the time
    Ok(Some(found.ranges))
}

/// What of a span none of `told` has, which are in the order of their addresses.
fn rest(first: u64, bytes: u64, told: &[Range]) -> Vec<Range> {
    let (mut next, end, mut rest) = (first, first + bytes, Vec::new());
    let from = told.partition_point(|range| range.first + range.bytes <= first);
    for range in told[from..].iter().take_while(|range| range.first < end) {
        if range.first > next {
            rest.push(Range { tier: SPANS, first: next, bytes: range.first - next });
        }
        next = next.max(range.first + range.bytes);
    }
    if next < end {
        rest.push(Range { tier: SPANS, first: next, bytes: end - next });
    }
    rest
}

/// Where the shards of the transfer caches begin.
pub fn shards(process: &Process, live: &Live) -> Result<Vec<u64>, Unread> {
    const MOST_SHARDS: u64 = 4096;
    let layout = &live.transfer;
    let count = word(process, layout.count.address())?;
    if count > MOST_SHARDS {
        return Err(Unread::Unmapped);
    }
    let others = if count > 1 { word(process, layout.others.address())? } else { 0 };
    let bytes = u64::from(layout.stride) * u64::from(live.classes.count);
    let others = (1..count).map(|shard| others.wrapping_add((shard - 1) * bytes));
    Ok([layout.first.address()].into_iter().chain(others).collect())
}

struct Found<'a> {
    process: &'a Process,
    ranges: Vec<Range>,
}

impl Found<'_> {
    fn add(&mut self, tier: usize, first: u64, bytes: u64) -> Result<(), Unread> {
        if self.ranges.len() == MOST || first.checked_add(bytes).is_none() {
            return Err(Unread::Unmapped);
        }
        if bytes > 0 {
            self.ranges.push(Range { tier, first, bytes });
        }
        Ok(())
    }

    fn extent(&mut self, tier: usize, extent: Extent) {
        self.ranges.push(Range { tier, first: extent.start.address(), bytes: extent.bytes.into() });
    }

    /// Records, arrays, arrays that no list has, and the table that finds the records.
    fn caches(&mut self, live: &Live) -> Result<(), Unread> {
        let at = &live.caches;
        let mut record = Record(vec![0; at.bytes as usize]);
        let mut next = word(self.process, at.newest.address())?;
        while next != 0 {
            self.process.read(next, &mut record.0)?;
            self.add(CACHES, next, at.bytes.into())?;
            for class in 0..live.classes.count as usize {
                let capacity = u32::from_ne_bytes(record.part(at.capacities as usize + 4 * class));
                if capacity > 0 {
                    // One sentinel lies below the lowest slot, one above the highest.
                    let bytes = (8 * (u64::from(capacity) + 2)).next_multiple_of(LINE);
                    self.add(CACHES, record.word(at.bases, class).wrapping_sub(8), bytes)?;
                }
            }
            next = record.u64(at.next);
        }
        for size in 0..u64::from(at.spare_sizes) {
            let mut array = word(self.process, at.spare_arrays.address() + 8 * size)?;
            while array != 0 {
                self.add(CACHES, array, (8_u64 << size).next_multiple_of(LINE))?;
                array = word(self.process, array)?;
            }
        }
        let rows = word(self.process, at.row_count.address())?;
        self.add(CACHES, word(self.process, at.rows.address())?, rows.saturating_mul(8))
    }

    /// Locks and counts, arrays, and the table of CPUs.
    fn transfer_caches(&mut self, live: &Live) -> Result<(), Unread> {
        let (layout, classes) = (&live.transfer, u64::from(live.classes.count));
        self.extent(TRANSFER, layout.itself);
        for (number, shard) in shards(self.process, live)?.into_iter().enumerate() {
            let stride = u64::from(layout.stride);
            if number > 0 {
                self.add(TRANSFER, shard, stride * classes)?;
            }
            for class in 0..classes {
                let array = word(self.process, shard + class * stride + u64::from(layout.cache.objects))?;
                let mut capacity = [0; 4];
                self.process.read(layout.capacities.address() + 4 * class, &mut capacity)?;
                let bytes = (8 * u64::from(u32::from_ne_bytes(capacity))).next_multiple_of(LINE);
                if array != 0 {
                    self.add(TRANSFER, array, bytes)?;
                }
            }
        }
        let table = word(self.process, layout.of_cpu.address())?;
        let cpus = word(self.process, layout.cpus.address())?.checked_next_multiple_of(LINE).ok_or(Unread::Unmapped)?;
        self.add(TRANSFER, table, if table == 0 { 0 } else { cpus })
    }

    /// Central free lists, and records of spans.
    fn spans(&mut self, live: &Live) -> Result<(), Unread> {
        let (directory, lists) = (&live.pages.directory, live.central_stride * live.classes.count);
        self.add(SPANS, live.central.address(), lists.into())?;
        for segment in directory.first_segment.ilog2()..u32::BITS {
            let base = word(self.process, directory.segments.address() + 8 * u64::from(segment))?;
            if base != 0 {
                let bytes = u64::from(directory.span.stride) << segment;
                self.add(SPANS, base.wrapping_add(bytes), bytes)?;
            }
        }
        Ok(())
    }

    /// The directory, its leaves, and their maps.
    fn page_map(&mut self, live: &Live) -> Result<(), Unread> {
        let (directory, huge) = (&live.pages.directory, &live.pages.directory.huge_page);
        self.extent(PAGE_MAP, directory.itself);
        let [first, end] = [directory.first, directory.end].map(|place| word(self.process, place.address()));
        for leaf in first?..end? {
            let distance = word(self.process, directory.leaves.address() + 8 * leaf)?;
            if distance == 0 {
                continue;
            }
            let (start, pages) = (directory.nothing.address().wrapping_add(distance), u64::from(directory.huge));
            let (count, stride) = (u64::from(directory.huge_count), u64::from(huge.stride));
            self.add(PAGE_MAP, start, pages + count * stride)?;
            for number in 0..count {
                let map = word(self.process, start + pages + number * stride + u64::from(huge.map))?;
                self.add(PAGE_MAP, map, if map == 0 { 0 } else { 4 * u64::from(huge.pages) })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::find::allocators;
    use std::alloc::{GlobalAlloc, Layout};
    use std::process::Command;

    static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

    /// The process's own perseq, which this test uses beside the program's allocator.
    fn own() -> (Process, Allocator) {
        let own = Process::new(std::process::id() as i32).unwrap();
        let found = allocators(&own).unwrap().remove(0);
        (own, found)
    }

    /// In a process of its own: other tests change what is walked.
    #[test]
    fn every_tier_of_this_process_is_found_and_no_object_is_in_any() {
        const ALONE: &str = "PERSEQ_TEST_RANGES";
        const NAME: &str = "live::ranges::tests::every_tier_of_this_process_is_found_and_no_object_is_in_any";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new("timeout");
            alone.args(["--signal=KILL", "300"]).arg(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", NAME, "--test-threads=1"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            return;
        }
        let layouts: Vec<_> = [8, 16, 24, 48, 512, 4000, 20_000, 100_000]
            .map(|bytes| Layout::from_size_align(bytes, 8).unwrap())
            .into_iter()
            .cycle()
            .take(4000)
            .collect();
        // SAFETY: no layout is of nothing.
        let objects: Vec<_> = layouts.iter().map(|layout| unsafe { ALLOCATOR.alloc(*layout) } as u64).collect();
        let half = objects.len() / 2;
        let free = |from: &[u64], layouts: &[Layout]| {
            // SAFETY: each is freed once, by its layout.
            from.iter().zip(layouts).for_each(|(object, layout)| unsafe {
                ALLOCATOR.dealloc(*object as *mut u8, *layout);
            });
        };
        free(&objects[..half], &layouts[..half]);
        let (process, allocator) = own();
        let found = ranges(&process, &allocator).unwrap().expect("it is in use");
        for (tier, name) in TIERS.iter().enumerate() {
            assert!(found.iter().any(|range| range.tier == tier && range.bytes > 0), "{name}: {found:?}");
        }
        let mut sorted = found.clone();
        sorted.sort_unstable_by_key(|range| range.first);
        let apart = |pair: &[Range]| pair[0].first + pair[0].bytes <= pair[1].first;
        assert!(sorted.windows(2).all(apart), "{sorted:?}");
        for object in &objects {
            let holds = |range: &&Range| (range.first..range.first + range.bytes).contains(object);
            assert_eq!(found.iter().find(holds), None, "{object:#x}");
        }
        // Every range can be read, to its last byte.
        for range in &found {
            assert!(process.bytes(range.first + range.bytes - 1, 1).is_ok(), "{range:?}");
        }
        free(&objects[half..], &layouts[half..]);
    }

    #[test]
    fn what_is_left_of_a_span_is_told_once() {
        let range = |first, bytes| Range { tier: CACHES, first, bytes };
        let told = [range(10, 10), range(40, 20), range(60, 10), range(90, 20)];
        let parts = |first, bytes| -> Vec<_> {
            rest(first, bytes, &told).iter().map(|range| (range.first, range.bytes)).collect()
        };
        assert_eq!(parts(0, 100), [(0, 10), (20, 20), (70, 20)]);
        assert_eq!(parts(20, 20), [(20, 20)]);
        assert_eq!(parts(12, 5), []);
        assert_eq!(parts(50, 30), [(70, 10)]);
        assert_eq!(parts(200, 30), [(200, 30)]);
    }
}
