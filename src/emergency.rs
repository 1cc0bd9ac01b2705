//! Emergency memory: for a thread that must not wait for a lock (the term is gperftools').
//!
//! A thread comes here
//!
//! * in a signal handler that interrupted a slow path of its own thread, which holds a lock,
//! * in a function of somebody else's that the holder of a lock calls,
//! * while a fork holds the locks and does not end, because it waits for what this thread holds,
//! * in a child of a fork that came out of a handler while another thread held a lock, for ever.
//!
//! Nothing here takes a lock or has a state that another step has to complete: each change is one atomic operation. So it
//! may be interrupted anywhere, and a forked child finds it whole.
//!
//! Small objects come from regions of their own, a run of pages for each class. They are objects of their class like any
//! other: caches and free lists take them, and only what looks for an object's span has to know that they have none. The
//! central free list keeps them and hands them out again. A large block is a mapping of its own.
//!
//! What is freed where no lock can be waited for is put on a list, linked through the blocks, for the next slow path that
//! can wait. Statistics count what is here, a run of pages as a span; limits on memory do not.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::PAGE_SIZE;
use crate::names::{self, Name};
use crate::os;
use crate::place::Place;
use crate::size_class::{CLASSES, SizeClass};
use crate::this_thread;

/// Bytes of the first region; each further one is twice as large.
const FIRST_REGION: usize = 256 << 10;
const REGIONS: usize = 20;
/// Large blocks there may be, and places where one may be noted.
const LARGE_SLOTS: usize = 4096;
const PROBES: usize = 64;

/// Where each region begins; 0 if it was not needed yet.
static REGION: [AtomicUsize; REGIONS] = [const { AtomicUsize::new(0) }; REGIONS];
/// Each class's present run of pages and how many of its objects were handed out, in one word: a page's low bits are free.
static RUNS: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];
/// Runs of pages that each class has.
static RUN_COUNTS: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];
/// Bytes of large blocks.
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Objects of each class that were made here.
static MADE: [AtomicU64; CLASSES] = [const { AtomicU64::new(0) }; CLASSES];
static LARGE: [Large; LARGE_SLOTS] =
    [const { Large { address: AtomicUsize::new(FREE_SLOT), bytes: AtomicUsize::new(0) } }; LARGE_SLOTS];
/// The block that was freed last where no lock could be waited for; each begins with the address of the one before.
static DEFERRED: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// A lock is held for ever, by a thread that does not exist in this process.
static ORPHANED: AtomicBool = AtomicBool::new(false);

struct Large {
    address: AtomicUsize,
    bytes: AtomicUsize,
}

const FREE_SLOT: usize = 0;
const CLAIMED_SLOT: usize = 1;

/// What stands at the beginning of a region: the next page that nobody has, and what each page is.
#[repr(C)]
struct Header {
    next: AtomicUsize,
    /// The class's number, and above it which page of its run it is.
    pages: [AtomicU32; 0],
}

/// Whether the calling thread must not wait for a lock now.
#[inline]
pub fn is_now() -> bool {
    this_thread::locks() != 0 || ORPHANED.load(Relaxed)
}

/// From now on no thread of this process can wait for a lock.
pub fn begin_for_ever() {
    ORPHANED.store(true, Relaxed); // by the process's only thread
}

/// An object of `class`. `None` if the kernel has no memory.
pub fn allocate(class: SizeClass) -> Option<NonNull<u8>> {
    let run = &RUNS[class.index()];
    // The count of objects fits into a page's low bits.
    let most = (class.info().objects as usize).min(PAGE_SIZE - 1);
    let object = loop {
        let now = run.load(Acquire); // pairs with the release below: the run's pages say what they are
        let (start, given) = (now & !(PAGE_SIZE - 1), now & (PAGE_SIZE - 1));
        if start != 0 && given < most {
            if run.compare_exchange(now, now + 1, Acquire, Relaxed).is_ok() {
                break start + given * class.size();
            }
            continue;
        }
        let fresh = take_pages(class)?;
        // If somebody was faster, the rest of our run stays unused.
        _ = run.compare_exchange(now, fresh + 1, Release, Relaxed);
        break fresh;
    };
    MADE[class.index()].fetch_add(1, Relaxed); // a count
    NonNull::new(object as *mut u8)
}

