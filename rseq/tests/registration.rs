//! Who registers, and what happens when nobody can: each case in a process of its own.
//!
//! A test starts this program again with its own name, and a role in the environment; the role's checks run there.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rseq::abi::{ORIGINAL_LENGTH, SIGNATURE};
use rseq::{
    Availability, CpuId, Index, MmCid, Node, PerCpuBuffer, PerCpuCounter, PerCpuList, Registrant, Registration,
    Unavailable,
};

const ROLE: &str = "RSEQ_REGISTRATION_ROLE";
/// Turns libc's registration off, so that ours is needed.
const OWN: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

/// In a process started by [`start`]: plays its role and does not return.
fn play_if_asked(play: impl FnOnce(&str)) {
    if let Ok(role) = env::var(ROLE) {
        println!();
        play(&role);
        println!("role done");
        exit(0);
    }
}

fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Starts a role, and expects it to end well.
fn expect(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("role done"),
        "{command:?}: {:?}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Whether this kernel registers at all; says so if not. Without that only the fallback can be tested.
fn kernel_registers(test: &str) -> bool {
    // A child decides, so that this process does not register.
    let text = expect(again(test, "probe"));
    let can = !text.contains("rseq unavailable");
    if !can {
        println!("not run: {text}");
    }
    can
}

/// The part every role needs: says what was found.
fn probe_role() {
    println!("{}", Availability::get());
}

/// The structures count right, from several threads, whatever they run on.
fn use_structures<I: Index>(per_cpu: bool) {
    let counter = PerCpuCounter::<I>::new().expect("address space");
    let events = PerCpuBuffer::<512, I>::new().expect("address space");
    let mut nodes: Vec<Node<u64>> = (0..100).map(Node::new).collect();
    let list = PerCpuList::<u64, I>::new().expect("address space");
    assert_eq!((counter.is_per_cpu(), events.is_per_cpu(), list.is_per_cpu()), (per_cpu, per_cpu, per_cpu));
    nodes.iter_mut().for_each(|node| list.push(node));
    let (mut appended, mut popped) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (counter, events, list) = (&counter, &events, &list);
                scope.spawn(move || {
                    (0..1000).for_each(|_| counter.add(2));
                    let appended = (0..300).filter(|item| events.append(thread * 1000 + item).is_ok()).count();
                    let mut popped = 0;
                    for _ in 0..500 {
                        if let Some(node) = list.pop() {
                            popped += 1;
                            list.push(node);
                        }
                    }
                    let nodes: Vec<_> = list.pop_all().collect();
                    nodes.into_iter().for_each(|node| list.push(node));
                    (appended, popped)
                })
            })
            .collect();
        for worker in workers {
            let counts = worker.join().expect("no panic");
            appended += counts.0;
            popped += counts.1;
        }
    });
    assert_eq!(counter.sum(), 8000);
    let mut items = Vec::new();
    events.drain(|item| items.push(item));
    assert_eq!(items.len(), appended);
    items.sort_unstable();
    items.dedup();
    assert_eq!(items.len(), appended, "no item twice");
    assert!(appended >= 512, "{appended}: at least one buffer was filled");
    assert!(popped <= 2000);
    let mut values = Vec::new();
    list.drain(|node| values.push(node.value));
    values.sort_unstable();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
}

/// The area's numbers are the kernel's.
fn check_numbers(found: &Registration) {
    for cpu in [0, usize::MAX] {
        pin(cpu);
        let (mut real_cpu, mut real_node) = (0_u32, 0_u32);
        // SAFETY: two numbers of ours to be filled.
        unsafe { libc::syscall(libc::SYS_getcpu, &mut real_cpu, &mut real_node, 0) };
        assert_eq!(found.cpu_id(), Some(real_cpu));
        if found.has_node_id() {
            assert_eq!(found.node_id(), Some(real_node));
        }
        assert_eq!(found.mm_cid().is_some(), found.has_mm_cid());
        if let Some(cid) = found.mm_cid() {
            assert!((cid as usize) < rseq::kernel::possible_cpus());
        }
    }
}

/// Pins the calling thread to its `choice`th allowed CPU, or the last.
fn pin(choice: usize) {
    // SAFETY: all-zero bytes are an empty set, and the sets are ours.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect();
        let cpu = cpus[choice.min(cpus.len() - 1)];
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
        // Back to all of them, so that a second call has a choice; the thread stays where it is for now.
        if choice == usize::MAX {
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
    }
}

