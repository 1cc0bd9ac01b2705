//! Caches of constructed objects, by many threads on all CPUs, where the kernel refuses what they need, and across fork.

mod kit;

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use allocator_test_kit::{Ability, Kit, Subject};
use kit::Child;
use kit::probe::{Ledger, Probe, Source, torture};
use kit::seccomp::{MEMBARRIER_FORBIDDEN, NO_RSEQ, RSEQ_FORBIDDEN, install};
use perseq::objects::{ByFn, ObjectCache, Uninit};
use perseq::rseq::{CpuId, Index, MmCid, Registrant, probe};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Keeps libc from registering threads, so that the registration is ours.
const OWN_AREAS: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

type Probes<F, I> = ObjectCache<Probe, ByFn<F>, I>;

fn probes<I: Index>(ledger: &Arc<Ledger>, per_cpu: usize, shared: usize) -> Probes<impl Fn() -> Probe + use<I>, I> {
    let ledger = ledger.clone();
    let builder = ObjectCache::builder().by_fn(move || Probe::new(&ledger)).per_cpu(per_cpu).shared(shared);
    builder.index::<I>().build().expect("memory")
}

/// Each object has one user at a time, is as it was left, and lives once.
fn torture_caches<I: Index>(per_cpu: bool, seconds: f64) {
    // As they are; so small that depot and heap are always reached; without a depot; with nothing else.
    for (list, shared) in [(30, 240), (2, 3), (5, 0), (0, 50)] {
        let ledger = Ledger::new();
        let cache = probes::<I>(&ledger, list, shared);
        assert_eq!(cache.is_per_cpu(), per_cpu && list > 0);
        torture(&cache, 6, kit::duration(seconds));
        let stats = cache.stats();
        assert_eq!((stats.out(), stats.ctor), (0, ledger.counts().0 as u64), "{stats:?}");
        assert!(stats.ctor_elided > 100 && stats.drains > 0, "{stats:?}");
        if cache.is_per_cpu() {
            assert!(stats.flushes > 0 && (stats.refills > 0 || shared == 0), "{stats:?}");
        }
        drop(cache);
        ledger.assert_over();
    }
}

#[test]
fn by_cpu() {
    torture_caches::<CpuId>(probe().is_ok(), 0.4);
}

#[test]
fn by_concurrency_id() {
    torture_caches::<MmCid>(probe().is_ok_and(|found| found.has_mm_cid()), 0.4);
}

/// The test must be able to fail: a cache that hands an object out twice, once in a thousand times.
#[test]
fn a_cache_that_errs_is_caught() {
    struct Sloppy {
        idle: Mutex<Vec<usize>>,
        takes: AtomicUsize,
        ledger: Arc<Ledger>,
    }
    impl Source for Sloppy {
        fn take(&self) -> Option<NonNull<Probe>> {
            let mut idle = self.idle.lock().expect("no panic under it");
            let Some(found) = idle.pop() else {
                return Some(NonNull::from(Box::leak(Box::new(Probe::new(&self.ledger)))));
            };
            if self.takes.fetch_add(1, Relaxed) % 1000 == 999 {
                idle.push(found);
            }
            NonNull::new(std::ptr::with_exposed_provenance_mut(found))
        }
        unsafe fn put(&self, probe: NonNull<Probe>) {
            self.idle.lock().expect("no panic under it").push(probe.as_ptr().expose_provenance());
        }
        fn disturb(&self) {}
    }
    let ledger = Ledger::new();
    let sloppy = Sloppy { idle: Mutex::default(), takes: AtomicUsize::new(0), ledger: ledger.clone() };
    torture(&sloppy, 6, kit::duration(0.4));
    assert_ne!(ledger.faults(), 0, "an object that two threads had was not noticed");
}

/// Where sequences do not run, or lists could not be emptied, every object comes through the depot.
#[test]
fn refused() {
    if kit::role().is_some() {
        return torture_caches::<CpuId>(false, 0.2);
    }
    for refusals in [&NO_RSEQ, &RSEQ_FORBIDDEN, &MEMBARRIER_FORBIDDEN] {
        Child::of("refused", "refused").refusing(refusals).run().passed();
    }
    Child::of("refused", "refused").refusing(&NO_RSEQ).env(OWN_AREAS.0, OWN_AREAS.1).run().passed();
}

