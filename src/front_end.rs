//! Which cache a thread uses, and how its lists are changed: the only difference between the modes.
//!
//! ```text
//! mode              cache found by              lists changed by             others may take a cache
//! percpu            cpu_id                      restartable sequences        by a stop and a fence
//! percpu-mmcid      mm_cid                      restartable sequences        by a stop and a fence
//! perthread         a word in TLS               plain loads and stores       never
//! perthread-drain   a word in TLS               the same, inside a gate      by closing the gate and a fence
//! sharded           a hash of the thread id     the same, under a lock       by the lock
//! percpu-lock       cpu_id, or getcpu           the same, under a lock       by the lock
//! central           none                        -                            -
//! ```
//!
//! One word, [`FRONT`], says which: the fast path loads it, and in the per-CPU modes it is also where the
//! thread's rseq area is. Every thread has one word of TLS, the cell, that names the slab it used last; in a per-CPU
//! mode a sequence checks that it still is the right one. A thread that has none yet is at [`NO_SLAB`], whose lists are
//! empty, full and nobody's.
//!
//! # What choosing at run time costs
//!
//! Per operation, beside what the mode itself does:
//!
//! * `percpu`: a load and a branch that is predicted; `percpu-mmcid` and `perthread`: a branch more.
//! * `perthread-drain`: its threads' cells stay at [`NO_SLAB`] for ever, so that inlined code finds nothing there, as
//!   little as in an empty list, and goes to the slow path, which looks for this mode first. That is a call and
//!   some ten instructions, beside the six of the gate.
//! * `sharded`, `percpu-lock` and `central`: the same, and then the whole slow path: three calls and some forty
//!   instructions, beside the two atomic operations of a lock.
//!
//! So no code of a mode that is compared stands in the way of the first three.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use rseq::sequence::{self, Miss};
use rseq::slab::Slot;
use rseq::{CpuId, Handle, Index, MmCid, Slab, local};

use crate::back_end::BACK_END;
use crate::cache::Cache;
use crate::gate::Gate;
use crate::mode::Mode;
use crate::process;
use crate::registry;
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;

/// A handle of rseq for the per-CPU modes, [`front_word`] for the others, 0 before the process's mode is decided. Set
/// once. Every operation reads it, so it shares its line with nothing.
pub static FRONT: Padded<AtomicIsize> = Padded(AtomicIsize::new(0));

/// Lists that are nobody's. What a cache begins with, so that the fast paths need not tell them from one.
#[repr(C)]
struct NoCache {
    slab: Slab<CLASSES>,
    gate: Gate,
}

/// Where threads begin.
static NO_SLAB: NoCache = NoCache { slab: Slab::new(), gate: Gate::new() };
/// Where threads end: their cache is gone, and they get no other.
static EXITED: NoCache = NoCache { slab: Slab::new(), gate: Gate::new() };

rseq::thread_cell! {
    /// Names the slab the calling thread used last, in the modes whose fast path is inlined.
    pub fn cell() -> "perseq_cell": CLASSES, NO_SLAB
}

rseq::thread_cell! {
    /// Names the calling thread's slab in the other modes, where it has one.
    fn home() -> "perseq_home": CLASSES, NO_SLAB
}

/// A free object of `class` from the calling thread's cache, if it is there and has one.
#[inline(always)]
pub fn pop(class: SizeClass) -> Option<NonNull<u8>> {
    let front = FRONT.load(Relaxed); // set once; nothing else is read through it
    let list = class.index();
    // SAFETY: `FRONT` is a handle for the index its tag names, slabs keep their invariants, and a list is a class.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            sequence::pop::<CpuId, CLASSES>(handle, cell(), list).ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            sequence::pop::<MmCid, CLASSES>(handle, cell(), list).ok()
        } else {
            local::pop(cell().get(), list)
        }
    }
}

/// Puts a free object of `class` into the calling thread's cache; false if it is elsewhere or full.
///
/// # Safety
///
/// * `object` is of `class` and belongs to nobody.
#[inline(always)]
pub unsafe fn push(class: SizeClass, object: NonNull<u8>) -> bool {
    let front = FRONT.load(Relaxed); // as in `pop`
    let list = class.index();
    // SAFETY: as in `pop`; objects are at least 8-aligned, so even.
    unsafe {
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            sequence::push::<CpuId, CLASSES>(handle, cell(), list, object).is_ok()
        } else if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            sequence::push::<MmCid, CLASSES>(handle, cell(), list, object).is_ok()
        } else {
            local::push(cell().get(), list, object)
        }
    }
}

/// [`pop`] in `perthread-drain`, where that finds nothing; `None` in the other modes.
#[inline(always)]
pub fn pop_gated(class: SizeClass) -> Option<NonNull<u8>> {
    if FRONT.load(Relaxed) != front_word(Mode::PerThreadDrain) {
        return None;
    }
    let slab = home().get();
    let _inside = gate_of(slab).enter()?;
    // SAFETY: the slab is this thread's or nobody's, and no other thread is inside; a list is a class.
    unsafe { local::pop(slab, class.index()) }
}