#[test]
fn area_of_libc() {
    const NAME: &str = "area_of_libc";
    play_if_asked(|role| {
        probe_role();
        if role != "probe" {
            let found = rseq::probe().expect("registered by libc");
            assert_eq!(found.registrant(), Registrant::Libc);
            assert_eq!(rseq::probe_with(64), Ok(found), "the length is for own areas only");
            use_structures::<CpuId>(true);
            use_structures::<MmCid>(found.has_mm_cid());
            std::thread::spawn(move || check_numbers(&found)).join().expect("no panic");
        }
    });
    if kernel_registers(NAME) {
        let text = expect(again(NAME, "use"));
        assert!(text.contains("registered by libc"), "{text}");
    }
}

#[test]
fn area_of_our_own_in_every_length() {
    const NAME: &str = "area_of_our_own_in_every_length";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let length = match role {
            "default" => rseq::feature_length(),
            role => role.parse().expect("a length"),
        };
        let found = if role == "default" { rseq::probe() } else { rseq::probe_with(length) }.expect("registers");
        assert_eq!((found.registrant(), found.length()), (Registrant::Own, length));
        assert!(found.feature_size() <= length);
        assert_eq!(rseq::probe(), Ok(found), "asking again changes nothing");
        let other = if length == 64 { ORIGINAL_LENGTH } else { 64 };
        assert_eq!(rseq::probe_with(other), Err(Unavailable::Refused(libc::EINVAL)), "one length per process");
        assert_eq!(rseq::probe(), Ok(found), "and a wrong question changes nothing");
        use_structures::<CpuId>(true);
        use_structures::<MmCid>(found.has_mm_cid());
        // A thread that has not registered has no numbers, and gets them when it asks.
        std::thread::spawn(move || {
            assert_eq!((found.cpu_id(), found.mm_cid(), found.node_id()), (None, None, None));
            found.ensure_thread().expect("registers");
            check_numbers(&found);
            found.forget_thread().expect("unregisters");
            assert_eq!(found.cpu_id(), None);
            // SAFETY: the handle is of that index.
            let (cpu, cid) =
                unsafe { (found.handle::<CpuId>().index::<CpuId>(), found.handle::<MmCid>().index::<MmCid>()) };
            assert_eq!((cpu, cid), (u32::MAX, u32::MAX), "no index of either kind");
            found.ensure_thread().expect("registers again");
        })
        .join()
        .expect("no panic");
        probe_role();
    });
    if kernel_registers(NAME) {
        for role in ["default", "32", "64"] {
            let mut command = again(NAME, role);
            command.env(OWN.0, OWN.1);
            let text = expect(command);
            assert!(text.contains("registered by this program"), "{text}");
            print!("{text}");
        }
    }
}

/// Has the kernel answer the rseq system call with `errno` in the process that `command` starts.
#[cfg(target_arch = "x86_64")]
fn refuse_rseq(command: &mut Command, errno: i32) {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        statement(LOAD, 0, 0, 0), // the number of the call
        statement(JUMP_IF_EQUAL, 0, 1, libc::SYS_rseq as u32),
        statement(RETURN, 0, 0, ERRNO | errno as u32),
        statement(RETURN, 0, 0, ALLOW),
    ];
    // SAFETY: two system calls in the child before it executes; `filter` moves along.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_kernel_that_says_no() {
    const NAME: &str = "a_kernel_that_says_no";
    play_if_asked(|role| {
        let expected = if role == "enosys" { Unavailable::NotImplemented } else { Unavailable::Refused(libc::EPERM) };
        assert_eq!(rseq::probe(), Err(expected));
        assert_eq!(std::thread::spawn(rseq::probe).join().expect("no panic"), Err(expected));
        use_structures::<CpuId>(false);
        use_structures::<MmCid>(false);
        probe_role();
    });
    for (role, errno, says) in
        [("enosys", libc::ENOSYS, "no rseq system call"), ("eperm", libc::EPERM, "was refused (EPERM)")]
    {
        for own in [false, true] {
            let mut command = again(NAME, role);
            if own {
                command.env(OWN.0, OWN.1);
            }
            refuse_rseq(&mut command, errno);
            let text = expect(command);
            assert!(text.contains("rseq unavailable") && text.contains(says), "{text}");
        }
    }
}

/// The raw system call with an area that is not the crate's.
fn register_foreign(area: &'static mut [u64; 8]) -> i32 {
    // SAFETY: 64 bytes that live for ever, aligned by the caller.
    let answer = unsafe { libc::syscall(libc::SYS_rseq, area.as_mut_ptr(), ORIGINAL_LENGTH, 0, SIGNATURE) };
    if answer == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().expect("an errno") }
}

