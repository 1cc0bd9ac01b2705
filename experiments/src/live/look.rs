//! One look at an allocator of another process: what its tiers hold and have done, as they have it in memory.
//!
//! What a lock protects is read until two reads in a row are alike and nobody had the lock, a few times at most. All
//! else is a number by itself. Two looks one after the other that are alike saw a process at rest: then all is exact.

use super::find::Allocator;
use super::process::{Process, Unread};
use super::ranges::shards;
use super::record::{Record, all_settled, settled, text, word};
use perseq::live::Live;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// More than there can be: what says so is no allocator's any more.
const MOST_CACHES: usize = 1 << 22;
const MOST_LEAVES: u64 = 1 << 20;
const MOST_BYTES: u32 = 1 << 24;

/// What one look saw.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    pub about: About,
    pub classes: Vec<Class>,
    pub caches: Vec<Cache>,
    pub pages: Pages,
    pub huge_pages: HugePages,
    pub emergency_large_bytes: u64,
    pub quarantined_pages: u64,
    pub restarts: u64,
    /// Times holders of locks were given more time, and times they were preempted.
    pub slices: [u64; 2],
}

/// What does not change.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    pub perseq: String,
    pub config: String,
    pub requested: String,
    pub active: String,
    pub reason: String,
    /// Whether holders of locks ask for more time.
    pub slices: String,
    /// What the cache with the number 0 is called; empty without caches.
    owner: String,
    pub page_bytes: u64,
    /// Pages of one of the kernel's huge pages.
    pub huge_pages: u64,
    pub counts_hits: bool,
}

/// One size class, behind the caches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Class {
    pub size: u64,
    pub span_pages: u64,
    pub span_objects: u64,
    pub batch: u64,
    pub transfer_objects: u64,
    pub uncached_allocs: u64,
    pub uncached_frees: u64,
    pub central_visits: u64,
    pub spans: u64,
    /// Objects of spans that are not free in them.
    pub out: u64,
    pub spanless: u64,
    pub emergency_runs: u64,
    pub emergency_made: u64,
    pub quarantined: u64,
}

/// One cache.
#[derive(Debug, PartialEq, Eq)]
pub struct Cache {
    /// None: its thread has ended.
    pub owner: Option<String>,
    pub capacity_bytes: u64,
    pub index_changes: u64,
    pub idle_drains: u64,
    pub lendings: u64,
    /// For each class.
    pub lists: Vec<List>,
}

/// The list of one class in a cache, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub objects: u64,
    pub alloc_hits: u64,
    pub free_hits: u64,
    pub underflows: u64,
    pub overflows: u64,
    pub refilled_objects: u64,
    pub flushed_objects: u64,
}

/// The page heap, in pages unless it says bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Pages {
    pub small: u64,
    pub large: u64,
    pub own: u64,
    pub free: u64,
    pub zero: u64,
    pub leaving: u64,
    pub committed: u64,
    pub returned: u64,
    pub relocated: u64,
    pub peak_bytes: u64,
    /// Tables beside the pages, and records of spans.
    pub table_bytes: u64,
}

/// The kernel's huge pages by what they hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    pub free: u64,
    pub partly_used: u64,
    pub fully_used: u64,
    pub released_in_part: u64,
}

impl Look {
    /// Looks at an allocator. `Ok(None)`: nobody has allocated yet.
    pub fn take(process: &Process, allocator: &Allocator) -> Result<Option<Look>, Unread> {
        let live = allocator.read(process)?;
        if live.decision.made.load(Relaxed) == 0 {
            return Ok(None);
        }
        if !is_plausible(&live) {
            return Err(Unread::Unmapped);
        }
        let about = About::of(&live);
        let classes = classes(process, &live)?;
        let caches = caches(process, &live, &about, classes.len())?;
        let quarantine = Record(process.bytes(live.quarantine.start.address(), live.quarantine.bytes as usize)?);
        let look = Look {
            caches,
            pages: pages(process, &live)?,
            huge_pages: huge_pages(process, &live)?,
            emergency_large_bytes: word(process, live.emergency.large_bytes.address())?,
            quarantined_pages: quarantine.u64(live.quarantine.large_pages),
            restarts: word(process, live.restarts.address())?,
            slices: [word(process, live.slices[0].address())?, word(process, live.slices[1].address())?],
            about,
            classes,
        };
        // If it is still there, it was all the time: a process that executes another program does not come back.
        allocator.read(process).map(|_| Some(look))
    }
}