/// [`push`] in `perthread-drain`, where that does nothing; false in the other modes.
///
/// # Safety
///
/// * As for [`push`].
#[inline(always)]
pub unsafe fn push_gated(class: SizeClass, object: NonNull<u8>) -> bool {
    if FRONT.load(Relaxed) != front_word(Mode::PerThreadDrain) {
        return false;
    }
    let slab = home().get();
    // SAFETY: as in `pop_gated`; objects are even.
    gate_of(slab).enter().is_some_and(|_inside| unsafe { local::push(slab, class.index(), object) })
}

/// What `FRONT` says in a mode without a handle: a handle's tags are 0.
pub const fn front_word(mode: Mode) -> isize {
    (mode as isize + 1) << 2
}

/// What `FRONT` says, taken apart.
#[derive(Clone, Copy)]
pub enum Way {
    Undecided,
    Cpu(Handle),
    Cid(Handle),
    Thread,
    GatedThread,
    Shard,
    LockedCpu,
    Uncached,
}

impl Way {
    /// The way of this process.
    #[inline]
    pub fn now() -> Way {
        let front = FRONT.load(Relaxed); // as in `pop`
        if let Some(handle) = Handle::from_bits::<CpuId>(front) {
            return Way::Cpu(handle);
        }
        if let Some(handle) = Handle::from_bits::<MmCid>(front) {
            return Way::Cid(handle);
        }
        match Mode::ALL.get((front as usize >> 2).wrapping_sub(1)) {
            Some(Mode::PerThread) => Way::Thread,
            Some(Mode::PerThreadDrain) => Way::GatedThread,
            Some(Mode::Sharded) => Way::Shard,
            Some(Mode::PerCpuLock) => Way::LockedCpu,
            Some(Mode::Central) => Way::Uncached,
            _ => Way::Undecided,
        }
    }

    /// Threads have caches of their own.
    pub fn caches_threads(self) -> bool {
        matches!(self, Way::Thread | Way::GatedThread)
    }

    /// A thread can take lists of a cache that is another's.
    pub fn reclaims(self) -> bool {
        matches!(self, Way::Cpu(_) | Way::Cid(_) | Way::GatedThread | Way::Shard | Way::LockedCpu)
    }
}

/// Goes on where [`pop`] failed. `None` if memory is exhausted.
pub fn pop_slow(class: SizeClass) -> Option<NonNull<u8>> {
    match Way::now() {
        Way::Cpu(handle) => pop_with(|| ByIndex::<CpuId>::locate(handle), class),
        Way::Cid(handle) => pop_with(|| ByIndex::<MmCid>::locate(handle), class),
        Way::Thread => pop_with(ByThread::locate, class),
        Way::GatedThread => pop_with(Gated::locate, class),
        Way::Shard => pop_with(Locked::locate_shard, class),
        Way::LockedCpu => pop_with(Locked::locate_cpu, class),
        Way::Uncached | Way::Undecided => pop_uncached(class),
    }
}

/// Goes on where [`push`] failed.
///
/// # Safety
///
/// * As for [`push`].
#[inline(never)] // so that `perthread-drain` does not save its registers
pub unsafe fn push_slow(class: SizeClass, object: NonNull<u8>) {
    // SAFETY: by our own contract.
    unsafe {
        match Way::now() {
            Way::Cpu(handle) => push_with(|| ByIndex::<CpuId>::locate(handle), class, object),
            Way::Cid(handle) => push_with(|| ByIndex::<MmCid>::locate(handle), class, object),
            Way::Thread => push_with(ByThread::locate, class, object),
            Way::GatedThread => push_with(Gated::locate, class, object),
            Way::Shard => push_with(Locked::locate_shard, class, object),
            Way::LockedCpu => push_with(Locked::locate_cpu, class, object),
            Way::Uncached | Way::Undecided => push_uncached(class, object),
        }
    }
}

/// Times a thread looks for its cache before it goes past it. A cache it was moved away from twice in a
/// row, or that is stopped, is not worth waiting for.
const TRIES: usize = 3;

#[inline(never)] // so that a mode does not save another's registers
fn pop_with<F: Front>(locate: impl Fn() -> Option<F>, class: SizeClass) -> Option<NonNull<u8>> {
    for _ in 0..TRIES {
        let Some(front) = locate() else { break };
        // SAFETY: `locate` found a cache with our lists.
        match unsafe { front.pop(class.index()) } {
            Ok(object) => return Some(object),
            Err(Miss::Unfit) => return front.cache().refill(front, class),
            Err(Miss::Moved) => {}
        }
    }
    pop_uncached(class)
}

#[inline(never)] // as `pop_with`
unsafe fn push_with<F: Front>(locate: impl Fn() -> Option<F>, class: SizeClass, object: NonNull<u8>) {
    for _ in 0..TRIES {
        let Some(front) = locate() else { break };
        // SAFETY: as in `pop_with`; the object is free, by our own contract.
        match unsafe { front.push(class.index(), object) } {
            Ok(()) => return,
            Err(Miss::Unfit) => return front.cache().flush(front, class, object),
            Err(Miss::Moved) => {}
        }
    }
    push_uncached(class, object);
}

