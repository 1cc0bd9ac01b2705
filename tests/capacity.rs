//! How much caches hold: bounds that hold, budget that moves to who misses, idle caches that are emptied, and small
//! programs that take little.

mod kit;

use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use kit::object::{Object, SIZES, layout};
use kit::random::Random;
use kit::{Child, in_every_mode};
use perseq::{CacheStats, Mode, Owner, Stats, for_each_class, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Longest wait for what must come. It comes in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` again in the modes in which caches can be taken from their owners.
fn in_reclaiming_modes(test: &str, environment: &[(&str, &str)]) -> bool {
    if kit::role().is_some() {
        return kit::as_requested();
    }
    for mode in Mode::ALL.into_iter().filter(|mode| !matches!(mode, Mode::PerThread | Mode::Central)) {
        let child =
            environment.iter().fold(Child::of(test, "taken").mode(mode), |child, (name, value)| child.env(name, value));
        child.run().passed();
    }
    false
}

/// All caches. None is made meanwhile.
fn caches() -> Vec<CacheStats> {
    let mut caches = Vec::with_capacity(stats().caches as usize + 64);
    perseq::for_each_cache(&mut |cache| caches.push(*cache));
    caches
}

/// A thread that does what it is told, where it is told to: on the first or the last CPU, where there are two.
struct Puppet {
    orders: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    done: mpsc::Receiver<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Puppet {
    fn on(cpu: Option<usize>) -> Puppet {
        let (orders, inbox) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, done) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            cpu.into_iter().for_each(|cpu| kit::run_on(&[cpu]));
            for order in inbox {
                order();
                tell.send(()).expect("somebody waits");
            }
        });
        Puppet { orders, done, thread: Some(thread) }
    }

    fn does(&self, order: impl FnOnce() + Send + 'static) {
        self.orders.send(Box::new(order)).expect("the thread waits");
        self.done.recv().expect("the order did not panic");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let (gone, _) = mpsc::channel();
        self.orders = gone;
        self.thread.take().expect("joined once").join().expect("its orders did not panic");
    }
}

/// One thread on each of two CPUs. `None`, and said, if there is one CPU.
fn two_puppets(what: &str) -> Option<[Puppet; 2]> {
    let cpus = kit::allowed_cpus();
    if cpus.len() < 2 {
        kit::not_tested("second-cpu", what, "one CPU only");
        return None;
    }
    Some([Puppet::on(Some(cpus[0])), Puppet::on(Some(cpus[cpus.len() - 1]))])
}

/// Fills the caller's cache with objects of some sizes.
fn fill_cache() {
    for _ in 0..3 {
        for size in [48, 96, 200, 600, 1500] {
            let objects: Vec<_> = (0..300).map(|name| Object::new(layout(size, 8), name)).collect();
            objects.into_iter().for_each(Object::free);
        }
    }
}

/// Misses a while: more objects of one size than a cache holds.
fn miss(size: usize) {
    let objects: Vec<_> = (0..20_000).map(|name| Object::new(layout(size, 8), name)).collect();
    objects.into_iter().for_each(Object::free);
}

/// Under an equal total, all caches together never have more, however their load changes.
#[test]
fn a_total_is_a_bound() {
    const TOTAL: u64 = 384 << 10;
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("a_total_is_a_bound", "total").mode(mode).env("PERSEQ_TOTAL_BYTES", "384K").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    const THREADS: usize = 12;
    const ROUNDS: usize = 36;
    // At each round's end nobody allocates, so that the sum is one of a moment.
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let barrier = barrier.clone();
            std::thread::spawn(move || {
                let cpus = kit::allowed_cpus();
                let mut random = Random::stream(number as u64);
                let mut held = Vec::with_capacity(400);
                for round in 0..ROUNDS {
                    kit::run_on(&[random.of(&cpus)]);
                    // Some work hard, some a little, some not at all, and not always the same.
                    let operations = [0, 50, 2000][(number + round / 4) % 3];
                    for name in 0..operations {
                        held.push(Object::new(layout(random.of(&SIZES[..36]), 8), name));
                        if held.len() > 300 {
                            held.drain(50..).for_each(Object::free);
                        }
                    }
                    barrier.wait();
                    barrier.wait();
                }
                held.into_iter().for_each(Object::free);
            })
        })
        .collect();
    let mut most = 0;
    for round in 0..ROUNDS {
        barrier.wait();
        let now = stats();
        assert!(now.capacity_bytes <= TOTAL, "round {round}: {} of {TOTAL} bytes: {now:?}", now.capacity_bytes);
        assert!(now.cached_bytes <= now.capacity_bytes, "{now:?}");
        most = most.max(now.capacity_bytes);
        barrier.wait();
    }
    workers.into_iter().for_each(|worker| worker.join().expect("it checks its objects"));
    if stats().mode.active != Mode::Central {
        assert!(most > TOTAL / 4, "at most {most} bytes were ever used");
    }
}

/// A cache that misses takes budget from one that does not, and the other gets it back when they change parts.
#[test]
fn budget_moves_to_who_misses() {
    const TOTAL: u64 = 256 << 10;
    let environment = [("PERSEQ_TOTAL_BYTES", "256K"), ("PERSEQ_IDLE_DRAIN", "off"), ("PERSEQ_SHARDS", "64")];
    if !in_reclaiming_modes("budget_moves_to_who_misses", &environment) {
        return;
    }
    let Some([one, other]) = two_puppets("budget between CPUs") else { return };
    if stats().mode.active == Mode::PerCpuMmCid {
        // Whoever runs alone has the lowest id, wherever it runs: there is one cache in use, and nothing to move.
        return kit::not_tested("chosen-mm-cid", "budget between concurrency ids", "they cannot be chosen");
    }
    for round in 0..3 {
        let busy = if round % 2 == 0 { &one } else { &other };
        let before = (stats(), caches());
        for _ in 0..8 {
            busy.does(fill_cache);
        }
        let now = (stats(), caches());
        assert!(now.0.capacity_bytes <= TOTAL, "{now:?}");
        // The busy one's is the cache that missed most meanwhile.
        let misses = |all: &[CacheStats], owner: Owner| {
            all.iter().filter(|cache| cache.owner == owner).map(|cache| cache.underflows + cache.overflows).sum::<u64>()
        };
        let busiest = now.1.iter().max_by_key(|cache| misses(&now.1, cache.owner) - misses(&before.1, cache.owner));
        let busiest = busiest.expect("a cache");
        assert!(busiest.capacity_bytes > TOTAL / 2, "round {round}: {busiest:?} among {:?}", now.1);
        if round > 0 {
            assert!(now.0.lendings > before.0.lendings, "round {round}: nobody lent: {now:?}");
        }
    }
}

/// Where the environment forbids lending, a cache that misses keeps to its share in every mode.
#[test]
fn without_lending_each_cache_keeps_to_its_share() {
    const TEST: &str = "without_lending_each_cache_keeps_to_its_share";
    const TOTAL: u64 = 256 << 10;
    if kit::role().is_none() {
        for mode in Mode::ALL.into_iter().filter(|mode| mode.has_caches()) {
            let child = Child::of(TEST, "fixed").mode(mode).env("PERSEQ_TOTAL_BYTES", "256K");
            child.env("PERSEQ_LENDING", "0").env("PERSEQ_IDLE_DRAIN", "off").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let Some([one, other]) = two_puppets("shares of CPUs") else { return };
    // Both have their cache before one fills it.
    other.does(|| miss(64));
    one.does(|| miss(64));
    for _ in 0..8 {
        one.does(fill_cache);
    }
    let (now, all) = (stats(), caches());
    let busiest = all.iter().max_by_key(|cache| cache.capacity_bytes).expect("a cache");
    assert!(busiest.capacity_bytes <= TOTAL / all.len().min(2) as u64, "{busiest:?} among {all:?}");
    assert!(busiest.capacity_bytes > TOTAL / 16, "the share is used: {busiest:?}");
    assert_eq!(now.lendings, 0, "{now:?}");
}

/// The cache of a CPU that no thread uses any more, or of a thread that sleeps, is emptied after its period, and with
/// idle drains off it is not.
#[test]
fn idle_caches_are_emptied() {
    const TEST: &str = "idle_caches_are_emptied";
    if kit::role().is_none() {
        in_reclaiming_modes(TEST, &[("PERSEQ_IDLE_DRAIN", "60"), ("PERSEQ_SHARDS", "64")]);
        in_reclaiming_modes(TEST, &[("PERSEQ_IDLE_DRAIN", "off"), ("PERSEQ_SHARDS", "64"), ("PERSEQ_TEST_OFF", "")]);
        let never = Child::of(TEST, "never").mode(Mode::PerThread).env("PERSEQ_IDLE_DRAIN", "60");
        never.env("PERSEQ_TEST_OFF", "").run().passed();
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let Some([one, other]) = two_puppets("an idle CPU") else { return };
    let off = std::env::var_os("PERSEQ_TEST_OFF").is_some();
    let active = stats().mode.active;
    if active == Mode::PerCpuMmCid {
        // Two that run at once have two ids; one of them is then used no more.
        let together = Arc::new(Barrier::new(2));
        let here = together.clone();
        let busy = std::thread::spawn(move || {
            here.wait();
            (0..20).for_each(|_| fill_cache());
        });
        one.does(move || {
            together.wait();
            (0..20).for_each(|_| fill_cache());
        });
        busy.join().expect("it checks its objects");
    } else {
        other.does(|| miss(64));
        one.does(fill_cache);
    }
    // The whole process leaves the first CPU, as if that had been taken from it.
    let cpus = kit::allowed_cpus();
    kit::run_on(&cpus[cpus.len() - 1..]);
    let before = (stats(), caches());
    assert!(before.1.len() > 1, "two caches are in use: {before:?}");
    let start = Instant::now();
    // On a busy host a cache may have been found idle, and emptied, before now.
    let is_one_empty = || caches().iter().any(|cache| cache.capacity_bytes == 0);
    let given_up = |now: &Stats| now.idle_drains > 0 && (off || active == Mode::PerCpuMmCid || is_one_empty());
    let limit = if off { Duration::from_millis(400) } else { PATIENCE };
    loop {
        // Threads that take turns may have each concurrency id by turns, and then none is idle: this one runs alone.
        if active == Mode::PerCpuMmCid {
            miss(64);
        } else {
            other.does(|| miss(64));
        }
        let now = stats();
        if given_up(&now) {
            assert!(!off, "emptied although it must not be: {now:?}");
            break;
        }
        if start.elapsed() > limit {
            assert!(off, "not emptied after {limit:?}: {:?}", caches());
            return;
        }
    }
    // Somebody's arrays are gone with all that was in them; and the cache works as before.
    let now = caches();
    let is_empty = |owner| now.iter().any(|cache| cache.owner == owner && cache.capacity_bytes == 0);
    let one_is = before.1.iter().any(|cache| is_empty(cache.owner));
    assert!(one_is || active == Mode::PerCpuMmCid, "{:?}, then {now:?}", before.1);
    assert!(now.iter().all(|cache| cache.capacity_bytes > 0 || cache.cached_bytes == 0), "{now:?}");
    kit::run_on(&cpus);
    one.does(fill_cache);
    assert!(stats().cached_bytes > 0);
}

/// A thousand threads that did something and wait.
#[test]
fn a_thousand_idle_threads() {
    const THREADS: usize = 1000;
    const EACH: u64 = 256 << 10;
    if kit::role().is_none() {
        for mode in Mode::ALL {
            let child = Child::of("a_thousand_idle_threads", "idle").mode(mode);
            child.env("PERSEQ_CACHE_BYTES", "256K").env("PERSEQ_IDLE_DRAIN", "50").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let (ready, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let idlers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (ready, stop) = (ready.clone(), stop.clone());
            let idle = move || {
                drop((0..300).map(|n| vec![1_u8; 64 + n % 64]).collect::<Vec<_>>());
                ready.fetch_add(1, SeqCst);
                while !stop.load(Relaxed) {
                    std::thread::park();
                }
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn(idle).expect("a thread")
        })
        .collect();
    while ready.load(SeqCst) < THREADS {
        std::thread::yield_now();
    }
    let burst = stats();
    match burst.mode.active {
        Mode::PerThread => assert!(burst.cached_bytes > THREADS as u64 * 4096, "{burst:?}"),
        // Those that came first may be empty by now.
        Mode::PerThreadDrain => assert!(burst.caches as usize >= THREADS, "{burst:?}"),
        Mode::Sharded => assert!(burst.cached_bytes <= 4 * kit::allowed_cpus().len() as u64 * EACH, "{burst:?}"),
        Mode::Central => assert_eq!(burst.cached_bytes, 0),
        // One more for a moment in which the kernel gives a higher concurrency id.
        _ => assert!(burst.cached_bytes <= (kit::allowed_cpus().len() as u64 + 1) * EACH, "{burst:?}"),
    }
    if burst.mode.active == Mode::PerThreadDrain {
        let start = Instant::now();
        // What one thread that is still at work may hold, and a few that were not to be had.
        while stats().capacity_bytes > 4 * EACH {
            assert!(start.elapsed() < PATIENCE, "{:?}", stats());
            miss(64);
        }
    }
    stop.store(true, SeqCst);
    for idler in idlers {
        idler.thread().unpark();
        idler.join().expect("it only waits");
    }
}

/// A program that allocates three objects does not take a batch; one that allocates thousands does.
#[test]
fn batches_grow_with_demand() {
    in_every_mode("batches_grow_with_demand", || {
        let size = 440; // a class that nobody else uses
        kit::run_on(&kit::allowed_cpus()[..1]); // on one CPU, so in one cache
        let before = stats();
        let few: Vec<_> = [1, 2, 3].map(|name| Object::new(layout(size, 8), name)).into();
        let three = stats();
        if three.mode.active == Mode::Central {
            return few.into_iter().for_each(Object::free);
        }
        let taken = three.refilled_objects - before.refilled_objects;
        assert!((3..=12).contains(&taken), "three objects took {taken}: {three:?}");
        let many: Vec<_> = (0..4000).map(|name| Object::new(layout(size, 8), name)).collect();
        let end = stats();
        let (objects, misses) = (end.refilled_objects - three.refilled_objects, end.underflows - three.underflows);
        assert!(objects / misses >= 16, "{objects} objects in {misses} batches: {end:?}");
        few.into_iter().chain(many).for_each(Object::free);
    });
}

/// What one CPU gives back another takes from its shard, without a visit to the central free lists.
#[test]
fn shards_help_each_other() {
    const TEST: &str = "shards_help_each_other";
    if kit::role().is_none() {
        for shards in ["1", "2", "7"] {
            let child = Child::of(TEST, "shards").mode(Mode::Central).env("PERSEQ_TRANSFER_SHARDS", shards);
            child.run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let Some([one, other]) = two_puppets("two shards") else { return };
    const COUNT: usize = 100;
    let (send, receive) = mpsc::channel::<Vec<Object>>();
    one.does(move || {
        let objects: Vec<_> = (0..COUNT as u64).map(|name| Object::new(layout(88, 8), name)).collect();
        objects.into_iter().for_each(Object::free);
    });
    let before = visits(88);
    other.does(move || {
        let mut objects = Vec::with_capacity(COUNT);
        objects.extend((0..COUNT as u64).map(|name| Object::new(layout(88, 8), name)));
        send.send(objects).expect("somebody waits");
    });
    let after = visits(88);
    receive.recv().expect("sent").into_iter().for_each(Object::free);
    let visits = after - before;
    assert!(visits < 8, "{visits} visits for {COUNT} objects that were there");
}

/// Times the central free list was asked for objects of so many bytes.
fn visits(size: u64) -> u64 {
    let mut visits = None;
    for_each_class(&mut |class| {
        if visits.is_none() && class.size >= size {
            visits = Some(class.central_visits);
        }
    });
    visits.expect("a class")
}
