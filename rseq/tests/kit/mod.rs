//! What several tests need: CPUs, and the calling thread's area as the kernel writes it.
#![allow(dead_code)] // each test uses its part

use rseq::Registration;

mod absence;

#[allow(unused_imports)] // as above
pub use absence::{is_glibc, is_installed, not_tested};

/// CPUs the calling thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours.
    unsafe {
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Pins a thread to one CPU. 0 is the calling thread. False, and it stays where it may be, if that CPU has gone
/// offline.
#[must_use]
pub fn pin(thread: libc::pid_t, cpu: usize) -> bool {
    allow(thread, &[cpu])
}

/// Pins a thread to some CPU and says which. 0 is the calling thread.
pub fn pin_to_any(thread: libc::pid_t) -> usize {
    loop {
        if let Some(cpu) = allowed_cpus().into_iter().find(|&cpu| pin(thread, cpu)) {
            return cpu;
        }
    }
}

/// Confines a thread to `cpus`. 0 is the calling thread. False, and nothing changes, if all of them have gone offline.
#[must_use]
pub fn allow(thread: libc::pid_t, cpus: &[usize]) -> bool {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours; the thread is ours or our child.
    unsafe {
        cpus.iter().for_each(|&cpu| libc::CPU_SET(cpu, &mut set));
        let done = libc::sched_setaffinity(thread, size_of_val(&set), &set) == 0;
        let error = std::io::Error::last_os_error();
        // The kernel's answer where none of them is online and allowed.
        assert!(done || error.raw_os_error() == Some(libc::EINVAL), "affinity to CPUs {cpus:?}: {error}");
        done
    }
}

/// Where the kernel says the calling thread is: CPU and node.
pub fn getcpu() -> (u32, u32) {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    // SAFETY: two numbers of ours to be filled.
    unsafe { libc::syscall(libc::SYS_getcpu, &mut cpu, &mut node, 0) };
    (cpu, node)
}

/// The address that offsets of thread-local words count from.
pub fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the thread control block begins with its own address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly));
    }
    // SAFETY: reads a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem));
    }
    pointer
}

/// The calling thread's area.
pub fn area(found: &Registration) -> [u32; 8] {
    // SAFETY: 32 bytes of this thread's area, aligned to 32 (libc's need not be aligned as ours is).
    unsafe { ((thread_pointer() as isize + found.offset()) as *const [u32; 8]).read_volatile() }
}

/// The fields in a registered thread's area that belong to the kernel are what the kernel says, so nobody else wrote
/// them.
pub fn check_kernel_fields(found: &Registration) {
    loop {
        let before = getcpu();
        let [cpu_id_start, cpu_id, _, _, flags, node_id, mm_cid, slice_ctrl] = area(found);
        if before != getcpu() {
            continue; // moved meanwhile
        }
        // The bits of slice extensions are the kernel's.
        let flags = flags & !(rseq::abi::SLICE_AVAILABLE | rseq::abi::SLICE_ENABLED);
        assert_eq!((cpu_id_start, cpu_id, flags), (before.0, before.0, 0), "cpu_id_start, cpu_id, flags");
        if found.has_node_id() {
            assert_eq!(node_id, before.1, "node_id");
        }
        if found.has_mm_cid() {
            assert!((mm_cid as usize) < rseq::kernel::possible_cpus(), "mm_cid {mm_cid}");
        }
        assert_eq!(slice_ctrl, 0, "nobody asked for a longer time slice");
        return;
    }
}

/// Has the kernel answer system call `number` of the calling thread, and of what it starts, with `errno`.
///
/// # Errors
///
/// Filters are not allowed here.
pub fn refuse(number: libc::c_long, errno: i32) -> std::io::Result<()> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        statement(LOAD, 0, 0, 0), // the number of the call
        statement(JUMP_IF_EQUAL, 0, 1, number as u32),
        statement(RETURN, 0, 0, ERRNO | errno as u32),
        statement(RETURN, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: two system calls that read the filter.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