/// The filter comes when lists are in use: new threads have no area and share one list, and nobody can stop another's any
/// more. Still each object lives once, and the cache's end needs no fence.
#[test]
fn refused_later() {
    if kit::role().is_none() {
        Child::of("refused_later", "own areas").env(OWN_AREAS.0, OWN_AREAS.1).run().passed();
        return;
    }
    if probe().map(|found| found.registrant()) != Ok(Registrant::Own) {
        return kit::not_tested("own-areas", "a refusal of later threads", "there are no areas of our own here");
    }
    torture_caches::<CpuId>(true, 0.1);
    let ledger = Ledger::new();
    let cache = probes::<CpuId>(&ledger, 20, 40);
    torture(&cache, 6, kit::duration(0.2));
    let objects: Vec<_> = (0..30).map(|_| cache.get().expect("memory")).collect();
    drop(objects);
    install(&[NO_RSEQ[0], MEMBARRIER_FORBIDDEN[0]]).expect("a filter");
    torture(&cache, 6, kit::duration(0.2));
    cache.shrink();
    assert!(cache.stats().cached > 0, "our own list cannot be stopped: {:?}", cache.stats());
    assert_eq!(cache.close(), 0);
    ledger.assert_over();
}

/// A child of fork has the idle objects, and so has the parent.
#[test]
fn fork() {
    let ledger = Ledger::new();
    let cache = probes::<CpuId>(&ledger, 10, 20);
    let use_all = || {
        let objects: Vec<_> = (0..100).map(|_| cache.get().expect("memory")).collect();
        objects.iter().for_each(|object| object.enter(1));
        objects.iter().for_each(|object| object.leave(1));
        drop(objects);
        assert!(cache.stats().cached >= 20, "{:?}", cache.stats());
    };
    use_all();
    let held = cache.get().expect("memory");
    let child = kit::fork(60, || {
        let before = cache.stats().ctor_elided;
        use_all();
        assert!(cache.stats().ctor_elided > before + 10, "the parent's idle objects are here too");
        cache.shrink();
        assert_eq!((cache.stats().out(), ledger.faults()), (1, 0));
    });
    kit::reap(child);
    use_all();
    drop(held);
    drop(cache);
    ledger.assert_over();
}

/// Objects as blocks of memory, for the test kit: all of one size, which is the most that a block may have.
struct Blocks<I: Index>(ObjectCache<MaybeUninit<[u8; MOST]>, Uninit, I>);

const MOST: usize = 640;
const ALIGN: usize = 64;

// SAFETY: passes calls on.
unsafe impl<I: Index + Sync> Subject for Blocks<I> {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return null_mut();
        }
        self.0.take_raw().map_or(null_mut(), |object| object.as_ptr().cast())
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same.
        let block = unsafe { self.allocate(layout) };
        if !block.is_null() {
            // SAFETY: an object is so long.
            unsafe { block.write_bytes(0, MOST) };
        }
        block
    }

    unsafe fn resize(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        if size > MOST { null_mut() } else { block }
    }

    unsafe fn free(&self, block: *mut u8, _: Layout) {
        let object = NonNull::new(block.cast()).expect("a block that is held");
        // SAFETY: of this cache, and used no more; any bytes are valid.
        unsafe { self.0.put_raw(object) };
    }

    fn drain(&self, _: bool) -> bool {
        self.0.shrink();
        true
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        Some([self.0.stats().out() * MOST as u64, 0])
    }
}

/// A child of a fork may use a cache if no other thread was using it at that moment: so a stream has either.
fn streams<I: Index + Sync>() {
    for ((per_cpu, shared), absent) in [((30, 240), Ability::Fork), ((2, 3), Ability::Fork), ((5, 0), Ability::Threads)]
    {
        let kit = Kit::new().cases(25).most(MOST, ALIGN).without(absent);
        let make = || {
            let builder = ObjectCache::<MaybeUninit<[u8; MOST]>>::builder().uninit().align(ALIGN);
            Blocks(builder.per_cpu(per_cpu).shared(shared).index::<I>().build().expect("memory"))
        };
        let passed = kit.run(make).unwrap_or_else(|failure| panic!("{failure}"));
        let reached = [passed.allocated, passed.freed, passed.moved, passed.drained, passed.sent + passed.forked];
        assert!(reached.iter().all(|count| *count > 0), "{passed:?}");
    }
}

#[test]
fn streams_of_objects() {
    streams::<CpuId>();
    streams::<MmCid>();
}
