//! `vfork` and `clone`, which make children that run on their parent's memory: before the child runs, the calling
//! thread is lent to it (`perseq::lend_thread`), so that what the child allocates goes past the caches. A child with memory
//! of its own finds no lock held by threads that it has not (`perseq::Forking`). Otherwise they are what libc's are. libc
//! itself does not come by here: its `pthread_create`, `posix_spawn`, `popen` and `system` call functions of its own, and
//! their children do not allocate.

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;

use allocator::{Forking, LentThread, lend_thread, share_thread};

/// The calling thread is lent. What [`after`] needs.
extern "C" fn before() -> usize {
    lend_thread().into_raw()
}

/// In the parent, when the child has its own memory or is gone, or could not be made.
extern "C" fn after(answer: isize, lent: usize) -> c_int {
    // SAFETY: what `before` gave in this thread, for this call.
    drop(unsafe { LentThread::from_raw(lent) });
    said(answer)
}

/// A system call's answer as C functions give it.
fn said(answer: isize) -> c_int {
    if answer >= 0 {
        return answer as c_int;
    }
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = -answer as c_int };
    -1
}

/// As libc's. The child writes over the stack that its parent goes on with, so the return address is in a register
/// meanwhile: the kernel keeps those of the parent.
///
/// # Safety
///
/// * The child executes a program or ends, and does not return from the caller.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn vfork() -> libc::pid_t {
    naked_asm!(
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "mov rsi, rax",
        "pop rdi",
        "mov eax, {VFORK}",
        "syscall",
        "push rdi",
        "test rax, rax",
        "jz 2f",
        "mov rdi, rax",
        "jmp {after}",
        "2: ret",
        before = sym before,
        after = sym after,
        VFORK = const libc::SYS_vfork,
    )
}

/// As on x86-64; the return address is in a register anyhow.
///
/// # Safety
///
/// * The child executes a program or ends, and does not return from the caller.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn vfork() -> libc::pid_t {
    naked_asm!(
        "stp x29, x30, [sp, -16]!",
        "bl {before}",
        "ldp x29, x30, [sp], 16",
        "mov x9, x0",
        "mov x0, {FLAGS}",
        "mov x1, 0", // the stack stays
        "mov x8, {CLONE}",
        "svc 0",
        "cbz x0, 2f",
        "mov x1, x9",
        "b {after}",
        "2: ret",
        before = sym before,
        after = sym after,
        FLAGS = const libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
        CLONE = const libc::SYS_clone,
    )
}

/// What a child of [`clone`] runs.
type Child = unsafe extern "C" fn(*mut c_void) -> c_int;

/// As libc's: `child(argument)` runs in a new task at the end `stack` of its stack, which ends with what it returns. In
/// C the last three arguments are given where `flags` asks for them; where not, what is there is passed on and not
/// looked at.
///
/// # Safety
///
/// * What the flags ask for is sound: see clone(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clone(
    child: Option<Child>,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_id: *mut c_int,
    tls: *mut c_void,
    child_id: *mut c_int,
) -> c_int {
    let Some(child) = child.filter(|_| !stack.is_null()) else { return said(-libc::EINVAL as isize) };
    if flags & (libc::CLONE_VM | libc::CLONE_SETTLS) == 0 {
        let mut copied = Copied { child, argument, forking: ManuallyDrop::new(Forking::begin()) };
        let argument = (&raw mut copied).cast();
        // SAFETY: by our own contract; the child has a copy of our frame.
        let answer = unsafe { start(in_child, stack, flags, argument, parent_id, tls, child_id) };
        drop(ManuallyDrop::into_inner(copied.forking));
        return said(answer);
    }
    // SAFETY: by our own contract.
    let make = || unsafe { start(child, stack, flags, argument, parent_id, tls, child_id) };
    if flags & libc::CLONE_SETTLS != 0 {
        return said(make()); // it has TLS of its own
    }
    let lent = if flags & libc::CLONE_VFORK != 0 { Some(lend_thread()) } else { None };
    if lent.is_none() {
        share_thread(); // nobody says when the child ends
    }
    let answer = make();
    drop(lent);
    said(answer)
}

/// What a child with memory of its own finds in its copy of ours.
struct Copied {
    child: Child,
    argument: *mut c_void,
    forking: ManuallyDrop<Forking>,
}

/// First in such a child.
unsafe extern "C" fn in_child(copied: *mut c_void) -> c_int {
    // SAFETY: from `clone`, whose frame was copied, and which goes on in the parent alone.
    let Copied { child, argument, forking } = unsafe { copied.cast::<Copied>().read() };
    // SAFETY: this is the child, with its parent's TLS.
    unsafe { ManuallyDrop::into_inner(forking).in_child() };
    // SAFETY: by the contract of `clone`.
    unsafe { child(argument) }
}

/// The system call, and the child's call of `child` on its own stack.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn start(
    child: Child,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_id: *mut c_int,
    tls: *mut c_void,
    child_id: *mut c_int,
) -> isize {
    naked_asm!(
        "and rsi, -16",
        "sub rsi, 16",
        "mov [rsi], rcx", // the child finds both on its stack
        "mov [rsi + 8], rdi",
        "movsxd rdi, edx",
        "mov rdx, r8",
        "mov r8, r9",
        "mov r10, [rsp + 8]",
        "mov eax, {CLONE}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2: xor ebp, ebp", // the outermost frame
        "pop rdi",
        "pop rax",
        "call rax",
        "mov edi, eax",
        "mov eax, {EXIT}",
        "syscall",
        "ud2",
        CLONE = const libc::SYS_clone,
        EXIT = const libc::SYS_exit,
    )
}

/// As on x86-64.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn start(
    child: Child,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_id: *mut c_int,
    tls: *mut c_void,
    child_id: *mut c_int,
) -> isize {
    naked_asm!(
        "and x1, x1, -16",
        "mov x10, x0", // the child has its parent's registers
        "mov x11, x3",
        "sxtw x0, w2",
        "mov x2, x4",
        "mov x3, x5",
        "mov x4, x6",
        "mov x8, {CLONE}",
        "svc 0",
        "cbz x0, 2f",
        "ret",
        "2: mov x29, 0", // the outermost frame
        "mov x30, 0",
        "mov x0, x11",
        "blr x10",
        "mov x8, {EXIT}",
        "svc 0",
        "brk 1",
        CLONE = const libc::SYS_clone,
        EXIT = const libc::SYS_exit,
    )
}
