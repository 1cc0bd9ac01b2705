//! Caches of constructed objects, by one thread: what an object is when it comes back, where it is, who destructs it, and
//! what is lost when somebody panics. `objects_shared.rs` has the threads.

mod kit;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use kit::Child;
use kit::probe::{Ledger, Probe};
use perseq::objects::{BuildError, ByFn, Cached, MAX_PER_CPU, ObjectCache};
use proptest::prelude::*;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<ObjectCache<Vec<u8>>>();
    // One user at a time: an object need not be `Sync`.
    is_shared::<ObjectCache<Cell<u8>>>();
    is_shared::<Cached<'static, Vec<u8>>>();
};

#[test]
fn an_object_comes_back_as_it_was_left() {
    kit::run_on(&kit::allowed_cpus()[..1]);
    let cache = ObjectCache::<Vec<u8>>::new().expect("memory");
    let mut object = cache.get().expect("memory");
    object.extend([1, 2, 3]);
    let (place, buffer) = (&raw const *object, object.as_ptr());
    drop(object);
    let object = cache.get().expect("memory");
    assert_eq!((&raw const *object, object.as_ptr(), &object[..]), (place, buffer, &[1, 2, 3][..]));
    assert_eq!((cache.stats().ctor, cache.stats().ctor_elided), (1, 1));
}

#[test]
fn every_way_to_begin() {
    kit::run_on(&kit::allowed_cpus()[..1]);
    let base = 40;
    let by_fn = ObjectCache::<u64>::builder().by_fn(|| base + 2).build().expect("memory");
    assert_eq!(*by_fn.get().expect("memory"), 42);
    // SAFETY: the place is valid for writes, and all bytes are a value.
    let write = |place: *mut [u8; 1 << 20]| unsafe { place.cast::<u8>().write_bytes(7, 1 << 20) };
    // SAFETY: it writes the whole object.
    let in_place = unsafe { ObjectCache::<[u8; 1 << 20]>::builder().in_place(write) }.build().expect("memory");
    assert!(in_place.get().expect("memory").iter().all(|&byte| byte == 7));
    let uninit = ObjectCache::<MaybeUninit<u64>>::builder().uninit().build().expect("memory");
    uninit.get().expect("memory").write(9);
    // SAFETY: the only object there is, and it was written.
    assert_eq!(unsafe { uninit.get().expect("memory").assume_init() }, 9);
    let reset = ObjectCache::<Vec<u8>>::builder().by(ByFn(|| vec![1])).reset(Vec::clear).build().expect("memory");
    assert_eq!(*reset.get().expect("memory"), [1], "the reset is for what comes back");
    assert_eq!(*reset.get().expect("memory"), []);
    assert_eq!(reset.stats().ctor_elided, 1);
}

/// Objects are of the class that fits them, or have the alignment asked for; those without size are counted all the same.
#[test]
fn layouts() {
    let packed = ObjectCache::<MaybeUninit<[u64; 3]>>::builder().uninit().build().expect("memory");
    let objects: Vec<_> = (0..1000).map(|_| packed.get().expect("memory")).collect();
    let mut places: Vec<usize> = objects.iter().map(|object| &raw const **object as usize).collect();
    places.sort_unstable();
    let class = kit::class_of(24, 8).expect("a small object").size as usize;
    let packed_pairs = places.windows(2).filter(|pair| pair[1] - pair[0] == class).count();
    assert!(packed_pairs > 900, "{packed_pairs} of 999 objects stand {class} bytes from the next");
    for align in (0..22).map(|bits| 1 << bits) {
        let cache = ObjectCache::<u8>::builder().align(align).build().expect("memory");
        let objects: Vec<_> = (0..5).map(|_| cache.get().expect("memory")).collect();
        assert!(objects.iter().all(|object| (&raw const **object).addr().is_multiple_of(align)), "{align}");
    }
    for align in [0, 3, usize::MAX, 1 << 63] {
        assert_eq!(ObjectCache::<u8>::builder().align(align).build().err(), Some(BuildError::Align), "{align}");
    }
    assert_eq!(ObjectCache::<u8>::builder().shared(usize::MAX / 4).build().err(), Some(BuildError::NoMemory));

    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPPED.with(|dropped| dropped.set(dropped.get() + 1));
        }
    }
    thread_local!(static DROPPED: Cell<u64> = const { Cell::new(0) });
    let cache = ObjectCache::<Nothing>::builder().by_fn(|| Nothing).align(64).build().expect("memory");
    let objects: Vec<_> = (0..500).map(|_| cache.get().expect("no memory is needed")).collect();
    assert!((&raw const *objects[0]).addr().is_multiple_of(64));
    drop(objects);
    let stats = cache.stats();
    assert_eq!((stats.ctor, stats.dtor + stats.cached), (500, 500), "{stats:?}");
    drop(cache);
    assert_eq!(DROPPED.with(Cell::get), 500);
}

