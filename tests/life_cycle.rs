//! Threads and processes that begin and end: forks in the middle of everything, thousands of short threads,
//! many at once, idle ones, late destructors, exec, exit, and the moment the mode is decided.

mod kit;

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Barrier};

use kit::object::{LARGE_SIZES, Object, SIZES, layout};
use kit::random::Random;
use kit::torture::use_heap_after_fork;
use kit::{Child, in_every_mode};
use perseq::{Mode, Owner, Stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Runs `during` while `threads` others allocate, check and free.
fn beside<R>(threads: usize, during: impl FnOnce() -> R) -> R {
    let stop = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..threads as u64)
        .map(|owner| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut random = Random::stream(owner);
                let mut held = Vec::new();
                while !stop.load(Relaxed) {
                    held.push(Object::new(kit::object::any_layout(&mut random), owner));
                    if held.len() > 200 {
                        held.drain(..150).for_each(Object::free);
                    }
                }
                held.into_iter().for_each(Object::free);
            })
        })
        .collect();
    let result = during();
    stop.store(true, SeqCst);
    others.into_iter().for_each(|other| other.join().expect("it checks its objects"));
    result
}

fn a_few_objects() -> Vec<Object> {
    SIZES.iter().chain(&LARGE_SIZES[..4]).map(|&size| Object::new(layout(size, 1), 7)).collect()
}

#[test]
fn fork_while_others_allocate() {
    in_every_mode("fork_while_others_allocate", || {
        beside(3, || {
            for round in 0..60 {
                let mut objects = a_few_objects();
                let child = kit::fork(60, || {
                    use_heap_after_fork(&mut objects);
                    // Objects that were cached when the process was copied come back to their spans at the
                    // latest here, where one that is there twice would be noticed.
                    perseq::drain();
                    perseq::release();
                    if round % 6 == 0 {
                        let threads =
                            [(); 3].map(|()| std::thread::spawn(|| use_heap_after_fork(&mut a_few_objects())));
                        threads.into_iter().for_each(|thread| thread.join().expect("it checks its objects"));
                        kit::reap(kit::fork(30, || use_heap_after_fork(&mut a_few_objects())));
                    }
                });
                kit::reap(child);
                objects.into_iter().for_each(Object::free);
            }
        });
    });
}

/// Forks while other threads hold caches stopped, closed or locked, and find none so in the child.
#[test]
fn fork_while_caches_are_taken() {
    in_every_mode("fork_while_caches_are_taken", || {
        let stop = Arc::new(AtomicBool::new(false));
        let takers = [(); 2].map(|()| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    perseq::drain();
                }
            })
        });
        beside(2, || {
            for _ in 0..15 {
                let mut objects = a_few_objects();
                kit::reap(kit::fork(60, || {
                    let before = perseq::stats();
                    use_heap_after_fork(&mut objects);
                    perseq::drain();
                    let after = perseq::stats();
                    // A cache that stayed closed would be passed by each time.
                    let past = after.uncached_allocs - before.uncached_allocs;
                    assert!(past < 100 || after.mode.active == Mode::Central, "{past} went past the caches: {after:?}");
                }));
                objects.into_iter().for_each(Object::free);
            }
        });
        stop.store(true, SeqCst);
        takers.into_iter().for_each(|taker| taker.join().expect("it only drains"));
    });
}

/// On one CPU, a thread that takes caches is interrupted with caches taken. Their owners end their turns then, instead of
/// spending them past their caches: at most a sixth of their operations go there.
#[test]
fn whoever_takes_caches_goes_on() {
    in_every_mode("whoever_takes_caches_goes_on", || {
        const PAIRS: u64 = 300_000;
        if !perseq::active_mode().active.lends() {
            return; // nothing is taken from anybody
        }
        kit::run_on(&kit::allowed_cpus()[..1]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let taker = threads.spawn(|| {
                let mut turns = 0_u64;
                while !stop.load(Relaxed) {
                    perseq::drain();
                    turns += 1;
                }
                turns
            });
            Object::new(layout(64, 8), 0).free();
            let before = perseq::stats();
            (0..PAIRS).for_each(|name| Object::new(layout(64, 8), name).free());
            let after = perseq::stats();
            stop.store(true, SeqCst);
            let turns = taker.join().expect("it only drains");
            let past = after.uncached_allocs - before.uncached_allocs + after.uncached_frees - before.uncached_frees;
            assert!(turns > 0 && past < PAIRS / 3, "{past} operations went past the caches, {turns} turns");
        });
    });
}