fn pop_uncached(class: SizeClass) -> Option<NonNull<u8>> {
    BACK_END.middle(class).remove_uncached().and_then(NonNull::new)
}

fn push_uncached(class: SizeClass, object: NonNull<u8>) {
    BACK_END.middle(class).insert_uncached(object.as_ptr());
}

/// How lists of a cache that was found are changed.
///
/// Each operation is whole to everybody else, or [`Miss::Moved`] and not done. The contracts are those of
/// [`rseq::sequence`].
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub trait Front: Copy {
    fn cache(self) -> &'static Cache;
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss>;
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss>;
}

/// By the kernel's index `I`, in sequences.
#[derive(Clone, Copy)]
struct ByIndex<I> {
    handle: Handle,
    cache: &'static Cache,
    _index: PhantomData<I>,
}

impl<I: Index> ByIndex<I> {
    /// Names the cache of the present index in the cell.
    fn locate(handle: Handle) -> Option<Self> {
        process::ensure_thread().ok()?;
        // SAFETY: the handle is the process's own.
        let index = unsafe { handle.index::<I>() };
        // SAFETY: the cache is new and never moves, its lists have no arrays, and `index`, which is below the number of
        // rows, has no other cache.
        let cache = registry::indexed_cache(index, |cache| unsafe { cache.slab.start::<I>(index) })?;
        if !ptr::eq(cell().get(), &cache.slab) {
            cell().set(&cache.slab);
            cache.counts.arrivals.fetch_add(1, Relaxed);
        }
        Some(ByIndex { handle, cache, _index: PhantomData })
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract to the sequence of its name
impl<I: Index> Front for ByIndex<I> {
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
trait Guarded: Copy {
    fn cache(self) -> &'static Cache;
    fn guard(self) -> Option<impl Sized>;
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract; the guard keeps others off the slab
impl<G: Guarded> Front for G {
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
struct ByThread(&'static Cache);

impl ByThread {
    fn locate() -> Option<Self> {
        thread_cache(cell()).map(ByThread)
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
struct Gated(&'static Cache);

impl Gated {
    #[inline]
    fn locate() -> Option<Self> {
        thread_cache(home()).map(Gated)
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
struct Locked(&'static Cache);

impl Locked {
    /// The cache of the thread's slot.
    #[inline]
    fn locate_shard() -> Option<Self> {
        let slab = home().get();
        if ptr::eq(slab, &NO_SLAB.slab) {
            let cache = registry::indexed_cache(process::shard_of(registry::thread_id()), |_| ())?;
            home().set(&cache.slab);
            return Some(Locked(cache));
        }
        Some(Locked(cache_of(slab)))
    }

    /// The cache of the CPU the thread is on, as far as one can know.
    #[inline]
    fn locate_cpu() -> Option<Self> {
        registry::indexed_cache(process::current_cpu(), |_| ()).map(Locked)
    }
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

/// The thread's cache that `word` names, made if there is none. `None` if the thread is ending or memory is exhausted.
#[inline]
fn thread_cache(word: sequence::ThreadCell<CLASSES>) -> Option<&'static Cache> {
    let slab = word.get();
    if ptr::eq(slab, &NO_SLAB.slab) {
        return first_thread_cache(word);
    }
    (!ptr::eq(slab, &EXITED.slab)).then(|| cache_of(slab))
}

#[cold]
fn first_thread_cache(word: sequence::ThreadCell<CLASSES>) -> Option<&'static Cache> {
    let cache = registry::thread_cache()?;
    word.set(&cache.slab);
    // May allocate, and so come back here: the word is set. If it fails, the cache is never given back.
    process::notice_exit();
    Some(cache)
}

/// The word that names the calling thread's own cache.
fn own_word() -> sequence::ThreadCell<CLASSES> {
    if matches!(Way::now(), Way::GatedThread) { home() } else { cell() }
}

/// The calling thread's own cache, if it has one, in a mode that gives it one.
pub fn own_thread_cache() -> Option<&'static Cache> {
    let slab = own_word().get();
    (!ptr::eq(slab, &EXITED.slab) && !ptr::eq(slab, &NO_SLAB.slab)).then(|| cache_of(slab))
}

/// The calling thread gets no cache any more.
pub fn retire_thread() {
    own_word().set(&EXITED.slab);
}

/// The gate behind `slab`, which a word of a thread names.
#[inline(always)]
fn gate_of(slab: &'static Slab<CLASSES>) -> &'static Gate {
    const { assert!(core::mem::offset_of!(Cache, gate) == core::mem::offset_of!(NoCache, gate)) };
    // SAFETY: every slab that a thread's word names is the first field of a cache or of a `NoCache`.
    unsafe { &(*ptr::from_ref(slab).cast::<NoCache>()).gate }
}

/// The cache that begins with `slab`.
#[inline]
fn cache_of(slab: &'static Slab<CLASSES>) -> &'static Cache {
    const { assert!(core::mem::offset_of!(Cache, slab) == 0) };
    // SAFETY: every slab but the two statics, which callers excluded, is the first field of a cache.
    unsafe { &*ptr::from_ref(slab).cast::<Cache>() }
}