#[test]
fn capacities_are_kept_to() {
    for (per_cpu, shared) in [(0, 0), (0, 10), (1, 0), (3, 5), (1000, 7)] {
        let ledger = Ledger::new();
        let cache = probes(&ledger, per_cpu, shared);
        let objects: Vec<_> = (0..300).map(|_| cache.get().expect("memory")).collect();
        drop(objects);
        let rows = perseq::rseq::kernel::possible_cpus() + 1;
        let most = shared + per_cpu.min(MAX_PER_CPU) * if cache.is_per_cpu() { rows } else { 1 };
        let cached = cache.stats().cached as usize;
        assert!(cached <= most && cached >= shared, "{per_cpu}, {shared}: {:?}", cache.stats());
        assert_eq!(cache.shrink(), cached);
        assert_eq!(cache.stats().cached, 0);
        drop(cache);
        ledger.assert_over();
    }
}

fn probes(ledger: &Arc<Ledger>, per_cpu: usize, shared: usize) -> ObjectCache<Probe, ByFn<impl Fn() -> Probe>> {
    let ledger = ledger.clone();
    let builder = ObjectCache::builder().by_fn(move || Probe::new(&ledger)).per_cpu(per_cpu).shared(shared);
    builder.build().expect("memory")
}

/// Objects on every CPU's list and in the depot are destructed with the cache, and what was not given back is counted.
#[test]
fn the_end_of_a_cache() {
    let ledger = Ledger::new();
    let cache = probes(&ledger, 10, 4);
    for cpu in kit::allowed_cpus() {
        kit::run_on(&[cpu]);
        let objects: Vec<_> = (0..20).map(|_| cache.get().expect("memory")).collect();
        drop(objects);
    }
    assert!(cache.stats().cached >= 10, "{:?}", cache.stats());
    drop(cache);
    ledger.assert_over();

    let cache = probes(&ledger, 10, 4);
    let (kept, leaked) = (cache.take_raw().expect("memory"), cache.get().expect("memory"));
    std::mem::forget(leaked);
    Cached::discard(cache.get().expect("memory"));
    let stats = cache.stats();
    assert_eq!((stats.ctor, stats.dtor, stats.cached, stats.out()), (3, 1, 0, 2));
    assert_eq!(cache.close(), 2);
    // SAFETY: an object outlives its cache if it was not given back, and we are the only user.
    assert!(ledger.is_alive(unsafe { kept.as_ref() }.serial));
}

/// Panics without a message.
fn give_up() -> ! {
    resume_unwind(Box::new(()))
}

fn unwinds<R>(body: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(body)).is_err()
}

#[test]
fn a_constructor_that_panics_loses_nothing() {
    if kit::role().is_none() {
        // Alone, for it looks at what the process has.
        Child::of("a_constructor_that_panics_loses_nothing", "alone").run().passed();
        return;
    }
    let fails = Cell::new(true);
    let make = || if fails.get() { give_up() } else { [5_u64; 512] };
    let cache = ObjectCache::<[u64; 512]>::builder().by_fn(make).build().expect("memory");
    assert!(unwinds(|| cache.get().is_some()));
    let before = perseq::stats().live_small_bytes;
    (0..4000).for_each(|_| assert!(unwinds(|| cache.get().is_some())));
    let grown = perseq::stats().live_small_bytes.saturating_sub(before);
    assert!(grown < 4000 * 4096 / 4, "{grown} bytes for 4000 objects that never were");
    fails.set(false);
    assert_eq!(*cache.get().expect("memory"), [5; 512]);
    assert_eq!((cache.stats().ctor, cache.stats().out()), (1, 0));
}

#[test]
fn a_reset_that_panics_destructs_its_object() {
    let (ledger, fails) = (Ledger::new(), Cell::new(true));
    let reset = |_: &mut Probe| {
        if fails.get() {
            give_up()
        }
    };
    let cache =
        ObjectCache::builder().by_fn(|| Probe::new(&ledger)).reset(reset).per_cpu(4).shared(4).build().expect("memory");
    for count in 1..100 {
        let object = cache.get().expect("memory");
        assert!(unwinds(|| drop(object)));
        assert_eq!(ledger.counts(), (count, count));
        assert_eq!((cache.stats().cached, cache.stats().dtor), (0, count as u64));
    }
    fails.set(false);
    drop(cache.get());
    assert_eq!(cache.stats().cached, 1);
    drop(cache);
    ledger.assert_over();
}

/// A probe whose destructor may panic, after all was done.
struct Bomb {
    _probe: Probe,
    armed: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.armed {
            give_up()
        }
    }
}