/// A process of one thread knows every object, in the child as in the parent.
#[test]
fn fork_loses_nothing() {
    in_every_mode("fork_loses_nothing", || {
        let before = perseq::stats();
        let mut objects = a_few_objects();
        for _ in 0..20 {
            let child = kit::fork(60, || {
                while let Some(object) = objects.pop() {
                    object.free();
                }
                let after = perseq::stats();
                let live = |stats: &Stats| (stats.live_small_bytes, stats.live_large_bytes);
                // The vector itself is still there.
                let vector = objects.capacity() * size_of::<Object>();
                assert!(live(&after).0 >= live(&before).0 && live(&after).0 <= live(&before).0 + 2 * vector as u64);
                assert_eq!(live(&after).1, live(&before).1);
            });
            kit::reap(child);
        }
        objects.into_iter().for_each(Object::free);
        assert_eq!(perseq::stats().live_large_bytes, before.live_large_bytes);
        assert_eq!(perseq::stats().live_small_bytes, before.live_small_bytes);
    });
}

/// From threads that come and go, several at a time.
#[test]
fn fork_from_many_threads() {
    in_every_mode("fork_from_many_threads", || {
        for _ in 0..8 {
            let forkers = [(); 4].map(|()| {
                std::thread::spawn(|| {
                    for _ in 0..3 {
                        kit::reap(kit::fork(60, || use_heap_after_fork(&mut a_few_objects())));
                    }
                })
            });
            forkers.into_iter().for_each(|forker| forker.join().expect("its children use their heaps"));
        }
    });
}

#[test]
fn programs_started_while_others_allocate() {
    in_every_mode("programs_started_while_others_allocate", || {
        beside(4, || {
            for round in 0..30 {
                let output = Command::new("/bin/echo").arg(round.to_string()).output().expect("echo");
                assert_eq!(output.stdout, format!("{round}\n").into_bytes());
            }
        });
    });
}

/// Runs this binary again in place of the process, from a thread that is not the first, beside others.
#[test]
fn exec_from_a_thread() {
    use std::os::unix::process::CommandExt;
    const AGAIN: &str = "PERSEQ_TEST_AGAIN";
    in_every_mode("exec_from_a_thread", || {
        if std::env::var_os(AGAIN).is_some() {
            return a_few_objects().into_iter().for_each(Object::free);
        }
        beside(2, || {
            std::thread::spawn(|| {
                let mut command = Command::new(std::env::current_exe().expect("this binary"));
                command.args(["exec_from_a_thread", "--exact", "--nocapture"]).env(AGAIN, "");
                panic!("exec: {}", command.exec());
            })
            .join()
        })
        .expect("the thread does not return");
    });
}

#[test]
fn thousands_of_short_threads_leave_nothing() {
    in_every_mode("thousands_of_short_threads_leave_nothing", || {
        let rounds = |count: usize| {
            for _ in 0..count {
                let threads = [(); 8].map(|()| {
                    std::thread::spawn(|| {
                        let objects: Vec<_> = (1..60).map(|n| Object::new(layout(n * 33, 8), n as u64)).collect();
                        objects.into_iter().for_each(Object::free);
                    })
                });
                threads.into_iter().for_each(|thread| thread.join().expect("it checks its objects"));
            }
            (perseq::stats(), kit::resident_bytes())
        };
        let (warm, warm_resident) = rounds(50);
        let (end, resident) = rounds(500);
        assert_eq!(end.live_small_bytes, warm.live_small_bytes);
        assert_eq!(end.live_large_bytes, warm.live_large_bytes);
        assert_eq!(end.committed_bytes, warm.committed_bytes, "4000 threads took new memory");
        assert!(end.caches <= warm.caches, "caches of threads that ended: {end:?}");
        let metadata = end.metadata_bytes - warm.metadata_bytes;
        // Lists' arrays go on growing with demand, more so on a busy machine; but no thread leaves a line of its own.
        assert!(metadata < 4000 * 64, "4000 threads took {metadata} bytes of tables");
        let grown = resident.saturating_sub(warm_resident);
        assert!(grown < 2 << 20, "4000 threads took {grown} bytes");
    });
}

/// Some C libraries have such a thread unmap its own memory, with all that the kernel knows of it.
#[test]
fn threads_that_nobody_waits_for() {
    in_every_mode("threads_that_nobody_waits_for", || {
        const THREADS: usize = 1500;
        // A link for each thread. (Who reads the folder misses some while others end.)
        let threads = || std::fs::metadata("/proc/self/task").expect("/proc is mounted").nlink();
        let round = || {
            let before = threads();
            for owner in 0..THREADS {
                while threads() > before + 20 {
                    std::thread::yield_now();
                }
                // Its handle is dropped: it is detached.
                std::thread::spawn(move || {
                    let objects: Vec<_> =
                        SIZES.iter().map(|&size| Object::new(layout(size, 8), owner as u64)).collect();
                    objects.into_iter().for_each(Object::free);
                });
            }
            while threads() > before {
                std::thread::yield_now();
            }
            perseq::stats()
        };
        let (before, after) = (round(), round());
        assert_eq!(after.live_small_bytes, before.live_small_bytes);
        assert_eq!(after.live_large_bytes, before.live_large_bytes);
        // An own area was registered in each thread: not every allocation went past the caches.
        let past_the_caches = (after.uncached_allocs - before.uncached_allocs) as usize;
        assert!(
            after.mode.active == Mode::Central || past_the_caches < THREADS,
            "{past_the_caches} of {THREADS} threads"
        );
    });
}

