//! What was counted, by site: a stack and the bytes of the blocks that it allocates.
//!
//! A table with open addressing, whose entries are filled once, each by one atomic operation, and never emptied. So it is
//! whole whenever a thread, a signal handler or a child of `fork` looks.

use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::middle::back_end::BACK_END;
use crate::place::{Place, bytes};
use crate::profile::fate::{Birth, FateCounts, Fates};
use crate::profile::stack::DEPTH;

/// Places of the table, a power of two.
pub const PLACES: usize = 1 << 15;
/// Most sites; what comes after them is counted together. Of [`DEPTH`] frames each, they take 15 MiB.
const MOST: usize = PLACES / 4 * 3;
/// Places where a site may be.
const PROBES: usize = 64;

type Table = [AtomicPtr<Site>; PLACES];

/// The table, which is made when a profile begins.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());
/// Sites that there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// All for which there was no room.
static OTHERS: Site = Site::new(0, 0, 0);

/// Where the table is, and the site of what has no room in it.
pub const fn places() -> [Place; 2] {
    [Place::of(&raw const TABLE), Place::of(&raw const OTHERS)]
}

/// One site. Its frames are behind it in memory.
#[repr(C)]
pub struct Site {
    hash: u64,
    /// Of each block.
    bytes: usize,
    depth: usize,
    // Counted by whoever allocates and frees. Frees are written after, and read before, what they belong to.
    allocs: AtomicU64,
    alloc_bytes: AtomicU64,
    frees: AtomicU64,
    free_bytes: AtomicU64,
    fates: Fates,
}

/// What was sampled at a site, in blocks and bytes: not weighted by their probability.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub live: u64,
    pub live_bytes: u64,
    pub allocs: u64,
    pub alloc_bytes: u64,
}

impl Site {
    /// Where it has the number of its frames; samples, their bytes, those that were freed and theirs; and its fates.
    pub const LAYOUT: [u32; 6] = [
        bytes(offset_of!(Site, depth)),
        bytes(offset_of!(Site, allocs)),
        bytes(offset_of!(Site, alloc_bytes)),
        bytes(offset_of!(Site, frees)),
        bytes(offset_of!(Site, free_bytes)),
        bytes(offset_of!(Site, fates)),
    ];

    const fn new(hash: u64, bytes: usize, depth: usize) -> Self {
        Site {
            hash,
            bytes,
            depth,
            allocs: AtomicU64::new(0),
            alloc_bytes: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            fates: Fates::new(),
        }
    }

    /// Its stack, innermost frame first; empty for what many sites allocated.
    pub fn frames(&self) -> &[usize] {
        // SAFETY: `make` wrote so many behind it.
        unsafe { core::slice::from_raw_parts(ptr::from_ref(self).add(1).cast(), self.depth) }
    }

    /// A block of so many bytes was sampled.
    pub fn count_alloc(&self, bytes: usize) {
        self.allocs.fetch_add(1, Relaxed);
        self.alloc_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A sample of so many bytes was freed: now and by the calling thread, if it is said when it was born.
    pub fn count_free(&self, bytes: usize, born: Option<Birth>) {
        if let Some(born) = born {
            self.fates.count(born);
        }
        self.frees.fetch_add(1, Release); // pairs with `counts`: after its allocation
        self.free_bytes.fetch_add(bytes as u64, Release);
    }

    /// What became of those that were freed.
    pub fn fates(&self) -> FateCounts {
        self.fates.counts()
    }

    /// What was counted. Exact if nothing is allocated or freed meanwhile.
    pub fn counts(&self) -> Counts {
        let (frees, free_bytes) = (self.frees.load(Acquire), self.free_bytes.load(Acquire));
        let (allocs, alloc_bytes) = (self.allocs.load(Relaxed), self.alloc_bytes.load(Relaxed));
        let (live, live_bytes) = (allocs.saturating_sub(frees), alloc_bytes.saturating_sub(free_bytes));
        Counts { live, live_bytes, allocs, alloc_bytes }
    }
}

/// Makes the table. False if there is no memory for it.
pub fn prepare() -> bool {
    if TABLE.load(Relaxed).is_null() {
        let table = BACK_END.metadata.allocate(&BACK_END.pages, size_of::<Table>(), align_of::<Table>());
        TABLE.store(table.map_or(ptr::null_mut(), |table| table.as_ptr().cast()), Release);
    }
    table().is_some()
}

fn table() -> Option<&'static Table> {
    // SAFETY: zeroed memory of that size, for ever: null pointers.
    unsafe { TABLE.load(Acquire).as_ref() }
}

/// The site of `frames`, at most [`DEPTH`] of them, and blocks of so many bytes; made if there is none.
pub fn find(frames: &[usize], bytes: usize) -> &'static Site {
    let Some(table) = table() else { return &OTHERS };
    let hash = hash(frames, bytes);
    let mut made = None;
    for probe in 0..PROBES {
        let place = &table[(hash as usize).wrapping_add(probe) % PLACES];
        // SAFETY: a place names no site, or one that lives for ever.
        let mut found = unsafe { place.load(Acquire).as_ref() };
        if found.is_none() {
            let Some(new) = made.take().or_else(|| make(frames, bytes, hash)) else { return &OTHERS };
            match place.compare_exchange(ptr::null_mut(), new.as_ptr(), Release, Acquire) {
                // SAFETY: it is in the table now, for ever.
                Ok(_) => return unsafe { new.as_ref() },
                // SAFETY: as above. Ours is for the next place.
                Err(other) => (made, found) = (Some(new), unsafe { other.as_ref() }),
            }
        }
        if let Some(site) = found.filter(|site| site.hash == hash && site.bytes == bytes && site.frames() == frames) {
            return site; // what was made in vain, if anything was, stays unused: two threads came at the same moment
        }
    }
    &OTHERS
}

/// A site in memory of our own. `None` if there are enough, or there is no memory.
fn make(frames: &[usize], bytes: usize, hash: u64) -> Option<NonNull<Site>> {
    debug_assert!(frames.len() <= DEPTH);
    if COUNT.fetch_add(1, Relaxed) >= MOST {
        COUNT.fetch_sub(1, Relaxed);
        return None;
    }
    let size = size_of::<Site>() + size_of_val(frames);
    let memory = BACK_END.metadata.allocate(&BACK_END.pages, size, align_of::<Site>())?.cast::<Site>();
    // SAFETY: ours alone, and so large.
    unsafe {
        memory.write(Site::new(hash, bytes, frames.len()));
        ptr::copy_nonoverlapping(frames.as_ptr(), memory.as_ptr().add(1).cast(), frames.len());
    }
    Some(memory)
}

fn hash(frames: &[usize], bytes: usize) -> u64 {
    let mixed = frames.iter().fold(bytes as u64, |hash, frame| {
        (hash ^ *frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) // the golden ratio: spreads all bits
    });
    mixed ^ mixed >> 32
}

/// Every site that was counted at.
pub fn all() -> impl Iterator<Item = &'static Site> {
    let places = table().into_iter().flatten();
    // SAFETY: as in `find`.
    let sites = places.filter_map(|place| unsafe { place.load(Acquire).as_ref() });
    sites.chain([&OTHERS]).filter(|site| site.allocs.load(Relaxed) > 0)
}