#[test]
fn a_destructor_that_panics_takes_no_other_with_it() {
    kit::run_on(&kit::allowed_cpus()[..1]);
    for (per_cpu, shared, count) in [(40, 0, 30), (0, 200, 190), (10, 200, 190)] {
        // In the first batch that leaves, in between, and in the last.
        for (armed, end) in [count - 3, count / 2, 7].into_iter().flat_map(|armed| [(armed, false), (armed, true)]) {
            let ledger = Ledger::new();
            let make = || {
                let probe = Probe::new(&ledger);
                Bomb { armed: probe.serial == armed, _probe: probe }
            };
            let cache = ObjectCache::builder().by_fn(make).per_cpu(per_cpu).shared(shared).build().expect("memory");
            let objects: Vec<_> = (0..count).map(|_| cache.get().expect("memory")).collect();
            drop(objects);
            assert_eq!(cache.stats().cached, count as u64);
            if end {
                assert!(unwinds(|| drop(cache)), "{per_cpu}, {shared}, {armed}");
            } else {
                assert!(unwinds(|| cache.shrink()), "{per_cpu}, {shared}, {armed}");
                cache.shrink();
                assert_eq!((cache.stats().cached, cache.stats().dtor), (0, count as u64));
                drop(cache);
            }
            ledger.assert_over();
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Get(usize),
    Put { index: usize, count: usize },
    Discard { index: usize },
    MoveToCpu(usize),
    Shrink,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => (1..6_usize).prop_map(Operation::Get),
        6 => (any::<usize>(), 1..8_usize).prop_map(|(index, count)| Operation::Put { index, count }),
        1 => any::<usize>().prop_map(|index| Operation::Discard { index }),
        2 => any::<usize>().prop_map(Operation::MoveToCpu),
        1 => Just(Operation::Shrink),
    ];
    prop::collection::vec(operation, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model: what is out, and for each object that is not, how it was left.
    #[test]
    fn operations_against_a_model(operations in operations(), per_cpu in 0..6_usize, shared in 0..8_usize) {
        let (ledger, cpus) = (Ledger::new(), kit::allowed_cpus());
        let cache = probes(&ledger, per_cpu, shared);
        let (mut out, mut idle) = (Vec::new(), BTreeMap::new());
        let (mut gets, mut discarded) = (0, 0);
        for operation in operations {
            match operation {
                Operation::Get(count) => for _ in 0..count {
                    let made = ledger.counts().0;
                    let object = cache.get().expect("memory");
                    object.enter(1);
                    gets += 1;
                    let left = idle.remove(&object.serial);
                    prop_assert_eq!(left.unwrap_or(0), object.version());
                    prop_assert_eq!(left.is_none(), object.serial == made, "new, or one that was idle");
                    out.push(object);
                },
                Operation::Put { index, count } => for _ in 0..count.min(out.len()) {
                    let object = out.swap_remove(index % out.len());
                    object.leave(1);
                    idle.insert(object.serial, object.version());
                    drop(object);
                },
                Operation::Discard { index } => if !out.is_empty() {
                    let object = out.swap_remove(index % out.len());
                    object.leave(1);
                    discarded += 1;
                    Cached::discard(object);
                },
                Operation::MoveToCpu(cpu) => kit::run_on(&[cpus[cpu % cpus.len()]]),
                Operation::Shrink => prop_assert_eq!(cache.shrink(), idle.len()),
            }
            // What there was no room for is gone.
            let before = idle.len();
            idle.retain(|&serial, _| ledger.is_alive(serial));
            discarded += before - idle.len();
            let stats = cache.stats();
            prop_assert_eq!((stats.ctor + stats.ctor_elided, stats.dtor), (gets, discarded as u64));
            prop_assert_eq!((stats.cached, stats.out()), (idle.len() as u64, out.len() as u64));
            prop_assert_eq!(ledger.faults(), 0);
        }
        out.iter().for_each(|object| object.leave(1));
        drop(out);
        prop_assert_eq!(cache.stats().out(), 0);
        prop_assert_eq!(cache.close(), 0);
        ledger.assert_over();
    }
}

/// Memory is exhausted: `None`, and then what lies idle on another CPU.
#[test]
fn out_of_memory() {
    if kit::role().is_none() {
        Child::of("out_of_memory", "limited").env("PERSEQ_HARD_LIMIT", "64M").run().passed();
        return;
    }
    let cache = ObjectCache::<MaybeUninit<[u8; 4 << 20]>>::builder().uninit().build().expect("memory");
    kit::run_on(&kit::allowed_cpus()[..1]);
    let objects: Vec<_> = std::iter::from_fn(|| cache.get()).collect();
    assert!((8..=16).contains(&objects.len()), "{} objects of 4 MiB in 64 MiB", objects.len());
    assert!(cache.get().is_none());
    drop(objects);
    kit::run_on(&kit::allowed_cpus()[kit::allowed_cpus().len() - 1..]);
    let again: Vec<_> = std::iter::from_fn(|| cache.get()).collect();
    let stats = cache.stats();
    assert_eq!((again.len() as u64, stats.ctor_elided, stats.cached), (stats.ctor, stats.ctor, 0), "{stats:?}");
    drop(again);
    let count = cache.shrink();
    assert!(count > 0 && perseq::stats().live_large_bytes < 8 << 20, "the memory is the heap's again");
}

/// The hardened mode keeps no object, so that its checks see each that is given back.
#[test]
fn hardened() {
    if kit::role().is_none() {
        Child::of("hardened", "hardened").env("PERSEQ_HARDENED", "1").run().passed();
        return;
    }
    let ledger = Ledger::new();
    let cache = probes(&ledger, 10, 10);
    (0..100).for_each(|_| drop(cache.get()));
    assert_eq!(ledger.counts(), (100, 100));
    assert_eq!(cache.stats().ctor_elided, 0);
}
