//! Threads and processes that begin and end.

use super::*;

#[test]
fn ten_thousand_threads() {
    const NAME: &str = "life::ten_thousand_threads";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let counter = PerCpuCounter::<CpuId>::new().expect("address space");
        assert!(counter.is_per_cpu());
        for _ in 0..1000 {
            std::thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| counter.add(1));
                }
            });
        }
        assert_eq!(counter.sum(), 10_000);
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "use"));
        let mut command = again(NAME, "use");
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

#[test]
fn fork_and_spawn() {
    const NAME: &str = "life::fork_and_spawn";
    static CHILDREN: AtomicU64 = AtomicU64::new(0);
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let counter = PerCpuCounter::<CpuId>::new().expect("address space");
        let found = rseq::probe().expect("registers");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        counter.add(1); // so that forks find other threads inside sequences
                    }
                });
            }
            for _ in 0..50 {
                // SAFETY: the child uses sequences and ends; it allocates nothing.
                let pid = unsafe { libc::fork() };
                assert!(pid >= 0);
                if pid == 0 {
                    let before = counter.sum();
                    for _ in 0..100 {
                        counter.add(1);
                    }
                    // Registered as the parent was, for fences as well.
                    let fenced = rseq::fence::all().is_ok() && rseq::fence::cpu(0).is_ok();
                    let well = fenced && found.ensure_thread().is_ok() && counter.sum() == before + 100;
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(if well { 0 } else { 1 }) };
                }
                let mut status = 0;
                // SAFETY: our own child.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                assert_eq!(status, 0);
                CHILDREN.fetch_add(1, Relaxed);
            }
            // The standard library spawns by vfork and exec.
            for _ in 0..5 {
                let text = expect(again(NAME, "probe"));
                assert!(text.contains("registered by"), "{text}");
                counter.add(1);
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(CHILDREN.load(Relaxed), 50);
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "use"));
        let mut command = again(NAME, "use");
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

#[test]
fn two_hundred_and_fifty_six_threads_at_once() {
    const NAME: &str = "life::two_hundred_and_fifty_six_threads_at_once";
    const THREADS: u64 = 256;
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let found = rseq::probe().expect("registers");
        let counter = PerCpuCounter::<MmCid>::new().expect("address space");
        let events = PerCpuBuffer::<1024>::new().expect("address space");
        let all_here = std::sync::Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (counter, events, all_here) = (&counter, &events, &all_here);
                scope.spawn(move || {
                    all_here.wait();
                    (0..200).for_each(|_| counter.add(1));
                    events.append(thread).expect("room for all threads on one CPU");
                    all_here.wait(); // every thread lives while the others use their areas
                    found.ensure_thread().expect("registers");
                    kit::check_kernel_fields(&found);
                });
            }
        });
        assert_eq!((counter.is_per_cpu(), counter.sum()), (found.has_mm_cid(), 200 * THREADS));
        let mut seen = Vec::new();
        events.drain(|event| seen.push(event)).expect("membarrier");
        seen.sort_unstable();
        assert_eq!(seen, (0..THREADS).collect::<Vec<_>>());
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "use"));
        let mut command = again(NAME, "use");
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

/// What a child of `vfork` finds, as its exit code.
extern "C" fn vfork_child(found: *mut libc::c_void) -> i32 {
    const UNREGISTER: u32 = 1;
    // SAFETY: the parent's, which waits.
    let found = unsafe { &*found.cast::<Registration>() };
    let here = found.cpu_id();
    let area = kit::thread_pointer() as isize + found.offset();
    // SAFETY: the area is registered with these arguments, or not at all; asking does not touch it.
    let answer = unsafe { libc::syscall(libc::SYS_rseq, area, found.length(), UNREGISTER, SIGNATURE) };
    if answer == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return 1; // it was registered
    }
    if let Some(other) = kit::allowed_cpus().into_iter().find(|&cpu| Some(cpu as u32) != here) {
        let pinned = kit::pin(0, other);
        let (real, _) = kit::getcpu();
        if pinned && (real as usize != other || found.cpu_id() != here) {
            return 2; // somebody told it where it is
        }
    }
    0
}

/// Why a child of `vfork` must run no sequence, and that it does its parent no harm if it runs none.
#[test]
fn a_child_of_vfork_is_not_registered() {
    const NAME: &str = "life::a_child_of_vfork_is_not_registered";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let found = rseq::probe().expect("registers");
        let counter = PerCpuCounter::<CpuId>::new().expect("address space");
        let mut stack = vec![0_u128; 1 << 14];
        for _ in 0..20 {
            counter.add(1);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr_range().end.cast();
            let argument = (&raw const found).cast_mut().cast();
            // SAFETY: as vfork does: the child has a stack of its own, and we wait until it is gone.
            let pid = unsafe { libc::clone(vfork_child, top, flags, argument) };
            assert!(pid > 0, "clone");
            let mut status = 0;
            // SAFETY: our own child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "1: registered, 2: told where it is");
            kit::check_kernel_fields(&found);
            counter.add(1);
        }
        assert_eq!(counter.sum(), 40);
        use_structures::<CpuId>(true);
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "use"));
        let mut command = again(NAME, "use");
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

/// Structures of a handler and of the thread it interrupts. Rows are never available here, so that all meet at the
/// lock.
#[test]
fn handlers_use_the_structures_where_there_is_only_the_lock() {
    const NAME: &str = "life::handlers_use_the_structures_where_there_is_only_the_lock";
    const TIMES: u64 = 5_000;
    static COUNTER: OnceLock<PerCpuCounter<CpuId>> = OnceLock::new();
    static EVENTS: OnceLock<PerCpuBuffer<64>> = OnceLock::new();
    static HANDLED: AtomicU64 = AtomicU64::new(0);
    static APPENDED: AtomicU64 = AtomicU64::new(0);
    fn use_both() {
        COUNTER.get().expect("made before").add(1);
        if EVENTS.get().expect("made before").append(1).is_ok() {
            APPENDED.fetch_add(1, Relaxed);
        }
    }
    extern "C" fn handler(_: i32) {
        use_both();
        HANDLED.fetch_add(1, Relaxed);
    }
    play_if_asked(|_| {
        let counter = COUNTER.get_or_init(|| PerCpuCounter::new().expect("address space"));
        let events = EVENTS.get_or_init(|| PerCpuBuffer::new().expect("address space"));
        assert_eq!((counter.is_per_cpu(), events.is_per_cpu()), (false, false));
        // SAFETY: the handler uses the structures and atomics only. A lock that is never given back ends in SIGALRM.
        let me = unsafe {
            libc::alarm(60);
            libc::signal(libc::SIGUSR1, handler as extern "C" fn(i32) as libc::sighandler_t);
            libc::pthread_self()
        };
        let (mut used, mut drained, mut sent) = (0, 0, 0);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0_u64;
                while HANDLED.load(Relaxed) < TIMES {
                    // SAFETY: the thread waits for this one.
                    unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                    sent += 1;
                }
                sent
            });
            while !sender.is_finished() {
                use_both();
                used += 1;
                events.drain(|item| drained += item).expect("membarrier");
            }
            sent = sender.join().expect("no panic");
        });
        events.drain(|item| drained += item).expect("membarrier");
        assert!(sent >= TIMES && HANDLED.load(Relaxed) >= TIMES);
        assert_eq!(counter.sum(), used + HANDLED.load(Relaxed));
        assert_eq!(drained, APPENDED.load(Relaxed));
    });
    let mut command = again(NAME, "use");
    refused::refuse_rseq(&mut command, libc::ENOSYS);
    expect(command);
}
