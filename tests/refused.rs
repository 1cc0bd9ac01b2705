//! Kernels, sandboxes and emulators that refuse what the per-CPU modes need: the program runs all the same,
//! per thread, and says why. And threads that are refused after the process was not.

mod kit;

use std::process::Command;
use std::time::Duration;

use kit::Child;
use kit::seccomp::{MEMBARRIER_FORBIDDEN, NO_RSEQ, RSEQ_FORBIDDEN, Refusal, install};
use kit::torture::{Plan, run};
use perseq::{Mode, Reason};
use rseq_of_perseq::{Registrant, Unavailable};

use perseq::rseq as rseq_of_perseq;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Keeps libc from registering threads, so that the registration is ours.
const OWN_AREAS: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

fn short_torture() {
    run(Plan { duration: kit::duration(0.7), ..Plan::everything(kit::duration(0.7)) });
}

/// The torture in a process whose mode and reason are as expected and whose objects are all accounted for.
fn torture_in(active: Mode, reason: Reason) {
    let mode = perseq::active_mode();
    assert_eq!((mode.active, mode.reason), (active, reason));
    kit::await_harness();
    run(Plan { duration: Duration::from_millis(100), ..Plan::everything(Duration::ZERO) });
    let before = perseq::stats();
    short_torture();
    let after = perseq::stats();
    assert_eq!(after.live_small_bytes, before.live_small_bytes);
    assert_eq!(after.live_large_bytes, before.live_large_bytes);
    println!("ran in {mode}");
}

/// Runs `test` again under each refusal and each kind of area, for both per-CPU modes.
fn refuse(test: &str, refusals: &'static [Refusal], why: &str) {
    for mode in [Mode::PerCpu, Mode::PerCpuMmCid] {
        for own_areas in [false, true] {
            let mut child = Child::of(test, "refused").mode(mode).refusing(refusals);
            if own_areas {
                child = child.env(OWN_AREAS.0, OWN_AREAS.1);
            }
            child.run().passed().said(&format!("ran in perthread ({why})"));
        }
    }
}

#[test]
fn rseq_unknown() {
    if kit::role().is_some() {
        return torture_in(Mode::PerThread, Reason::NoRseq(Unavailable::NotImplemented));
    }
    refuse("rseq_unknown", &NO_RSEQ, "the kernel has no rseq system call (ENOSYS)");
}

#[test]
fn rseq_forbidden() {
    if kit::role().is_some() {
        return torture_in(Mode::PerThread, Reason::NoRseq(Unavailable::Refused(libc::EPERM)));
    }
    refuse("rseq_forbidden", &RSEQ_FORBIDDEN, "rseq registration was refused (EPERM)");
}

#[test]
fn membarrier_forbidden() {
    if kit::role().is_some() {
        if !kit::kernel::has_rseq() {
            return kit::not_tested("rseq", "membarrier refused where rseq is not", "this kernel has no rseq");
        }
        return torture_in(Mode::PerThread, Reason::NoFence(libc::EPERM));
    }
    for mode in [Mode::PerCpu, Mode::PerCpuMmCid, Mode::PerThreadDrain] {
        let outcome = Child::of("membarrier_forbidden", "refused").mode(mode).refusing(&MEMBARRIER_FORBIDDEN).run();
        outcome.passed();
    }
}

/// A mode that needs nothing of the kernel does not care what it refuses.
#[test]
fn modes_that_need_nothing() {
    if kit::role().is_some() {
        return torture_in(perseq::active_mode().requested, Reason::AsRequested);
    }
    for mode in [Mode::PerThread, Mode::PerThreadDrain, Mode::Sharded, Mode::PerCpuLock, Mode::Central] {
        Child::of("modes_that_need_nothing", "refused").mode(mode).refusing(&NO_RSEQ).run().passed();
    }
}

/// Without libc's registration each thread registers an area of its own, thousands of times.
#[test]
fn own_areas() {
    if kit::role().is_none() {
        for mode in [Mode::PerCpu, Mode::PerCpuMmCid] {
            Child::of("own_areas", "own").mode(mode).env(OWN_AREAS.0, OWN_AREAS.1).run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let found = rseq_of_perseq::probe().expect("the mode is per CPU");
    if found.registrant() != Registrant::Own {
        return kit::not_tested(
            "own-areas",
            "areas of our own",
            "this libc registers its areas whatever the tunable says",
        );
    }
    torture_in(perseq::active_mode().active, Reason::AsRequested);
    let before = perseq::stats();
    for _ in 0..250 {
        let threads =
            [(); 8].map(|()| std::thread::spawn(|| (0..50).map(|n| vec![1u8; n * 40]).collect::<Vec<_>>().len()));
        for thread in threads {
            assert_eq!(thread.join().expect("the thread allocates only"), 50);
        }
    }
    let after = perseq::stats();
    assert_eq!(after.live_small_bytes, before.live_small_bytes);
    // A thread that could not register would have gone past the caches each time.
    let past_the_caches = after.uncached_allocs - before.uncached_allocs;
    assert!(past_the_caches < 2000, "2000 threads of 50 allocations went past the caches {past_the_caches} times");
}

/// The filter comes when the process already runs per CPU: threads that exist go on, and new ones, which
/// have no area, go past the caches. (Of areas of our own only: where libc registers them, glibc itself ends
/// the process when it cannot for a new thread.)
#[test]
fn refused_later() {
    if kit::role().is_none() {
        for mode in [Mode::PerCpu, Mode::PerCpuMmCid] {
            Child::of("refused_later", "own areas").mode(mode).env(OWN_AREAS.0, OWN_AREAS.1).run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    if rseq_of_perseq::probe().map(|found| found.registrant()) != Ok(Registrant::Own) {
        return kit::not_tested(
            "own-areas",
            "a refusal of later threads",
            "this libc registers its areas whatever the tunable says",
        );
    }
    short_torture();
    let before = perseq::stats();
    // An older thread, with an area, works beside those without.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let older = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert_eq!((0..100).map(|n| vec![7u8; n * 3]).map(|bytes| bytes.len()).sum::<usize>(), 14850);
        }
    });
    install(&[NO_RSEQ[0], MEMBARRIER_FORBIDDEN[0]]).expect("a filter");
    short_torture();
    stop.send(()).expect("it waits for this");
    older.join().expect("it allocates only");
    drop(stop);
    let after = perseq::stats();
    assert_eq!(after.live_large_bytes, before.live_large_bytes);
    assert!(after.uncached_allocs > before.uncached_allocs + 1000, "new threads have no area: {after:?}");
}

/// Valgrind emulates a kernel without rseq.
#[test]
fn valgrind() {
    if kit::role().is_some() {
        // No torture: valgrind is slow, and runs one thread at a time.
        let mode = perseq::active_mode();
        assert_eq!((mode.requested, mode.active), (Mode::PerCpu, Mode::PerThread));
        let threads = [(); 4].map(|()| std::thread::spawn(|| (0..300).map(|n| vec![1u8; n]).collect::<Vec<_>>().len()));
        for thread in threads {
            assert_eq!(thread.join().expect("the thread allocates only"), 300);
        }
        println!("ran in {mode}");
        return;
    }
    if !kit::is_installed("valgrind", "running under valgrind") {
        return;
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=none"]);
    let outcome = Child::under(valgrind, "valgrind", "emulated").mode(Mode::PerCpu).run();
    outcome.passed().said("ran in perthread (the kernel has no rseq system call (ENOSYS))");
}