#[repr(align(64))]
struct Foreign([u64; 8]);

#[test]
fn registering_twice() {
    const NAME: &str = "registering_twice";
    play_if_asked(|role| match role {
        "probe" => probe_role(),
        "ours first" => {
            let found = rseq::probe().expect("registers");
            assert_eq!(found.ensure_thread(), Ok(()));
            assert_eq!(rseq::probe(), Ok(found));
            let foreign = Box::leak(Box::new(Foreign([0; 8])));
            assert_eq!(register_foreign(&mut foreign.0), libc::EINVAL, "the kernel takes one area");
            use_structures::<CpuId>(true);
        }
        _ => {
            let foreign = Box::leak(Box::new(Foreign([0; 8])));
            assert_eq!(register_foreign(&mut foreign.0), 0);
            assert_eq!(rseq::probe(), Err(Unavailable::Refused(libc::EINVAL)), "somebody else was first");
            // It was this thread's trouble only.
            std::thread::spawn(|| rseq::probe().expect("registers")).join().expect("no panic");
        }
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "ours first"));
        for role in ["ours first", "theirs first"] {
            let mut command = again(NAME, role);
            command.env(OWN.0, OWN.1);
            expect(command);
        }
    }
}

#[test]
fn ten_thousand_threads() {
    const NAME: &str = "ten_thousand_threads";
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
    const NAME: &str = "fork_and_spawn";
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
                    let well = found.ensure_thread().is_ok() && counter.sum() == before + 100;
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

/// Builds the library of `examples/plugin.rs` and says where it is.
fn plugin() -> PathBuf {
    let mut directory = env::current_exe().expect("this program"); // <target>/<profile>/deps/<name>
    directory.pop();
    directory.pop();
    let release = directory.ends_with("release");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "rseq", "--example", "plugin"]);
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.arg("--target-dir").arg(directory.parent().expect("a target directory"));
    if release {
        command.arg("--release");
    }
    assert!(command.status().expect("cargo runs").success(), "{command:?}");
    directory.join("examples").join("libplugin.so")
}

#[test]
fn a_library_comes_and_goes() {
    const NAME: &str = "a_library_comes_and_goes";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let path = std::ffi::CString::new(role).expect("no zero byte");
        for _ in 0..4 {
            // SAFETY: our own plugin.
            let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null(), "dlopen");
            // SAFETY: the plugin's functions, with these signatures.
            let (count, sum, forget) = unsafe {
                (
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn(u64)>(libc::dlsym(
                        library,
                        c"plugin_count".as_ptr(),
                    )),
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(libc::dlsym(
                        library,
                        c"plugin_sum".as_ptr(),
                    )),
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(libc::dlsym(
                        library,
                        c"plugin_forget".as_ptr(),
                    )),
                )
            };
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        count(1000);
                        assert_eq!(forget(), 0);
                    });
                }
            });
            count(1000);
            assert_eq!(sum(), 4000);
            assert_eq!(forget(), 0);
            // SAFETY: no thread is in the library, and none left it a descriptor.
            assert_eq!(unsafe { libc::dlclose(library) }, 0);
            // The kernel must find nothing to read of what is gone.
            for _ in 0..200 {
                std::thread::yield_now();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    });
    if kernel_registers(NAME) {
        let path = plugin();
        let role = path.to_str().expect("a plain path");
        expect(again(NAME, role));
        let mut command = again(NAME, role);
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

#[test]
fn emulators_that_do_not_restart() {
    const NAME: &str = "emulators_that_do_not_restart";
    play_if_asked(|_| {
        let found = rseq::probe();
        assert!(matches!(found, Err(Unavailable::NotImplemented | Unavailable::ThreadNotRegistered)), "{found:?}");
        use_structures::<CpuId>(false);
        use_structures::<MmCid>(false);
        probe_role();
    });
    let program = env::current_exe().expect("this program");
    for emulator in [&["valgrind", "--quiet"] as &[&str], &["qemu-x86_64"]] {
        let mut command = Command::new(emulator[0]);
        if command.arg("--version").output().is_err() {
            println!("not run: {} is not installed", emulator[0]);
            continue;
        }
        let mut command = Command::new(emulator[0]);
        command.args(&emulator[1..]).arg(&program);
        command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(ROLE, "use");
        let text = expect(command);
        assert!(text.contains("rseq unavailable"), "{text}");
        println!("{}: {}", emulator[0], text.lines().find(|line| line.contains("unavailable")).unwrap_or_default());
    }
}