impl About {
    fn of(live: &Live) -> About {
        let cells = |cells: &[AtomicU8]| text(&cells.iter().map(|cell| cell.load(Relaxed)).collect::<Vec<_>>());
        About {
            perseq: text(&live.perseq),
            config: text(&live.config),
            requested: cells(&live.decision.requested),
            active: cells(&live.decision.active),
            reason: cells(&live.decision.reason),
            slices: cells(&live.decision.slices),
            owner: cells(&live.decision.owner),
            page_bytes: live.page_bytes.into(),
            huge_pages: live.pages.directory.huge_page.pages.into(),
            counts_hits: live.counts_hits != 0,
        }
    }

    /// What the cache with this number is called.
    fn owner(&self, number: u32) -> Option<String> {
        Some(format!("{}{number}", self.owner.strip_suffix('0')?))
    }
}

/// Whether sizes are such as an allocator can have.
fn is_plausible(live: &Live) -> bool {
    let huge = &live.pages.directory;
    let of_all = |stride: u32| stride.saturating_mul(live.classes.count);
    let sizes = [
        of_all(live.classes.stride),
        live.caches.bytes,
        live.caches.counts_stride,
        of_all(live.transfer.stride),
        of_all(live.central_stride),
        live.pages.bytes,
        live.quarantine.bytes,
        huge.huge_count,
        huge.huge_page.stride,
        huge.huge_page.pages,
        huge.span.stride,
        huge.first_segment,
        huge.huge_count.saturating_mul(huge.huge_page.stride),
    ];
    live.classes.count <= 255 && sizes.iter().all(|size| (1..MOST_BYTES).contains(size))
}

fn classes(process: &Process, live: &Live) -> Result<Vec<Class>, Unread> {
    let (layout, count) = (&live.classes, live.classes.count as usize);
    let infos = process.bytes(layout.start.address(), count * layout.stride as usize)?;
    let runs = Record(process.bytes(live.emergency.runs.address(), 8 * count)?);
    let made = Record(process.bytes(live.emergency.made.address(), 8 * count)?);
    let quarantine = (live.quarantine.start.address(), live.quarantine.bytes as usize);
    let quarantine = settled(process, quarantine.0, quarantine.1, live.quarantine.lock)?;
    let shards = shards(process, live)?.into_iter().map(|shard| {
        let (stride, at) = (live.transfer.stride as usize, &live.transfer.cache);
        all_settled(process, shard, count, stride, at.lock)
    });
    let shards = shards.collect::<Result<Vec<_>, _>>()?;
    let (stride, at) = (live.central_stride as usize, &live.central_list);
    let lists = all_settled(process, live.central.address(), count, stride, at.lock)?;
    let mut classes = Vec::with_capacity(count);
    for (index, info) in infos.chunks(layout.stride as usize).enumerate() {
        let info = Record(info.to_vec());
        let mut class = Class {
            size: info.u32(layout.size).into(),
            span_pages: info.u32(layout.pages).into(),
            span_objects: info.u32(layout.objects).into(),
            batch: info.u32(layout.batch).into(),
            emergency_runs: runs.word(0, index),
            emergency_made: made.word(0, index),
            quarantined: u32::from_ne_bytes(quarantine.part(live.quarantine.objects as usize + 4 * index)).into(),
            ..Class::default()
        };
        let at = &live.transfer.cache;
        for cache in shards.iter().map(|shard| &shard[index]) {
            // Wrapping: an allocation for which there was no memory is taken off again, perhaps in another shard.
            let sum =
                |sum: &mut u64, parts: &[u32]| parts.iter().for_each(|at| *sum = sum.wrapping_add(cache.u64(*at)));
            sum(&mut class.transfer_objects, &[at.length]);
            sum(&mut class.uncached_allocs, &[at.uncached_allocs, at.past_allocs]);
            sum(&mut class.uncached_frees, &[at.uncached_frees, at.past_frees]);
            sum(&mut class.central_visits, &[at.central_visits]);
        }
        let (list, at) = (&lists[index], &live.central_list);
        (class.spans, class.out, class.spanless) = (list.u64(at.spans), list.u64(at.live), list.u64(at.spanless));
        classes.push(class);
    }
    Ok(classes)
}