/// An object of `class` for an operation of this thread that went without a lock. `None` if none did.
pub fn allocate_for_want_of_lock(class: SizeClass) -> Option<NonNull<u8>> {
    if this_thread::went_without() { allocate(class) } else { None }
}

/// What a class has here. Relaxed counts: exact while nobody comes here.
pub struct Totals {
    /// Runs of pages, as long as a span of the class.
    pub runs: u64,
    /// Objects of them that were ever handed out. Each is in a program's hands, a cache or a free list.
    pub made: u64,
}

/// What `class` has here.
pub fn totals(class: SizeClass) -> Totals {
    let made = MADE[class.index()].load(Relaxed); // first, so as not to be more than the runs hold
    Totals { runs: RUN_COUNTS[class.index()].load(Relaxed) as u64, made }
}

/// Bytes of all large blocks here.
pub fn large_bytes() -> usize {
    LARGE_BYTES.load(Relaxed)
}

/// Where the counts of emergency memory are, words of 64 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EmergencyLayout {
    /// For each class, runs of pages as long as a span of it.
    pub runs: Place,
    /// For each class, objects that were ever handed out of them.
    pub made: Place,
    /// Bytes of large blocks.
    pub large_bytes: Place,
}

/// See [`EmergencyLayout`].
pub const fn layout() -> EmergencyLayout {
    EmergencyLayout {
        runs: Place::of(&raw const RUN_COUNTS),
        made: Place::of(&raw const MADE),
        large_bytes: Place::of(&raw const LARGE_BYTES),
    }
}

/// A run of pages for objects of `class`: its address.
fn take_pages(class: SizeClass) -> Option<usize> {
    let wanted = class.info().pages as usize;
    for region in 0..REGIONS {
        let header = region_at(region)?;
        // SAFETY: regions are never unmapped.
        let next = unsafe { &(*header).next };
        let taken = next.fetch_update(Relaxed, Relaxed, |next| {
            Some(next + wanted).filter(|end| *end <= region_bytes(region) / PAGE_SIZE)
        });
        let Ok(first) = taken else { continue };
        for page in 0..wanted {
            // Relaxed: who has an object of the run had its address from someone who got it after this.
            page_word(header, first + page).store(u32::from(class.number()) | (page as u32) << 8, Relaxed);
        }
        RUN_COUNTS[class.index()].fetch_add(1, Relaxed);
        return Some(header as usize + first * PAGE_SIZE);
    }
    None
}

/// Memory of the kernel's, for a region or a large block.
fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let start = os::map_apart(bytes, align)?;
    // SAFETY: mapped just now, in whole pages.
    unsafe { names::give(Name::Emergency, start, bytes.next_multiple_of(os::page_size())) };
    Some(start)
}

fn region_bytes(region: usize) -> usize {
    FIRST_REGION << region
}

/// The region's header; the region is made if there is none.
fn region_at(region: usize) -> Option<*const Header> {
    let known = REGION[region].load(Acquire); // pairs with the release below
    if known != 0 {
        return Some(known as *const Header);
    }
    let bytes = region_bytes(region);
    let start = map(bytes, PAGE_SIZE)?;
    let header = start.as_ptr().cast::<Header>();
    let before = (size_of::<Header>() + bytes / PAGE_SIZE * size_of::<AtomicU32>()).div_ceil(PAGE_SIZE);
    // SAFETY: new and ours alone, zeroed, and that long.
    unsafe { (*header).next.store(before, Relaxed) };
    match REGION[region].compare_exchange(0, header as usize, Release, Acquire) {
        Ok(_) => Some(header),
        Err(other) => {
            // SAFETY: nobody has seen ours.
            unsafe { os::unmap(start, bytes) };
            Some(other as *const Header)
        }
    }
}

