//! # Restartable sequences, and per-CPU data made of them
//!
//! A program with per-CPU data would like to say: *add one to this CPU's counter*. In user space that is two steps,
//! find out the CPU and change its counter, and between them the kernel may move the thread to another CPU or let
//! another thread run. Atomics make the change safe wherever it happens, and are slower even where nobody contends
//! (`cargo bench --bench sequences` compares); per-thread data avoids the question, and costs memory for every thread.
//!
//! A *restartable sequence* is a short run of instructions that the kernel promises not to interrupt half-way. It does
//! not hold off the interruption. It only looks, when the thread is about to go on: if it was inside such a run, it
//! goes on at an *abort handler* instead, which starts again from the beginning. So the sequence as a whole runs on one
//! CPU with nobody between, as long as its last instruction is the only one whose effect others can see: the *commit*.
//!
//! ```text
//!    arm      area.rseq_cs = &descriptor         "start, length, abort handler"
//!    start    cpu = area.cpu_id                 ┐
//!             row = base + (cpu << SHIFT)       │ interrupted here: back to arm
//!    commit   row.count += 1                    ┘
//! ```
//!
//! *Area* is 32 bytes of each thread's memory that the kernel knows. It writes the CPU's number there whenever the
//! thread is moved; reading it is a load. Where a sequence begins and ends is said by storing the address of a
//! *descriptor* in the area. So a sequence costs one store more than the plain code, no system call and no atomic.
//!
//! The price is that sequences are assembly: a compiler knows nothing of aborts and would keep a value in a register,
//! or move the commit. This crate has a fixed set of them, tested with an abort at every one of their instructions, and
//! data structures on top that need no `unsafe`:
//!
//! ```
//! use rseq::{CpuId, PerCpuCounter};
//!
//! println!("{}", rseq::Availability::get());      // who registered, which numbers are there, or why not
//!
//! let requests = PerCpuCounter::<CpuId>::new()?;
//! std::thread::scope(|scope| {
//!     for _ in 0..8 {
//!         scope.spawn(|| requests.add(1));
//!     }
//! });
//! assert_eq!(requests.sum(), 8);                  // also where there are no sequences
//! # Ok::<(), rseq::rows::NoMemory>(())
//! ```
//!
//! # What is here
//!
//! | | |
//! |---|---|
//! | [`PerCpuCounter`], [`PerCpuList`], [`PerCpuBuffer`] | ready-made; fall back to a lock where sequences cannot run |
//! | [`Rows`] | a row of memory for every possible CPU, and [`StoppedRow`] to use another CPU's |
//! | [`Slab`], [`ThreadCell`] | stacks of objects that a word of TLS names, for allocators |
//! | [`Stopping`], [`Stopped`] | another CPU's slab, or many of them with one fence |
//! | [`sequence`] | the sequences themselves, on rows and on slabs; `unsafe`, with contracts |
//! | [`local`] | the same contracts in plain Rust, for memory one thread owns |
//! | [`fence`] | membarrier: after it, no old sequence still runs on that CPU |
//! | [`slice`](mod@slice) | a thread asks not to be preempted for a moment, while it holds a lock |
//! | [`syscall`] | system calls that nobody can interpose and that leave errno alone |
//! | [`probe`], [`Registration`], [`Availability`] | finds libc's area or registers our own, or says why not |
//! | [`Index`] | what selects a row: [`CpuId`], or [`MmCid`], a dense number that only running threads have |
//!
//! # Another CPU's data
//!
//! A sequence protects a thread from others on *its* CPU. To touch another CPU's row one must keep new sequences off
//! it, have the running one aborted, and let them on again. [`Rows::stop`] and [`Slab::stop`] do the first two and
//! return a guard; dropping the guard does the third. It costs a system call and an interrupt of the other CPU.
//! [`Stopping`] takes many slabs with one such call.
//!
//! # What to know before relying on it
//!
//! * Sequences are safe in signal handlers: an interrupted one restarts after the handler. So are the ready-made
//!   structures, whose fallback holds its lock with signals blocked; only `drain` is not, as it waits for rows its
//!   thread may hold.
//! * A child of `fork` is registered as its parent was, for fences as well. What another thread held stopped in that
//!   moment stays so in the child: its rows are passed over, and who waits for them waits for ever, as with any lock.
//! * A child of `vfork`, or of `clone` with `CLONE_VM` and without `CLONE_SETTLS`, must run no sequence. It finds its
//!   parent's area, which says where the parent was, and the kernel does not know that area as the child's: it writes
//!   no number there and aborts nothing. The child's memory and registers are its parent's but for the number that the
//!   system call returned, so no load can tell it from its parent, and this crate does not try. Who makes such children
//!   sets their thread's [`ThreadCell`] to a slab that stays stopped, before; rows have no such word. glibc's and
//!   musl's `posix_spawn` run no code of the program in their child.
//! * Single-stepping into a sequence in a debugger never ends: each stop aborts it. Step over the function.
//! * musl registers nothing, and its detached threads unmap their own memory before they end, when the kernel may still
//!   write to an area in it. So with a libc other than glibc a thread that is registered is unregistered by a destructor
//!   of thread-specific data, and stays so: what its later destructors do goes where it goes without sequences. Where no
//!   key is left for that, nothing is registered. A filter that comes later and refuses rseq refuses this as well, and
//!   the process is killed when such a thread ends.
//! * Code with sequences is better never unloaded. When a thread is preempted or gets a signal, the kernel reads the
//!   descriptor of the last sequence that the thread ran, however long ago that was, and kills the process if it is not
//!   there any more; a thread that sleeps meanwhile is no safer, and no fence reaches it. So a library that holds
//!   sequences is linked with `-z nodelete` (in its build script: `cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete`), or
//!   every thread that ran some calls [`Registration::forget_thread`] before `dlclose`, which clears the word
//!   (`examples/plugin.rs`). A sequence that ends does not clear it, since that would be a store more in each.
//! * An area of this crate's own is in its thread's TLS. The kernel is done with it when the thread has ended, which is
//!   before glibc gives the thread's memory to another.
//! * Under musl a library with such TLS is loaded with the program, or not at all: `dlopen` refuses it.
//! * A library that is loaded with `dlopen` takes a little of the static TLS that libc keeps for such, see
//!   [`thread_cell!`].
//! * A thread has one area. Two copies of this crate in a process share libc's; where libc has none, the copy that
//!   comes second in a thread is refused (EINVAL) and falls back.
//! * Where the kernel, an emulator (valgrind, qemu-user) or a filter refuses, [`probe`] says so; nothing else need be
//!   asked.
//!
//! # Versions
//!
//! Linux 4.18 has `cpu_id`, 6.3 `node_id` and `mm_cid`; fences need 5.10, slice extensions 7.0 and a kernel built with
//! them. arm64 kernels from 6.19 to 7.0.13 are refused, as they do not abort a sequence that is preempted and continued
//! on its CPU. glibc 2.35 and later register every thread; with others, or with
//! `GLIBC_TUNABLES=glibc.pthread.rseq=0`, each thread is registered when it first needs it.
//!
//! x86-64 is what this has been run on, with glibc 2.36 and with musl 1.2.3, shared and static (`tests/musl/run.sh`). The
//! aarch64 sequences have run under an arm64 kernel on an emulated machine, not on an arm64 processor. `asm/README.md` has the specification and says what was tried where.
#![no_std]

