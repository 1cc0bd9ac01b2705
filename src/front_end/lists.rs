//! How each mode finds the calling thread's cache and changes its lists: a [`Lists`] for each way. This, and the inlined
//! copies of it in `front_end`, is all that the modes differ in.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::sequence::{self, Miss};
use rseq::slab::Slot;
use rseq::{Handle, Index, local};

use crate::config::{MAX_SHARDS, SHARDS_PER_CPU};
use crate::decided;
use crate::front_end::cache::Cache;
use crate::front_end::registry;
use crate::front_end::thread::{self, cell, home};
use crate::size_class::CLASSES;

/// How lists of a cache that was found are changed.
///
/// Each operation is whole to everybody else, or [`Miss::Moved`] and not done. The contracts are those of
/// [`rseq::sequence`].
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub trait Lists: Copy {
    fn cache(self) -> &'static Cache;
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss>;
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss>;
}

/// By the kernel's index `I`, in sequences.
#[derive(Clone, Copy)]
pub struct ByIndex<I> {
    handle: Handle,
    cache: &'static Cache,
    _index: PhantomData<I>,
}

impl<I: Index> ByIndex<I> {
    /// Names the cache of the present index in the cell. `None` as well in a child process that runs on this thread's TLS,
    /// where the area says on which CPU the parent was and nobody is aborted.
    pub fn locate(handle: Handle) -> Option<Self> {
        if thread::is_lent() {
            return None;
        }
        decided::ensure_thread().ok()?;
        // SAFETY: the handle is the process's own.
        let index = unsafe { handle.index::<I>() };
        // SAFETY: the cache is new and never moves, its lists have no arrays, and `index`, which is below the number of
        // rows, has no other cache.
        let cache = registry::indexed_cache(index, |cache| unsafe { cache.slab.start::<I>(index) })?;
        if !ptr::eq(cell().get(), &cache.slab) {
            cell().set(&cache.slab);
            cache.arrivals.fetch_add(1, Relaxed);
        }
        Some(ByIndex { handle, cache, _index: PhantomData })
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract to the sequence of its name
impl<I: Index> Lists for ByIndex<I> {
    fn cache(self) -> &'static Cache {
        self.cache
    }
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        unsafe { sequence::pop::<I, CLASSES>(self.handle, cell(), list) }
    }
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        unsafe { sequence::push::<I, CLASSES>(self.handle, cell(), list, object) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::pop_batch::<I, CLASSES>(self.handle, cell(), list, objects) }
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::push_batch::<I, CLASSES>(self.handle, cell(), list, objects) }
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        unsafe { sequence::replace::<I, CLASSES>(self.handle, cell(), list, expected, new) }
    }
}

/// By whatever keeps everybody else off the lists: plain loads and stores inside it. `None`: not now.
pub trait Guarded: Copy {
    fn cache(self) -> &'static Cache;
    fn guard(self) -> Option<impl Sized>;
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract; the guard keeps others off the slab
impl<G: Guarded> Lists for G {
    fn cache(self) -> &'static Cache {
        Guarded::cache(self)
    }
    #[inline]
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        unsafe { local::pop(&Guarded::cache(self).slab, list) }.ok_or(Miss::Unfit)
    }
    #[inline]
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        if unsafe { local::push(&Guarded::cache(self).slab, list, object) } { Ok(()) } else { Err(Miss::Unfit) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        Ok(unsafe { local::pop_batch(&Guarded::cache(self).slab, list, objects) })
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        Ok(unsafe { local::push_batch(&Guarded::cache(self).slab, list, objects) })
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        let Some(_guard) = self.guard() else { return Err(Miss::Moved) };
        let done = unsafe { local::replace(&Guarded::cache(self).slab, list, expected, new) };
        if done { Ok(()) } else { Err(Miss::Unfit) }
    }
}

/// The calling thread's own cache, which nobody else touches.
#[derive(Clone, Copy)]
pub struct ByThread(&'static Cache);

impl ByThread {
    pub fn locate() -> Option<Self> {
        thread::own_cache(cell()).map(ByThread)
    }
}

impl Guarded for ByThread {
    fn cache(self) -> &'static Cache {
        self.0
    }
    fn guard(self) -> Option<impl Sized> {
        Some(())
    }
}

/// The calling thread's own cache, which others may take while it is outside.
#[derive(Clone, Copy)]
pub struct Gated(&'static Cache);

impl Gated {
    #[inline]
    pub fn locate() -> Option<Self> {
        thread::own_cache(home()).map(Gated)
    }
}

impl Guarded for Gated {
    fn cache(self) -> &'static Cache {
        self.0
    }
    #[inline(always)]
    fn guard(self) -> Option<impl Sized> {
        self.0.gate.enter()
    }
}

/// A cache with a lock.
#[derive(Clone, Copy)]
pub struct Locked(&'static Cache);

impl Locked {
    /// The cache of the thread's slot.
    #[inline]
    pub fn locate_shard() -> Option<Self> {
        if let Some(cache) = thread::cache(home()) {
            return Some(Locked(cache));
        }
        let cache = registry::indexed_cache(shard_of(registry::thread_id()), |_| ())?;
        home().set(&cache.slab);
        Some(Locked(cache))
    }

    /// The cache of the CPU the thread is on, as far as one can know.
    #[inline]
    pub fn locate_cpu() -> Option<Self> {
        registry::indexed_cache(decided::current_cpu(), |_| ()).map(Locked)
    }
}

/// Slots of the mode `sharded`; 0 before that is decided.
static SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_SHARDS` says so.
pub fn set_shards(shards: usize) {
    SHARDS.store(shards, Relaxed);
}

/// Decides how many slots there are, unless it was said, and returns how many.
pub fn make_shards() -> usize {
    if SHARDS.load(Relaxed) == 0 {
        SHARDS.store((rseq::kernel::possible_cpus() * SHARDS_PER_CPU).min(MAX_SHARDS), Relaxed);
    }
    SHARDS.load(Relaxed)
}

/// The slot of the thread with this id. After [`make_shards`].
fn shard_of(thread: u32) -> u32 {
    // Fibonacci hashing: threads made one after the other are spread, as their ids follow each other.
    let hash = thread.wrapping_mul(0x9e37_79b1);
    ((u64::from(hash) * SHARDS.load(Relaxed) as u64) >> 32) as u32
}

impl Guarded for Locked {
    fn cache(self) -> &'static Cache {
        self.0
    }
    #[inline(always)]
    fn guard(self) -> Option<impl Sized> {
        Some(self.0.lists.lock())
    }
}

/// A cache that was taken from its owner.
#[derive(Clone, Copy)]
pub struct Exclusive(&'static Cache);

impl Exclusive {
    /// # Safety
    ///
    /// * While the value or a copy of it is used, nobody else changes the lists of `cache`.
    pub unsafe fn new(cache: &'static Cache) -> Self {
        Exclusive(cache)
    }
}

impl Guarded for Exclusive {
    fn cache(self) -> &'static Cache {
        self.0
    }
    fn guard(self) -> Option<impl Sized> {
        Some(())
    }
}