fn page_word(header: *const Header, page: usize) -> &'static AtomicU32 {
    // SAFETY: a header has a word for each page of its region, which is never unmapped.
    unsafe { &*(&raw const (*header).pages).cast::<AtomicU32>().add(page) }
}

/// The class of the object from here that `address` is in, and how far in.
pub fn object_at(address: usize) -> Option<(SizeClass, usize)> {
    let base = |region: usize| REGION[region].load(Acquire);
    let region = (0..REGIONS).find(|&region| {
        let base = base(region);
        base != 0 && address.wrapping_sub(base) < region_bytes(region)
    })?;
    let offset = address - base(region);
    let word = page_word(base(region) as *const Header, offset / PAGE_SIZE).load(Relaxed);
    let class = SizeClass::from_number(word as u8)?;
    let within = (word >> 8) as usize * PAGE_SIZE + offset % PAGE_SIZE;
    let index = class.info().index_of(within);
    (index < class.info().objects as usize).then_some((class, within - index * class.size()))
}

/// A large block that reads as zero. `None` if the kernel has no memory, or there are too many.
pub fn allocate_large(layout: Layout) -> Option<NonNull<u8>> {
    let bytes = layout.size().checked_next_multiple_of(PAGE_SIZE)?.max(PAGE_SIZE);
    let start = map(bytes, layout.align().max(PAGE_SIZE))?;
    let slot = slots(start.as_ptr() as usize)
        .find(|slot| slot.address.compare_exchange(FREE_SLOT, CLAIMED_SLOT, Acquire, Relaxed).is_ok());
    let Some(slot) = slot else {
        // SAFETY: ours, and nobody has seen it.
        unsafe { os::unmap(start, bytes) };
        return None;
    };
    LARGE_BYTES.fetch_add(bytes, Relaxed);
    slot.bytes.store(bytes, Relaxed);
    slot.address.store(start.as_ptr() as usize, Release); // pairs with `large_at`
    Some(start)
}

/// A large block for an operation of this thread that went without a lock. `None` if none did.
pub fn allocate_large_for_want_of_lock(layout: Layout) -> Option<NonNull<u8>> {
    if this_thread::went_without() { allocate_large(layout) } else { None }
}

/// Where the block at `address` may be noted.
fn slots(address: usize) -> impl Iterator<Item = &'static Large> {
    let first = (address / PAGE_SIZE).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40; // Fibonacci hashing
    (first..first + PROBES).map(|slot| &LARGE[slot % LARGE_SLOTS])
}

/// Bytes of the large block from here that begins at `address`.
pub fn large_at(address: usize) -> Option<usize> {
    if address <= CLAIMED_SLOT {
        return None;
    }
    let slot = slots(address).find(|slot| slot.address.load(Acquire) == address)?;
    Some(slot.bytes.load(Relaxed))
}

/// Unmaps the large block that begins at `address`. False if there is none.
///
/// # Safety
///
/// * If there is such a block, nobody uses it any more.
pub unsafe fn free_large(address: usize) -> bool {
    let Some(slot) = slots(address).find(|slot| address > CLAIMED_SLOT && slot.address.load(Acquire) == address) else {
        return false;
    };
    let bytes = slot.bytes.load(Relaxed);
    let freed = slot.address.compare_exchange(address, FREE_SLOT, Acquire, Relaxed).is_ok();
    if let (true, Some(start)) = (freed, NonNull::new(address as *mut u8)) {
        LARGE_BYTES.fetch_sub(bytes, Relaxed);
        // SAFETY: by our own contract; one thread found it noted.
        unsafe { os::unmap(start, bytes) };
    }
    freed
}

