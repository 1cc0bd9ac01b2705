//! System calls that are refused, or deadly, from some moment on: what a sandbox does to a program that was running.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, refused};
use crate::torture::order::Order;
use nix::libc;
use std::time::Duration;

/// Some calls fail from now on.
pub const REFUSALS: Force = Force {
    name: "refusals",
    what: "system calls refused by a filter set late",
    takes_memory: false,
    absent: filters_absent,
    act: |acting| late(acting, &refusing()),
};

/// All but a few calls kill from now on.
pub const SANDBOX: Force = Force {
    name: "sandbox",
    what: "system calls made deadly by a filter set late",
    takes_memory: false,
    absent: filters_absent,
    act: |acting| late(acting, &killing()),
};

/// Calls that an allocator can do without.
const REFUSED: [(i64, i32); 7] = [
    (libc::SYS_membarrier, libc::ENOMEM),
    (libc::SYS_madvise, libc::EPERM),
    (libc::SYS_mremap, libc::ENOMEM),
    (libc::SYS_process_vm_readv, libc::EPERM),
    (libc::SYS_getcpu, libc::ENOSYS),
    (libc::SYS_openat, libc::EACCES),
    (libc::SYS_sysinfo, libc::EPERM),
];

/// Calls that live. The first line is what an allocator may use after its start; the second is the torture's own.
const LIVING: [i64; 25] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_membarrier,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Of the instructions of a filter: the number of the system call.
const LOAD: libc::sock_filter = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
const ALLOW: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);

fn if_call(call: i64, otherwise_skip: u8) -> libc::sock_filter {
    libc::sock_filter { jf: otherwise_skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32) }
}

fn refusing() -> Vec<libc::sock_filter> {
    let mut program = vec![LOAD];
    for (call, errno) in REFUSED {
        let errno = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        program.extend([if_call(call, 1), statement(libc::BPF_RET | libc::BPF_K, errno)]);
    }
    program.push(ALLOW);
    program
}

fn killing() -> Vec<libc::sock_filter> {
    let mut program = vec![LOAD];
    for call in LIVING {
        program.extend([if_call(call, 1), ALLOW]);
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Sets a filter for every thread of the process.
fn install(program: &[libc::sock_filter]) -> bool {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: plain integers; without this an unprivileged process may not install a filter.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let (set, all) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the kernel copies the instructions and writes nothing.
    alone == 0 && unsafe { libc::syscall(libc::SYS_seccomp, set, all, &raw const filter) } == 0
}

/// Asks in a child: a filter cannot be taken back.
fn filters_absent(_: &Order) -> Option<String> {
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if install(&[ALLOW]) { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(1) };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a child of ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    if waited != child {
        return refused("a child that tries a filter");
    }
    match libc::WEXITSTATUS(status) {
        0 => None,
        code => Some(format!("seccomp: {}", std::io::Error::from_raw_os_error(code))),
    }
}

fn late(acting: &mut Acting, program: &[libc::sock_filter]) {
    let half = Duration::from_secs_f64(acting.shared.order.seconds / 2.0);
    std::thread::sleep(half);
    if !install(program) {
        let error = std::io::Error::last_os_error();
        fault(format_args!("not a loss, but the end of this storm: seccomp: {error}"));
    }
    acting.happened();
    while acting.goes_on() {
        acting.sleep_us(1000);
    }
}
