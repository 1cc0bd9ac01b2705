//! System calls, made by instructions of our own.
//!
//! libc's wrappers can be replaced by any library that is loaded first, some are points where a thread is cancelled,
//! and all write errno. What an allocator or a signal handler does must not call out, so nothing in this crate uses
//! them after [`probe`](crate::probe): a call from here runs no code of anybody else's in user space, is no
//! cancellation point, and leaves errno alone. (With a libc other than glibc, a thread that is registered also sets a
//! value of thread-specific data, which is none of these.) Numbers are libc's `SYS_...`, and the same for both
//! architectures where a call is listed here.

use core::ffi::{c_int, c_long};
use core::sync::atomic::AtomicU32;

use crate::arch;

/// Makes the system call `number`: what it answers, or its errno.
///
/// Arguments that are not given are zero. There is no restart after `EINTR`.
///
/// ```
/// // SAFETY: getpid takes nothing and changes nothing.
/// let process = unsafe { rseq::syscall::call(libc::SYS_getpid, []) };
/// assert_eq!(process, Ok(std::process::id() as usize));
///
/// // SAFETY: no file has this number.
/// assert_eq!(unsafe { rseq::syscall::call(libc::SYS_close, [usize::MAX]) }, Err(libc::EBADF));
/// ```
///
/// # Errors
///
/// The errno of the call.
///
/// # Safety
///
/// * What the call does with `arguments` is sound: the pointers among them are valid for what the kernel reads and
///   writes there, and no memory that Rust code relies on is unmapped or changed.
/// * It is no call that returns twice or on another stack, such as `vfork`, `clone` with a stack, or `rt_sigreturn`.
#[inline]
pub unsafe fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> Result<usize, c_int> {
    const { assert!(N <= 6, "a system call takes six arguments at most") };
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: by our own contract.
    let answer = unsafe { arch::syscall(number, all) };
    // The kernel keeps the last page of numbers for errors.
    if answer > -4096_isize as usize { Err((answer as isize).wrapping_neg() as c_int) } else { Ok(answer) }
}

/// Sleeps while `*word` is `expected`, until [`futex_wake`]. May come back for no reason.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    // Another value, a signal and a wake are all reasons to look again.
    // SAFETY: `word` is a live, aligned u32, and there is no timeout to read.
    let _ = unsafe { call(libc::SYS_futex, [word.as_ptr() as usize, operation, expected as usize, 0]) };
}

/// Wakes up to `count` threads that sleep on `word`.
pub fn futex_wake(word: &AtomicU32, count: u32) {
    let operation = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    // SAFETY: the kernel uses the address as a key only.
    let _ = unsafe { call(libc::SYS_futex, [word.as_ptr() as usize, operation, count as usize]) };
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn thread_id() -> u32 {
    // SAFETY: takes nothing and changes nothing; it does not fail.
    unsafe { call(libc::SYS_gettid, []) }.unwrap_or(0) as u32
}

/// The CPU the calling thread runs on, or `None` where the kernel refuses to say. Out of date as soon as it is read.
/// [`Registration::cpu_id`](crate::Registration::cpu_id) is a load; this is for threads without an area.
#[must_use]
pub fn current_cpu() -> Option<u32> {
    let mut cpu = 0_u32;
    // SAFETY: the kernel writes the CPU to `cpu`; the other two pointers may be null.
    unsafe { call(libc::SYS_getcpu, [&raw mut cpu as usize, 0, 0]) }.is_ok().then_some(cpu)
}

/// Offers the CPU to other threads of the same or a higher priority.
pub fn yield_now() {
    // SAFETY: takes nothing and changes nothing; it does not fail.
    let _ = unsafe { call(libc::SYS_sched_yield, []) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_arguments_arrive_in_their_order() {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        // SAFETY: a new mapping touches nothing that exists.
        let memory = unsafe { call(libc::SYS_mmap, [0, 8192, protection, flags, usize::MAX, 0]) }.expect("memory");
        // SAFETY: eight bytes of the fresh mapping.
        unsafe { ((memory + 4096) as *mut u64).write(7) };
        // SAFETY: our own mapping.
        assert_eq!(unsafe { call(libc::SYS_munmap, [memory, 8192]) }, Ok(0));
        // The offset is the sixth: one that is not of pages is refused.
        // SAFETY: as above.
        let refused = unsafe { call(libc::SYS_mmap, [0, 8192, protection, flags, usize::MAX, 1]) };
        assert_eq!(refused, Err(libc::EINVAL));
    }

    #[test]
    fn errno_stays() {
        // SAFETY: errno is this thread's.
        let errno = unsafe { &mut *libc::__errno_location() };
        *errno = 77;
        // SAFETY: no file has this number.
        assert_eq!(unsafe { call(libc::SYS_close, [usize::MAX]) }, Err(libc::EBADF));
        let word = AtomicU32::new(1);
        futex_wait(&word, 0); // EAGAIN
        assert_eq!(*errno, 77);
    }

    #[test]
    fn the_thread_and_its_cpu_are_known() {
        // SAFETY: gettid has no preconditions.
        assert_eq!(thread_id(), unsafe { libc::gettid() } as u32);
        assert!((current_cpu().expect("getcpu") as usize) < crate::kernel::possible_cpus());
        yield_now();
    }
}
