//! One cache for each value of a number that the kernel keeps for the running thread, changed in restartable sequences.
//!
//! Another thread takes such a cache by stopping its slab: it says so in the slab, and after a fence no sequence that
//! began before is still under way.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::Relaxed;

use rseq::sequence::{self, Miss, ThreadCell};
use rseq::slab::Slot;
use rseq::{CpuId, Handle, Index, MmCid, Registration, Stopping, fence};

use crate::decided;
use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{Fallback, FrontEnd, Held, Prepared};
use crate::front_end::lists::{Exclusive, Lists};
use crate::front_end::registry;
use crate::front_end::thread;
use crate::mode::{Mode, Reason};
use crate::owner::Owner;
use crate::size_class::CLASSES;
use crate::way;

/// By the CPU.
pub enum PerCpu {}

impl FrontEnd for PerCpu {
    type Lists = InSequences<CpuId>;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Cpu);
    const SEQUENCES: bool = true;
    const LENDS: bool = true;

    fn prepare() -> Result<Prepared, Fallback> {
        prepare::<CpuId>(|_| Ok(()))
    }

    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        locate()
    }

    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        seize(held, f);
    }
}

/// By the concurrency id.
pub enum PerCpuMmCid {}

impl FrontEnd for PerCpuMmCid {
    type Lists = InSequences<MmCid>;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Cid);
    const SEQUENCES: bool = true;
    const LENDS: bool = true;

    fn prepare() -> Result<Prepared, Fallback> {
        prepare::<MmCid>(|found| match found.has_mm_cid() {
            true => Ok(()),
            false => Err(Fallback(Mode::PerCpu, Reason::NoMmCid)),
        })
    }

    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        locate()
    }

    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        seize(held, f);
    }
}

fn prepare<I: Index>(check: impl FnOnce(&Registration) -> Result<(), Fallback>) -> Result<Prepared, Fallback> {
    let found = rseq::probe().map_err(|why| Fallback(Mode::PerThread, Reason::NoRseq(why)))?;
    fence::register().map_err(|errno| Fallback(Mode::PerThread, Reason::NoFence(errno)))?;
    check(&found)?;
    Ok(Prepared { registration: Some(found), word: found.handle::<I>().to_bits() })
}

/// Names the cache of the present index in the cell. `None` as well in a child process that runs on this thread's TLS,
/// where the area says on which CPU the parent was and nobody is aborted.
fn locate<I: Index>() -> Option<(&'static Cache, InSequences<I>)> {
    if thread::is_lent() {
        return None;
    }
    let handle = Handle::from_bits::<I>(way::behind())?;
    decided::ensure_thread().ok()?;
    // SAFETY: the handle is the process's own.
    let index = unsafe { handle.index::<I>() };
    // SAFETY: the cache is new and never moves, its lists have no arrays, and `index`, which is below the number of
    // rows, has no other cache.
    let cache = registry::indexed_cache(index, |cache| unsafe { cache.slab.start::<I>(index) })?;
    let cell = thread::front();
    if !ptr::eq(cell.get(), &cache.slab) {
        cell.set(&cache.slab);
        cache.arrivals.fetch_add(1, Relaxed);
    }
    Some((cache, InSequences { handle, cell, index: PhantomData }))
}

fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
    let mut stopping = Stopping::new();
    for (cache, _) in held.iter().flatten() {
        // Nobody else stops slabs, so none is held; one that was not started has nothing to take.
        _ = stopping.add(&cache.slab);
    }
    // The kernel granted fences at the start. If it refuses one now, the caches go on, full as they are.
    let Ok(stopped) = stopping.fence() else { return };
    for stopped in stopped {
        let is_it = |(cache, _): &mut (&Cache, _)| ptr::eq(&cache.slab, stopped.slab());
        if let Some((cache, mut shape)) = held.iter_mut().find_map(|place| place.take_if(is_it)) {
            // SAFETY: the slab is stopped until `stopped` is dropped, after this.
            f(cache, unsafe { Exclusive::new(&cache.slab) }, &mut shape);
        }
    }
}

/// Lists of the slab that the thread's word names, in sequences that look whether it still is the present index's.
#[derive(Clone, Copy)]
pub struct InSequences<I> {
    handle: Handle,
    cell: ThreadCell<CLASSES>,
    index: PhantomData<I>,
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract to the sequence of its name
impl<I: Index> Lists for InSequences<I> {
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        unsafe { sequence::pop::<I, CLASSES>(self.handle, self.cell, list) }
    }
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        unsafe { sequence::push::<I, CLASSES>(self.handle, self.cell, list, object) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::pop_batch::<I, CLASSES>(self.handle, self.cell, list, objects) }
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        unsafe { sequence::push_batch::<I, CLASSES>(self.handle, self.cell, list, objects) }
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        unsafe { sequence::replace::<I, CLASSES>(self.handle, self.cell, list, expected, new) }
    }
}