fn caches(process: &Process, live: &Live, about: &About, classes: usize) -> Result<Vec<Cache>, Unread> {
    let at = &live.caches;
    let (mut caches, mut next) = (Vec::new(), word(process, at.newest.address())?);
    while next != 0 {
        if caches.len() == MOST_CACHES {
            return Err(Unread::Unmapped);
        }
        let record = Record(process.bytes(next, at.bytes as usize)?);
        next = record.u64(at.next);
        let has_owner = record.part::<1>(at.in_use as usize) != [0];
        let list = |class: usize| {
            let counts = |number: u32| {
                let of_class = at.counts.wrapping_add(class as u32 * at.counts_stride);
                record.u64(of_class.wrapping_add(number))
            };
            let hits = |from: u32| if from == 0 { 0 } else { record.word(from, class) };
            let slots = record.word(at.tops, class).wrapping_sub(record.word(at.bases, class)) / 8;
            let room = u32::from_ne_bytes(record.part(at.capacities as usize + 4 * class));
            List {
                // While lists get other arrays these may be of different ones.
                objects: slots.min(room.into()),
                alloc_hits: hits(at.alloc_hits),
                free_hits: hits(at.free_hits),
                underflows: counts(at.underflows),
                overflows: counts(at.overflows),
                refilled_objects: counts(at.refilled_objects),
                flushed_objects: counts(at.flushed_objects),
            }
        };
        caches.push(Cache {
            owner: if has_owner { about.owner(record.u32(at.owner)) } else { None },
            capacity_bytes: record.u64(at.capacity_bytes),
            index_changes: record.u64(at.index_changes),
            idle_drains: record.u64(at.idle_drains),
            lendings: record.u64(at.lendings),
            lists: (0..classes).map(list).collect(),
        });
    }
    Ok(caches)
}

fn pages(process: &Process, live: &Live) -> Result<Pages, Unread> {
    let at = &live.pages;
    let heap = settled(process, at.start.address(), at.bytes as usize, at.lock)?;
    Ok(Pages {
        small: heap.u64(at.small),
        large: heap.u64(at.large),
        own: heap.u64(at.own),
        free: heap.u64(at.free),
        zero: heap.u64(at.zero),
        leaving: heap.u64(at.leaving),
        committed: heap.u64(at.committed),
        returned: heap.u64(at.returned),
        relocated: heap.u64(at.relocated),
        peak_bytes: heap.u64(at.peak_bytes),
        table_bytes: heap.u64(at.tables) + u64::from(heap.u32(at.records)) * u64::from(at.directory.span.stride),
    })
}

fn huge_pages(process: &Process, live: &Live) -> Result<HugePages, Unread> {
    let (directory, at) = (&live.pages.directory, &live.pages.directory.huge_page);
    let first = word(process, directory.first.address())?;
    let end = word(process, directory.end.address())?;
    if end > MOST_LEAVES {
        return Err(Unread::Unmapped);
    }
    let mut found = HugePages::default();
    let count = end.saturating_sub(first) as usize;
    let leaves = Record(process.bytes(directory.leaves.address().wrapping_add(first.wrapping_mul(8)), 8 * count)?);
    for leaf in (0..count).map(|index| leaves.word(0, index)).filter(|leaf| *leaf != 0) {
        let start = directory.nothing.address().wrapping_add(leaf).wrapping_add(directory.huge.into());
        let bytes = process.bytes(start, directory.huge_count as usize * at.stride as usize)?;
        for huge in bytes.chunks(at.stride as usize) {
            let huge = Record(huge.to_vec());
            let [used, dirty, known] = [at.used, at.dirty, at.known].map(|at| u32::from(huge.u16(at)));
            match used {
                0 if known == 0 => continue,
                0 => found.free += 1,
                used if used == at.pages => found.fully_used += 1,
                _ => found.partly_used += 1,
            }
            found.released_in_part += u64::from(used + dirty > 0 && used + dirty < known);
        }
    }
    Ok(found)
}
