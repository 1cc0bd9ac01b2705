//! Children that run on their parent's memory and allocate there before they are another program: by `vfork`, and by
//! `clone` with and without `CLONE_VFORK`.
//!
//! Through libperseq its own `vfork` and `clone` are called, as by any program; through the crate a program says itself
//! that it lends its thread.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere, run_on, thread};
use crate::torture::heap::Door;
use crate::torture::holder::Holder;
use nix::libc::{self, c_char, c_int, c_void};
use std::arch::naked_asm;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr::{from_mut, null};

/// Children on borrowed memory.
pub const VFORKS: Force = Force {
    name: "vforks",
    what: "children of vfork and clone(CLONE_VM) that allocate on their parent's memory",
    takes_memory: false,
    absent: anywhere,
    act: vforks,
};

/// Stack of a child of `clone`.
const STACK_BYTES: usize = 256 << 10;
/// Blocks that a child is given, and blocks that it makes.
const BLOCKS: usize = 30;

#[derive(Clone, Copy)]
enum Way {
    Vfork,
    CloneVfork,
    /// Parent and child could run at once, and both have one errno: so the parent waits. The thread is shared for ever.
    Clone,
}

/// What a child works on. It is the parent's, and is looked through by it afterwards.
struct Work {
    holder: Holder,
    cpu: usize,
    executes: bool,
}

fn vforks(acting: &mut Acting) {
    let mut stack = vec![0_u8; STACK_BYTES];
    let holder = acting.shared.holder(1 << 21);
    let mut work = Work { holder, cpu: 0, executes: false };
    while acting.goes_on() {
        let cpus = &acting.shared.cpus;
        work.cpu = cpus[acting.random.below(cpus.len())];
        work.executes = acting.random.once_in(16);
        let way = [Way::Vfork, Way::CloneVfork, Way::Clone][acting.random.below(3)];
        let door = acting.shared.heap.door;
        (0..BLOCKS).for_each(|_| work.holder.allocate());
        match way {
            Way::Clone => std::thread::scope(|scope| {
                // A thread for this one: what it does afterwards goes past the caches.
                match thread().spawn_scoped(scope, || child_of(way, door, &mut stack, &mut work)) {
                    Ok(started) => drop(started.join()),
                    Err(error) => fault(format_args!("a thread: {error}")),
                }
            }),
            _ => child_of(way, door, &mut stack, &mut work),
        }
        work.holder.objects.iter().for_each(|object| object.check());
        work.holder.free_all();
        acting.happened();
        acting.sleep_us(500);
    }
}

/// Makes a child and waits for its end.
fn child_of(way: Way, door: Door, stack: &mut [u8], work: &mut Work) {
    let argument = from_mut(work).cast::<c_void>();
    // SAFETY: the end of the stack, which is aligned down by `clone`.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) }.cast::<c_void>();
    let clone = |flags: c_int| {
        // SAFETY: the child runs on a stack of its own, and ends before `work` and `stack` are used again.
        unsafe { libc::clone(child, top, flags | libc::CLONE_VM | libc::SIGCHLD, argument) }
    };
    let by_crate = door == Door::Crate;
    let lent = (by_crate && !matches!(way, Way::Clone)).then(perseq::lend_thread);
    let pid = match way {
        // SAFETY: the child ends or executes within `child`.
        Way::Vfork => unsafe { vfork_and_call(child, argument) },
        Way::CloneVfork => clone(libc::CLONE_VFORK),
        Way::Clone => {
            if by_crate {
                perseq::share_thread();
            }
            clone(0)
        }
    };
    drop(lent);
    if pid < 0 {
        fault(format_args!("a child on borrowed memory: {}", std::io::Error::last_os_error()));
    }
    let mut status = 0;
    // SAFETY: a child of ours; `status` is ours to write.
    while unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            fault(format_args!("waiting for a child on borrowed memory: {error}"));
        }
    }
    let status = ExitStatus::from_raw(status);
    if !status.success() {
        fault(format_args!("a child on borrowed memory ended with {status}"));
    }
}

/// In the child: goes to another CPU than its parent was on, looks at what it was given, allocates, resizes, frees.
extern "C" fn child(work: *mut c_void) -> c_int {
    // SAFETY: the parent's `work`, which nobody else uses until we end.
    let work = unsafe { &mut *work.cast::<Work>() };
    run_on(0, &[work.cpu]);
    work.holder.objects.iter().for_each(|object| object.check());
    for turn in 0..BLOCKS {
        work.holder.allocate();
        if turn % 2 == 0 {
            work.holder.free();
        } else {
            work.holder.resize();
        }
    }
    if work.executes {
        let arguments: [*const c_char; 3] = [c"perseq".as_ptr(), c"--version".as_ptr(), null()];
        // SAFETY: C strings, ended by null; the child's table of files is its own.
        unsafe {
            libc::dup2(libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY), 1);
            libc::execve(c"/proc/self/exe".as_ptr(), arguments.as_ptr(), environ);
        }
        return 1;
    }
    0
}

unsafe extern "C" {
    static environ: *const *const c_char;
    // The libc crate calls its own deprecated, since no Rust function may return twice. Here it returns into assembly.
    fn vfork() -> libc::pid_t;
}

/// What a child runs.
type Child = extern "C" fn(*mut c_void) -> c_int;

/// The process id of a child of `vfork` that runs `child(argument)` below this frame and ends with what that returns.
///
/// # Safety
///
/// * `argument` is what `child` expects.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn vfork_and_call(child: Child, argument: *mut c_void) -> libc::pid_t {
    naked_asm!(
        "push rbx",
        "push rbp",
        "sub rsp, 8",
        "mov rbx, rdi",
        "mov rbp, rsi",
        "call {vfork}",
        "test eax, eax",
        "jnz 2f",
        "mov rdi, rbp",
        "call rbx",
        "mov edi, eax",
        "call {exit}",
        "ud2",
        "2: add rsp, 8",
        "pop rbp",
        "pop rbx",
        "ret",
        vfork = sym vfork,
        exit = sym libc::_exit,
    )
}

/// As on x86-64.
///
/// # Safety
///
/// * `argument` is what `child` expects.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn vfork_and_call(child: Child, argument: *mut c_void) -> libc::pid_t {
    naked_asm!(
        "stp x29, x30, [sp, -32]!",
        "stp x19, x20, [sp, 16]",
        "mov x19, x0",
        "mov x20, x1",
        "bl {vfork}",
        "cbnz w0, 2f",
        "mov x0, x20",
        "blr x19",
        "bl {exit}",
        "brk 1",
        "2: ldp x19, x20, [sp, 16]",
        "ldp x29, x30, [sp], 32",
        "ret",
        vfork = sym vfork,
        exit = sym libc::_exit,
    )
}
