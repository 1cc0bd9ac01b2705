//! Kernels and emulators that say no.

use super::*;

/// Has the kernel answer the rseq system call with `errno` in the process that `command` starts.
pub fn refuse_rseq(command: &mut Command, errno: i32) {
    // SAFETY: two system calls in the child before it executes.
    unsafe { command.pre_exec(move || kit::refuse(libc::SYS_rseq, errno)) };
}

#[test]
pub fn a_kernel_that_says_no() {
    const NAME: &str = "refused::a_kernel_that_says_no";
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

#[test]
fn emulators_that_do_not_restart() {
    const NAME: &str = "refused::emulators_that_do_not_restart";
    play_if_asked(|_| {
        let found = rseq::probe();
        assert!(matches!(found, Err(Unavailable::NotImplemented | Unavailable::ThreadNotRegistered)), "{found:?}");
        use_structures::<CpuId>(false);
        use_structures::<MmCid>(false);
        probe_role();
    });
    let program = env::current_exe().expect("this program");
    // Memcheck takes musl's malloc, which it does not know, for half its own.
    let tool = if cfg!(target_env = "musl") { "--tool=none" } else { "--tool=memcheck" };
    for emulator in [&["valgrind", "--quiet", tool] as &[&str], &["qemu-x86_64"]] {
        if !kit::is_installed(emulator[0], "an emulated kernel") {
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
