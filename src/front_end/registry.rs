//! All caches of the process: made on first use, never unmapped, found by index or through the list of all.

use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::front_end::budget;
use crate::front_end::cache::Cache;
use crate::lock_order::Rank;
use crate::message::law;
use crate::middle::back_end::BACK_END;
use crate::os;
use crate::place::Place;
use crate::sync::Mutex;
use crate::this_thread;

/// `AtomicPtr<Cache>` for each index the kernel can give.
static ROWS: AtomicPtr<AtomicPtr<Cache>> = AtomicPtr::new(ptr::null_mut());
static ROW_COUNT: AtomicUsize = AtomicUsize::new(0);
/// The newest cache, linked by `next`. Grows only.
static ALL: AtomicPtr<Cache> = AtomicPtr::new(ptr::null_mut());
static STATE: Mutex<State> = Mutex::new(Rank::Registry, State { spare: ptr::null_mut(), in_use: 0, made: 0 });

struct State {
    /// Caches of threads that ended, linked by `next_spare`.
    spare: *mut Cache,
    /// Caches that have an owner.
    in_use: usize,
    /// Caches there are.
    made: usize,
}

// SAFETY: caches live for ever, and the list belongs to the lock.
unsafe impl Send for State {}

/// Makes the table for indices below `rows`, unless it is made. False if there is no memory.
pub fn initialize(rows: usize) -> bool {
    if ROW_COUNT.load(Relaxed) != 0 {
        return true;
    }
    let bytes = rows * size_of::<AtomicPtr<Cache>>();
    let Some(table) = BACK_END.tables().allocate(bytes, align_of::<AtomicPtr<Cache>>()) else { return false };
    ROWS.store(table.as_ptr().cast(), Relaxed);
    ROW_COUNT.store(rows, Release); // pairs with `indexed_cache`
    true
}

/// The cache of a CPU, concurrency id or slot; a new one goes through `start` before others see it. `None` if the table
/// has no such row (a thread that is not registered has index -1), or if there is no memory.
#[inline]
pub fn indexed_cache(index: u32, start: impl FnOnce(&Cache)) -> Option<&'static Cache> {
    if index as usize >= ROW_COUNT.load(Acquire) {
        return None;
    }
    // SAFETY: the table has `ROW_COUNT` rows; zero is a null pointer.
    let row = unsafe { &*ROWS.load(Relaxed).add(index as usize) };
    // SAFETY: a row is null or names a cache, which lives for ever.
    match unsafe { row.load(Acquire).as_ref() } {
        Some(cache) => Some(cache),
        None => add_indexed(row, index, start),
    }
}

#[cold]
fn add_indexed(row: &AtomicPtr<Cache>, index: u32, start: impl FnOnce(&Cache)) -> Option<&'static Cache> {
    let mut state = STATE.lock_unless_forking()?;
    // SAFETY: as in `indexed_cache`; somebody may have been faster.
    if let Some(cache) = unsafe { row.load(Acquire).as_ref() } {
        return Some(cache);
    }
    let cache = state.make()?;
    state.give(cache, index);
    start(cache);
    row.store(ptr::from_ref(cache).cast_mut(), Release);
    Some(cache)
}

/// A cache for the calling thread.
pub fn thread_cache() -> Option<&'static Cache> {
    let mut state = STATE.lock_unless_forking()?;
    // SAFETY: a spare cache lives for ever and is nobody's.
    let cache = match unsafe { state.spare.as_ref() } {
        Some(cache) => {
            state.spare = cache.next_spare.load(Relaxed);
            cache
        }
        None => state.make()?,
    };
    state.give(cache, this_thread::kernel_number());
    Some(cache)
}

/// Takes back an empty cache whose thread ended.
pub fn retire(cache: &'static Cache) {
    law!(cache.in_use.load(Relaxed), "retired: a cache is given up once, by who has it");
    law!(cache.capacity_bytes() == 0, "retired: a spare cache has no arrays, so no objects");
    let Some(mut state) = STATE.lock_unless_orphaned() else { return };
    cache.in_use.store(false, Relaxed);
    cache.next_spare.store(state.spare, Relaxed);
    state.spare = ptr::from_ref(cache).cast_mut();
    state.in_use -= 1;
    budget::divide_among(state.in_use.max(1));
}

impl State {
    fn give(&mut self, cache: &Cache, owner: u32) {
        law!(!cache.in_use.load(Relaxed), "retired: a cache that is given to somebody has no owner");
        cache.owner.store(owner, Relaxed);
        cache.in_use.store(true, Relaxed);
        self.in_use += 1;
        budget::divide_among(self.in_use);
    }

    /// A new cache on pages of its own, first touched by its first user: so it is that CPU's node's.
    fn make(&mut self) -> Option<&'static Cache> {
        let page = os::page_size();
        let memory: NonNull<u8> = BACK_END.tables().allocate(size_of::<Cache>().next_multiple_of(page), page)?;
        // SAFETY: new, zeroed, large enough, and never given back.
        let cache = unsafe { Cache::initialize(memory) };
        cache.next.store(ALL.load(Relaxed), Relaxed);
        ALL.store(ptr::from_ref(cache).cast_mut(), Release); // pairs with `all`; writers hold the lock
        self.made += 1;
        Some(cache)
    }
}

/// Every cache ever made.
pub fn all() -> impl Iterator<Item = &'static Cache> {
    // SAFETY: the list holds caches, which live for ever.
    let first = unsafe { ALL.load(Acquire).as_ref() };
    // SAFETY: as above.
    core::iter::successors(first, |cache| unsafe { cache.next.load(Relaxed).as_ref() })
}

/// Where the word is that names the newest cache.
pub const fn newest() -> Place {
    Place::of(&raw const ALL)
}

/// Where the words are that name the table of indices and say how many rows it has.
pub const fn rows() -> Place {
    Place::of(&raw const ROWS)
}

/// See [`rows`].
pub const fn row_count() -> Place {
    Place::of(&raw const ROW_COUNT)
}

/// Counts the caches, those with an owner and those without.
#[cfg(debug_assertions)]
pub fn check() {
    let state = STATE.lock();
    law!(all().count() == state.made, "listed: every cache is on the list of all");
    let owned = all().filter(|cache| cache.in_use.load(Relaxed)).count();
    law!(owned == state.in_use, "counted: so many caches have an owner");
    let (mut spare, mut seen) = (state.spare, 0);
    // SAFETY: null, or a cache, which lives for ever.
    while let Some(cache) = unsafe { spare.as_ref() } {
        law!(!cache.in_use.load(Relaxed), "retired: a spare cache has no owner");
        law!(cache.capacity_bytes() == 0, "retired: a spare cache has no arrays, so no objects");
        law!(seen < state.made, "retired: the list of spare caches is no circle");
        (spare, seen) = (cache.next_spare.load(Relaxed), seen + 1);
    }
    law!(seen + owned == state.made, "retired: a cache has an owner or is spare");
}

pub(crate) fn mutex() -> &'static Mutex<impl Sized> {
    &STATE
}
