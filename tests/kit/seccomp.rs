//! A filter that refuses system calls, as container runtimes and sandboxes do.

use std::io::{Error, Result};

/// A system call and the errno it gets.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub call: i64,
    pub errno: i32,
}

/// Installs a filter in the calling thread, for it and all it will create. Async-signal-safe.
pub fn install(refusals: &[Refusal]) -> Result<()> {
    const MOST: usize = 4;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut program = [allow; 2 + 2 * MOST];
    assert!(refusals.len() <= MOST);
    // The number of the system call is the first word of what a filter may look at.
    program[0] = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    for (refusal, place) in refusals.iter().zip((1..).step_by(2)) {
        let mut unless = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, refusal.call as u32);
        unless.jf = 1;
        program[place] = unless;
        program[place + 1] =
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | refusal.errno.unsigned_abs());
    }
    let length = 2 + 2 * refusals.len();
    let filter = libc::sock_fprog { len: length as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain integers; without this an unprivileged process may not install a filter.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the kernel copies `length` instructions of `program`.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if alone == 0 && done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// rseq, as if the kernel did not know it.
pub const NO_RSEQ: [Refusal; 1] = [Refusal { call: libc::SYS_rseq, errno: libc::ENOSYS }];
/// rseq, forbidden.
pub const RSEQ_FORBIDDEN: [Refusal; 1] = [Refusal { call: libc::SYS_rseq, errno: libc::EPERM }];
/// Fences, forbidden.
pub const MEMBARRIER_FORBIDDEN: [Refusal; 1] = [Refusal { call: libc::SYS_membarrier, errno: libc::EPERM }];
