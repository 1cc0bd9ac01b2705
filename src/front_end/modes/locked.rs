//! Caches with a lock, by a hash of the thread or by the CPU: plain loads and stores under it.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::Slab;

use crate::config::{MAX_SHARDS, SHARDS_PER_CPU};
use crate::decided;
use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{Fallback, FrontEnd, Held, Prepared};
use crate::front_end::lists::{Exclusive, Guarded};
use crate::front_end::registry;
use crate::front_end::thread::{self, home};
use crate::owner::Owner;
use crate::size_class::CLASSES;
use crate::sync::Mutex;
use crate::this_thread;

/// A fixed number of caches. A thread's is chosen by a hash of its id, and its home names it from then on.
pub enum Sharded {}

impl FrontEnd for Sharded {
    type Lists = Locked;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Shard);
    const LENDS: bool = true;

    fn rows() -> usize {
        if SHARDS.load(Relaxed) == 0 {
            SHARDS.store((rseq::kernel::possible_cpus() * SHARDS_PER_CPU).min(MAX_SHARDS), Relaxed);
        }
        SHARDS.load(Relaxed)
    }

    #[inline]
    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        if let Some(cache) = thread::cache(home()) {
            return Some((cache, Locked(cache)));
        }
        let cache = registry::indexed_cache(shard_of(this_thread::kernel_number()), |_| ())?;
        home().set(&cache.slab);
        Some((cache, Locked(cache)))
    }

    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        seize(held, f);
    }
}

/// Slots of the mode `sharded`; 0 before that is decided.
static SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_SHARDS` says so.
pub fn set_shards(shards: usize) {
    SHARDS.store(shards, Relaxed);
}

/// The slot of the thread with this id.
fn shard_of(thread: u32) -> u32 {
    // Fibonacci hashing: threads made one after the other are spread, as their ids follow each other.
    let hash = thread.wrapping_mul(0x9e37_79b1);
    ((u64::from(hash) * SHARDS.load(Relaxed) as u64) >> 32) as u32
}

/// The cache of the CPU that the thread is on, as far as one can know: it may be moved before it has the lock.
pub enum PerCpuLock {}

impl FrontEnd for PerCpuLock {
    type Lists = Locked;

    const OWNER: Option<fn(u32) -> Owner> = Some(Owner::Cpu);
    const LENDS: bool = true;

    /// Where the kernel keeps the CPU's number in an rseq area, it is read from there.
    fn prepare() -> Result<Prepared, Fallback> {
        Ok(Prepared { registration: rseq::probe().ok(), ..Prepared::OUT_OF_LINE })
    }

    #[inline]
    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        registry::indexed_cache(decided::current_cpu(), |_| ()).map(|cache| (cache, Locked(cache)))
    }

    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
        seize(held, f);
    }
}

fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {
    for (cache, mut shape) in held.iter_mut().filter_map(Option::take) {
        let Some(_locked) = cache.lists.lock_unless_orphaned() else { continue };
        // SAFETY: the lists are locked.
        f(cache, unsafe { Exclusive::new(&cache.slab) }, &mut shape);
    }
}

/// Lists of a cache, under its lock.
#[derive(Clone, Copy)]
pub struct Locked(&'static Cache);

impl Guarded for Locked {
    #[inline(always)]
    fn slab(self) -> &'static Slab<CLASSES> {
        &self.0.slab
    }
    #[inline(always)]
    fn guard(self) -> Option<impl Sized> {
        let lock: &'static Mutex<()> = &self.0.lists;
        lock.lock_unless_forking()
    }
}