pub mod abi;
mod access;
#[cfg_attr(all(target_os = "linux", target_pointer_width = "64", target_arch = "x86_64"), path = "arch/x86_64.rs")]
#[cfg_attr(
    all(target_os = "linux", target_pointer_width = "64", target_arch = "aarch64", target_endian = "little"),
    path = "arch/aarch64.rs"
)]
#[cfg_attr(
    not(all(
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    path = "arch/unsupported.rs"
)]
mod arch;
mod buffer;
mod counter;
pub mod fence;
mod hold;
mod index;
pub mod kernel;
mod list;
pub mod local;
mod own;
pub mod rows;
pub mod sequence;
pub mod slab;
pub mod slice;
mod stop;
pub mod syscall;
mod thread;

/// What `hold` is made of, so that its model can be made of something else.
mod platform {
    pub use crate::syscall::{futex_wait, futex_wake};
    pub use core::hint::spin_loop;
    pub use core::sync::atomic::AtomicU32;

    /// Times a thread looks for a row before it sleeps: holders move a few words, or make one system call.
    pub const LOOKS: u32 = 64;
}

pub use buffer::{Full, PerCpuBuffer};
pub use counter::PerCpuCounter;
pub use index::{CpuId, Index, MmCid};
pub use list::{Chain, Node, PerCpuList};
pub use rows::{Rows, StoppedRow, Zeroed};
pub use sequence::{Miss, ThreadCell, restarts, restarts_place};
pub use slab::{STOPPED, Slab};
pub use stop::{StopError, Stopped, StoppedSet, Stopping};
pub use thread::{Availability, Handle, Registrant, Registration, Unavailable, feature_length, probe, probe_with};