#[test]
fn many_threads_at_once() {
    in_every_mode("many_threads_at_once", || {
        const THREADS: usize = 256;
        let before = perseq::stats();
        let barrier = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|owner| {
                let barrier = barrier.clone();
                std::thread::spawn(move || {
                    barrier.wait();
                    let objects: Vec<_> = SIZES.iter().map(|&size| Object::new(layout(size, 8), owner)).collect();
                    barrier.wait();
                    objects.into_iter().for_each(Object::free);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it checks its objects"));
        drop(barrier);
        assert_eq!(perseq::stats().live_large_bytes, before.live_large_bytes);
        assert_eq!(perseq::stats().live_small_bytes, before.live_small_bytes);
    });
}

/// What idle threads hold is what their caches may hold, and no cache outlives its thread.
#[test]
fn idle_threads() {
    in_every_mode("idle_threads", || {
        const THREADS: usize = 1000;
        let before = perseq::stats();
        let ready = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let idlers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (ready, stop) = (ready.clone(), stop.clone());
                let idle = move || {
                    drop((1..40).map(|n| vec![1u8; n * 50]).collect::<Vec<_>>());
                    ready.fetch_add(1, SeqCst);
                    while !stop.load(SeqCst) {
                        std::thread::park();
                    }
                };
                std::thread::Builder::new().stack_size(64 << 10).spawn(idle).expect("a thread")
            })
            .collect();
        while ready.load(SeqCst) < THREADS {
            std::thread::yield_now();
        }
        let idle = perseq::stats();
        let most = match idle.mode.active {
            Mode::PerThread | Mode::PerThreadDrain => THREADS + 4,
            Mode::Sharded => kit::allowed_cpus().len() * 4,
            _ => kit::allowed_cpus().len() * 2,
        };
        assert!(idle.caches as usize <= most, "{idle:?}");
        assert!(most < THREADS || idle.caches as usize >= THREADS, "{idle:?}");
        perseq::for_each_cache(&mut |cache| {
            assert!(cache.cached_bytes <= cache.capacity_bytes && cache.capacity_bytes <= 1 << 20, "{cache:?}");
        });
        stop.store(true, SeqCst);
        for idler in idlers {
            idler.thread().unpark();
            idler.join().expect("it only waits");
        }
        drop((ready, stop));
        let after = perseq::stats();
        assert_eq!(after.live_small_bytes, before.live_small_bytes);
        let slots = if after.mode.active == Mode::Sharded { 4 } else { 1 };
        assert!(after.caches <= before.caches.max((slots * kit::allowed_cpus().len()) as u64), "{after:?}");
    });
}

/// Objects that thread-local destructors free and allocate, before and after the thread's cache is gone.
#[test]
fn destructors_after_the_cache() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    struct Late(Vec<Object>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.drain(..).for_each(Object::free);
            a_few_objects().into_iter().for_each(Object::free);
            RUNS.fetch_add(1, Relaxed);
        }
    }
    thread_local!(static RUST: RefCell<Option<Late>> = const { RefCell::new(None) });

    extern "C" fn late(value: *mut libc::c_void) {
        // SAFETY: the box that the thread put there, handed to us once.
        drop(unsafe { Box::from_raw(value.cast::<Late>()) });
    }

    in_every_mode("destructors_after_the_cache", || {
        // Keys made now come after the allocator's own, and so do their destructors.
        let keys = [(); 8].map(|()| {
            let mut key = 0;
            // SAFETY: `key` is ours; the destructor takes what the threads below set.
            assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(late)) }, 0);
            key
        });
        let rounds = |count: usize| {
            for _ in 0..count {
                let run = move || {
                    RUST.with_borrow_mut(|late| *late = Some(Late(a_few_objects())));
                    for key in keys {
                        let late = Box::into_raw(Box::new(Late(a_few_objects())));
                        // SAFETY: a live key.
                        assert_eq!(unsafe { libc::pthread_setspecific(key, late.cast()) }, 0);
                    }
                };
                std::thread::spawn(run).join().expect("it checks its objects");
            }
            perseq::stats()
        };
        let before = rounds(5);
        let after = rounds(40);
        assert_eq!(RUNS.load(Relaxed), 45 * 9);
        assert_eq!(after.live_small_bytes, before.live_small_bytes);
        assert_eq!(after.live_large_bytes, before.live_large_bytes);
        if matches!(after.mode.active, Mode::PerThread | Mode::PerThreadDrain) {
            assert!(after.uncached_frees > before.uncached_frees, "some came after the cache: {after:?}");
            assert!(after.caches <= before.caches, "none of the late ones made a cache again: {after:?}");
        }
    });
}