/// Keeps a freed block for a slow path that can wait.
///
/// # Safety
///
/// * The block is this allocator's, at least a word long, aligned to one, and nobody's any more.
pub unsafe fn defer(block: NonNull<u8>) {
    let mut last = DEFERRED.load(Relaxed);
    loop {
        // SAFETY: by our own contract.
        unsafe { block.cast::<*mut u8>().write(last) };
        // Release pairs with the acquire in `take_deferred`.
        match DEFERRED.compare_exchange_weak(last, block.as_ptr(), Release, Relaxed) {
            Ok(_) => return,
            Err(now) => last = now,
        }
    }
}

/// As [`defer`], for many, by an operation that went without a lock.
///
/// # Safety
///
/// * As for [`defer`].
pub unsafe fn defer_all(blocks: &[*mut u8]) {
    for block in blocks.iter().filter_map(|block| NonNull::new(*block)) {
        // SAFETY: by our own contract.
        unsafe { defer(block) };
    }
    this_thread::went_without(); // and is done
}

/// Whether blocks are kept that were freed.
#[inline]
pub fn has_deferred() -> bool {
    !DEFERRED.load(Relaxed).is_null() // a hint
}

/// Takes all blocks that were freed where no lock could be waited for.
pub fn take_deferred() -> impl Iterator<Item = NonNull<u8>> {
    let mut next = DEFERRED.swap(ptr::null_mut(), Acquire);
    core::iter::from_fn(move || {
        let block = NonNull::new(next)?;
        // SAFETY: `defer` wrote the word, and the blocks are ours since the exchange.
        next = unsafe { block.cast::<*mut u8>().read() };
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::HashSet;
    use std::vec::Vec;

    #[test]
    fn objects_are_apart_and_known_by_any_address_in_them() {
        for class in [SizeClass::from_index(0), SizeClass::from_index(CLASSES / 2), SizeClass::from_index(CLASSES - 1)]
        {
            let before = totals(class).made;
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    std::thread::spawn(move || {
                        (0..700).map(|_| allocate(class).expect("memory").addr().get()).collect::<Vec<_>>()
                    })
                })
                .collect();
            let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
            all.sort_unstable();
            assert!(
                all.windows(2).all(|pair| pair[0] + class.size() <= pair[1]),
                "objects of {} overlap",
                class.size()
            );
            for address in all {
                assert_eq!(object_at(address), Some((class, 0)));
                assert_eq!(object_at(address + class.size() - 1), Some((class, class.size() - 1)));
            }
            assert_eq!(totals(class).made - before, 2800);
        }
        assert_eq!(object_at(&raw const ORPHANED as usize), None);
    }

    #[test]
    fn large_blocks_come_and_go() {
        let layouts = [(1 << 20, 8), (100, 1 << 21), (70_000, 1 << 16)];
        for (size, align) in layouts {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let block = allocate_large(layout).expect("memory");
            assert!(block.addr().get().is_multiple_of(align));
            let bytes = large_at(block.addr().get()).expect("noted");
            assert!(bytes >= size);
            // SAFETY: ours, and that long.
            unsafe { block.write_bytes(7, bytes) };
            // SAFETY: as above, and not used again.
            assert!(unsafe { free_large(block.addr().get()) });
            assert_eq!(large_at(block.addr().get()), None);
            // SAFETY: there is no such block.
            assert!(!unsafe { free_large(block.addr().get()) });
        }
        assert_eq!((large_at(FREE_SLOT), large_at(CLAIMED_SLOT)), (None, None));
    }

    #[test]
    fn deferred_blocks_are_found_once() {
        let class = SizeClass::from_index(3);
        let deferred: HashSet<_> = (0..500).map(|_| allocate(class).expect("memory")).collect();
        // SAFETY: ours.
        deferred.iter().for_each(|block| unsafe { defer(*block) });
        assert!(has_deferred());
        let found: Vec<_> = take_deferred().collect();
        assert_eq!(found.len(), 500);
        assert_eq!(found.into_iter().collect::<HashSet<_>>(), deferred);
        assert!(!has_deferred());
    }
}
