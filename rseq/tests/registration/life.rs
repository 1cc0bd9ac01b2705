//! Threads and processes that begin and end.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

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

/// Starts so many threads that nobody waits for, some at a time, and returns when they are gone.
fn detached(threads: u64, run: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) {
    // A link for each thread. (Who reads the folder misses some while others end.)
    let tasks = || std::fs::metadata("/proc/self/task").expect("of this process").nlink();
    let before = tasks();
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: initialized by the first call, before others use it; the threads borrow nothing.
    unsafe {
        assert_eq!(libc::pthread_attr_init(attributes.as_mut_ptr()), 0);
        assert_eq!(libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED), 0);
        for _ in 0..threads {
            while tasks() > before + 20 {
                std::thread::yield_now();
            }
            let mut thread = std::mem::MaybeUninit::uninit();
            let answer = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, std::ptr::null_mut());
            assert_eq!(answer, 0, "a thread");
        }
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    while tasks() > before {
        std::thread::yield_now();
    }
}

/// Musl's unmap their own memory before they end, with the area in it.
#[test]
fn threads_that_nobody_waits_for() {
    const NAME: &str = "life::threads_that_nobody_waits_for";
    const THREADS: u64 = 3000;
    static COUNTER: OnceLock<PerCpuCounter<CpuId>> = OnceLock::new();
    extern "C" fn count(_: *mut libc::c_void) -> *mut libc::c_void {
        COUNTER.get().expect("made before").add(1);
        std::ptr::null_mut()
    }
    extern "C" fn register_and_leave(_: *mut libc::c_void) -> *mut libc::c_void {
        let mut area = area::Foreign([0; 8]);
        // SAFETY: nothing takes this memory from the kernel before it goes: that is what is tried.
        let area = unsafe { (&raw mut area.0).as_mut() }.expect("an address");
        assert_eq!(area::register_foreign(area), 0);
        std::ptr::null_mut()
    }
    play_if_asked(|role| match role {
        "probe" => probe_role(),
        "unforgotten" => detached(THREADS, register_and_leave),
        _ => {
            let counter = COUNTER.get_or_init(|| PerCpuCounter::new().expect("address space"));
            assert!(counter.is_per_cpu());
            detached(THREADS, count);
            assert_eq!(counter.sum(), THREADS);
        }
    });
    if !kernel_registers(NAME) {
        return;
    }
    expect(again(NAME, "use"));
    let mut command = again(NAME, "use");
    command.env(OWN.0, OWN.1);
    expect(command);
    // The control: memory that is not forgotten takes the process along.
    if cfg!(target_env = "musl") {
        let lost = (0..20).any(|_| {
            let status = again(NAME, "unforgotten").output().expect("it starts").status;
            assert!(status.success() || status.signal() == Some(libc::SIGSEGV), "{status}");
            !status.success()
        });
        assert!(lost, "the kernel wrote to no area that was gone");
    }
}

/// Destructors of thread-specific data use sequences, also after the crate's own destructor has run.
#[test]
fn destructors_at_the_end_of_a_thread() {
    const NAME: &str = "life::destructors_at_the_end_of_a_thread";
    const THREADS: u64 = 500;
    static COUNTER: OnceLock<PerCpuCounter<CpuId>> = OnceLock::new();
    static FOUND: OnceLock<Registration> = OnceLock::new();
    /// A key that is older than the crate's own, and one that is younger: destructors run in this order.
    static KEYS: OnceLock<[libc::pthread_key_t; 2]> = OnceLock::new();
    static ENDING: AtomicU64 = AtomicU64::new(0);
    /// Four rounds of destructors is what all of POSIX promises.
    fn destroy(key: usize, round: *mut libc::c_void) {
        COUNTER.get().expect("made before").add(1);
        match FOUND.get().expect("made before").ensure_thread() {
            Err(Unavailable::ThreadEnding) => _ = ENDING.fetch_add(1, Relaxed),
            other => assert_eq!(other, Ok(())),
        }
        if round.addr() < 4 {
            set(key, round.addr() + 1);
        }
    }
    extern "C" fn older(round: *mut libc::c_void) {
        destroy(0, round);
    }
    extern "C" fn younger(round: *mut libc::c_void) {
        destroy(1, round);
    }
    fn set(key: usize, round: usize) {
        // SAFETY: the key is valid, and the value a number.
        let answer = unsafe {
            libc::pthread_setspecific(KEYS.get().expect("made before")[key], std::ptr::without_provenance(round))
        };
        assert_eq!(answer, 0);
    }
    extern "C" fn live(_: *mut libc::c_void) -> *mut libc::c_void {
        COUNTER.get().expect("made before").add(1);
        (0..2).for_each(|key| set(key, 1));
        std::ptr::null_mut()
    }
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let key = |destructor| {
            let mut key = 0;
            // SAFETY: the key is ours to be written, the destructor is this program's.
            assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
            key
        };
        let first = key(older);
        let found = *FOUND.get_or_init(|| rseq::probe().expect("registers"));
        let counter = COUNTER.get_or_init(|| PerCpuCounter::new().expect("address space"));
        assert!(counter.is_per_cpu());
        KEYS.set([first, key(younger)]).expect("only once");
        detached(THREADS, live);
        for _ in 0..THREADS {
            std::thread::spawn(|| live(std::ptr::null_mut()).addr()).join().expect("no panic");
        }
        assert_eq!(counter.sum(), 2 * THREADS * 9, "each thread counts once, and four times in two destructors");
        // In the first round the older one finds the area, and none does afterwards.
        let ending = if cfg!(target_env = "musl") { 2 * THREADS * 7 } else { 0 };
        assert_eq!(ENDING.load(Relaxed), ending);
        assert!(found.ensure_thread().is_ok(), "this thread is not ending");
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
            libc::pthread_self() as usize // a number here, an address there
        };
        let (mut used, mut drained, mut sent) = (0, 0, 0);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0_u64;
                while HANDLED.load(Relaxed) < TIMES {
                    // SAFETY: the thread waits for this one.
                    unsafe { libc::pthread_kill(me as libc::pthread_t, libc::SIGUSR1) };
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