#[test]
fn allocation_at_exit() {
    static KEPT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn at_exit() {
        let mut objects = a_few_objects();
        use_heap_after_fork(&mut objects);
        objects.into_iter().for_each(Object::free);
        assert_eq!(KEPT.load(Relaxed), 1);
        println!("allocated at exit");
    }
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("allocation_at_exit", "exit").mode(mode).run().passed().said("allocated at exit");
        }
    } else if kit::as_requested() {
        KEPT.store(1, Relaxed);
        // SAFETY: the function lives for ever.
        assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    }
}

/// Caches under small budgets keep to them, whichever rule sets them.
#[test]
fn budgets() {
    let little = kit::role().as_deref() == Some("little");
    let total: u64 = if little { 4 << 10 } else { 512 << 10 };
    let each: u64 = 96 << 10;
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("budgets", "each").mode(mode).env("PERSEQ_CACHE_BYTES", "96K").run().passed();
            Child::of("budgets", "total").mode(mode).env("PERSEQ_TOTAL_BYTES", "512K").run().passed();
            Child::of("budgets", "little").mode(mode).env("PERSEQ_TOTAL_BYTES", "4K").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    const THREADS: u64 = 8;
    // All threads have caches before any fills it: a share is a share of the threads there are.
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let barrier = Arc::new(Barrier::new(THREADS as usize + 1));
    let workers: Vec<_> = (0..THREADS)
        .map(|owner| {
            let (barrier, ids) = (barrier.clone(), ids.clone());
            std::thread::spawn(move || {
                Object::new(layout(8, 8), owner).free();
                // SAFETY: gettid has no preconditions.
                ids.lock().expect("nobody panics").push(unsafe { libc::gettid() } as u32);
                barrier.wait();
                let mut random = Random::stream(owner);
                let mut held = Vec::new();
                for _ in 0..20_000 {
                    held.push(Object::new(layout(random.of(&SIZES), 8), owner));
                    if held.len() > 300 {
                        held.drain(..).for_each(Object::free);
                    }
                }
                held.into_iter().for_each(Object::free);
                barrier.wait();
                barrier.wait();
            })
        })
        .collect();
    barrier.wait();
    barrier.wait();
    let stats = perseq::stats();
    let limit = match kit::role().as_deref() {
        Some("each") => each,
        // A thread that nobody can take from keeps to its share.
        _ if stats.mode.active == Mode::PerThread => total / THREADS,
        _ => total,
    };
    let ids = ids.lock().expect("nobody panics");
    let mut caches = 0;
    perseq::for_each_cache(&mut |cache| {
        caches += 1;
        assert!(cache.cached_bytes <= cache.capacity_bytes, "{cache:?}");
        let limit = match cache.owner {
            // The cache of a thread that was there before the others grew when shares were larger, and
            // shrinks when it next overflows: the harness's threads, which do not.
            Owner::Thread(id) if !ids.contains(&id) && kit::role().as_deref() != Some("each") => total,
            _ => limit,
        };
        assert!(cache.capacity_bytes <= limit, "more than {limit} bytes: {cache:?}");
    });
    assert_eq!(caches, stats.caches);
    if kit::role().as_deref() != Some("each") {
        assert!(stats.capacity_bytes <= total, "more than {total} in all: {stats:?}");
    }
    // A share of little may be too little for any list.
    if stats.mode.active != Mode::Central && !little {
        assert!(stats.capacity_bytes > 0 && stats.underflows > 0, "caches were in use: {stats:?}");
    }
    barrier.wait();
    workers.into_iter().for_each(|worker| worker.join().expect("it checks its objects"));
}

/// `PERSEQ_MODE` has the last word, and the first allocation decides: here the test harness's.
#[test]
fn set_mode_too_late() {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of("set_mode_too_late", "late").mode(mode).run().passed();
        }
        return;
    }
    if kit::as_requested() {
        let before = perseq::active_mode();
        for mode in Mode::ALL {
            let refused = perseq::set_mode(mode).expect_err("the harness has allocated");
            assert_eq!(refused.0, before);
            assert!(refused.to_string().contains(before.active.name()), "{refused}");
        }
        assert_eq!(perseq::active_mode(), before);
    }
}
