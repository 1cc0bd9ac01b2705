//! # perseq
//!
//! A Linux memory allocator whose front end can be indexed by CPU, by concurrency id, by thread or by slot, over one
//! and the same set of size classes, batches and back end: made to compare them, and to be used.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();
//!
//! fn main() {
//!     let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
//!     println!("{} squares, {}", squares.len(), perseq::active_mode());
//! }
//! ```
//!
//! # Allocating, rung by rung
//!
//! 1. [`allocator`](Perseq): round the size up to a class and pop from this CPU's slab. No lock and no atomic: the
//!    kernel restarts us if we are moved (the `rseq` crate says how).
//! 2. `cache`: the list was empty. Fetch a batch, small at first, keep the rest, and let the list grow if it has earned it.
//! 3. `transfer_cache`: a batch that another cache gave back, as an array of pointers under one lock, of this CPU's
//!    last-level cache if there is one there.
//! 4. `central_free_list`: no such batch. Take objects from the fullest spans with room.
//! 5. `page_heap`: no such span. Take the shortest run of free pages that fits.
//! 6. `grow`: no such run. Map more, in steps large enough to be rare.
//!
//! Each rung costs more than the one above it and answers with a batch, so it is reached that much less often.
//!
//! # Freeing, rung by rung
//!
//! 1. `allocator`: the layout names the class; push to this CPU's slab, whichever CPU allocated the object.
//! 2. `cache`: the list was full. Give a batch back.
//! 3. `transfer_cache`: no room. The batch goes to the spans.
//! 4. `central_free_list`: each object is a bit in its span; a span without live objects is pages again.
//! 5. `page_heap`: join the run with its free neighbours.
//! 6. `release`: what stayed free for a whole period goes back to the kernel, whole huge pages first.
//!
//! # Where things are
//!
//! | file | what it holds |
//! |---|---|
//! | `allocator.rs` | the front door: `GlobalAlloc`, the fast path first |
//! | `allocator_api.rs` | `Allocator`, for collections that name theirs |
//! | `by_address.rs` | blocks known by address alone, for C |
//! | `by_layout.rs` | what is alike for all heaps whose blocks are known by layout |
//! | `heap.rs`, `pages.rs` | heaps and page allocators apart from the process's |
//! | `objects/` | caches of constructed objects, per CPU, for a program's own types |
//! | **`profile/`** | **the heap profile: blocks sampled at random, with stacks** |
//! | `sampler.rs`, `samples.rs` | when a sample is due; blocks that are samples |
//! | `sites.rs`, `stack.rs`, `text.rs` | what was counted for each stack, how that is walked, and the file |
//! | `fate.rs`, `layout.rs` | where, by whom and after how long samples were freed; where a reader from outside finds all this |
//! | `hardened.rs` | every operation checked, with a quarantine and guard pages |
//! | **`front_end/`** | **the caches, and the modes, which differ in nothing else** |
//! | `fast.rs` | what is inlined into every operation |
//! | `slow.rs` | what comes after it: a cache found, refilled or flushed, and what that takes from other caches |
//! | `modes/` | a file for each kind of mode: how a cache is found, and how others seize it |
//! | `contract.rs`, `lists.rs` | what a mode has to say, and how lists are changed |
//! | `thread.rs`, `gate.rs` | what a thread keeps, and how it keeps others out without an atomic operation |
//! | `cache.rs` | one cache: refill, flush, growth within its budget |
//! | `behind.rs` | what a cache sees of the tiers behind it |
//! | `registry.rs` | all caches, by index and in one list |
//! | `budget.rs` | what caches may hold: equal capacity, or equal total |
//! | `reclaim.rs` | caches seized from their owners: drained, found idle, made to give budget |
//! | `hits.rs` | counters of the fast path, in builds that want them |
//! | **`middle/`** | **the tiers between the caches and the pages** |
//! | `back_end.rs` | all tiers behind the caches, put together |
//! | `of_class.rs` | the middle tier for one class: transfer caches first, spans behind them |
//! | `transfer_cache.rs`, `central_free_list.rs` | one array of objects on their way; one class's spans |
//! | `transfer_caches.rs`, `shards.rs`, `topology.rs` | transfer caches in shards: one for each last-level cache |
//! | `spare_arrays.rs`, `spare_bitmaps.rs`, `tables.rs` | memory for the arrays of lists, for spans, for tables |
//! | **`page_heap/`** | **runs of pages: split, joined, grown and shrunk in place** |
//! | `free_pages.rs`, `free_runs.rs`, `huge_pages.rs` | which pages it takes, and where free ones are kept |
//! | `span.rs`, `metadata.rs` | one run of pages in use; the allocator's own memory |
//! | `large.rs` | large blocks: grown in place, or moved without a copy |
//! | `release.rs`, `refused.rs`, `limits.rs` | when memory goes back, what does not, and how much there may be |
//! | `space.rs`, `grow.rs` | where the pages are: how address space is taken as the heap grows, and given up |
//! | `directory.rs` | the process's page map: any address to what lies there, without a lock |
//! | `regions.rs`, `source.rs`, `sources.rs` | the address space of other heaps, and where their memory comes from |
//! | `check.rs` | the page heap's laws, walked in debug builds |
//! | **`process/`** | **the life of the process** |
//! | `start.rs`, `choice.rs` | the first allocation, and which mode it decides on |
//! | `environment.rs`, `options.rs`, `control.rs` | what the environment may say, and what a program may say and ask |
//! | `cgroup.rs` | what memory the process may have, for limits in percent |
//! | `fork.rs`, `thread_exit.rs`, `exit_report.rs` | fork, the end of a thread, and the report at the end of the process |
//! | `heap_profile.rs`, `output_path.rs` | the heap profile's begin and end, and where it and reports are written |
//! | `deferred.rs` | what was freed where no lock could be waited for |
//! | `misused.rs` | what becomes of the heap where an object may have been freed twice |
//! | `exhaustion.rs` | what is tried when memory is exhausted |
//! | `check.rs` | the invariants of all files, walked in debug builds |
//! | `resident.rs` | a library that holds the allocator stays loaded |
//! | `background.rs`, `reporter.rs`, `own_thread.rs` | the threads that give memory back and that report, and how one begins |
//! | **`stats/`** | **the numbers: `numbers.rs` names them, `collect.rs` finds them, `report.rs` writes them** |
//! | `live.rs`, `place.rs` | where all this is in memory, for who reads the process from outside |
//! | `mode.rs`, `owner.rs` | the modes by name, and whom a cache belongs to |
//! | `decided.rs`, `way.rs` | what the first allocation decided: `process` writes it, all others read it |
//! | `written_once.rs` | a value that one thread writes once, before the others read it |
//! | `size_class.rs`, `config.rs` | classes and constants, with reasons |
//! | `emergency.rs` | memory for a thread that must not wait for a lock |
//! | `os.rs`, `names.rs`, `vdso.rs`, `errno.rs` | the kernel's memory calls, names of mappings, its clock, errno |
//! | `sync.rs`, `this_thread.rs`, `lock_order.rs` | the lock, who holds how many, their order |
//! | `slices.rs` | holders of locks ask the kernel for more time, where it has that |
//! | `misuse.rs`, `fatal.rs`, `message.rs` | what a program may not do, and the last words |
//!
//! # Words
//!
//! An **object** is what a program holds; a **slot** is a pointer cell of a list, and in the mode `sharded` also a
//! cache; a **list** is a slab's stack for one class; a **slab** is all lists of one cache; a **batch** is a group of
//! objects moved under one lock; a **span** is a run of pages with one use. A **page** is ours, 8 KiB.
//!
//! # Choosing at run time
//!
//! | environment | meaning | value | default |
//! |---|---|---|---|
//! | `PERSEQ_MODE` | how a thread finds its cache | percpu, percpu-mmcid, perthread, perthread-drain, sharded, percpu-lock, central | `percpu` |
//! | `PERSEQ_CACHE_BYTES` | bytes each cache may hold; not together with PERSEQ_TOTAL_BYTES | bytes, at least 4K, with K, M or G for a multiple of 1024, as in 512K; for no caches, PERSEQ_MODE=central | `1M` |
//! | `PERSEQ_TOTAL_BYTES` | bytes all caches together may hold, in equal shares; not together with PERSEQ_CACHE_BYTES | bytes, at least 4K, with K, M or G for a multiple of 1024, as in 512K; for no caches, PERSEQ_MODE=central | not set |
//! | `PERSEQ_LENDING` | whether a cache borrows what others do not use of PERSEQ_TOTAL_BYTES, in the modes that can | 0 or 1 | `1` |
//! | `PERSEQ_RELEASE` | when free pages go back to the kernel | now, never, or the milliseconds that nobody used them, 1 to 4294967294 | `2000` |
//! | `PERSEQ_BACKGROUND` | whether a thread gives memory back, also when the process is idle | 0 or 1 | `0` |
//! | `PERSEQ_SOFT_LIMIT` | bytes held above which free pages go back before more memory is taken | bytes, above 0, as in 512M or 2G, or 1% to 100% of the memory this process may have | not set |
//! | `PERSEQ_HARD_LIMIT` | bytes held above which allocation fails; percent are of the least of the physical memory and the limits of this process's control groups (cgroup), under which the kernel would kill it | bytes, at least 1M, as in 512M or 2G, or 1% to 100% of the memory this process may have | not set |
//! | `PERSEQ_THP` | what the kernel is told about transparent huge pages | default, always or never | `default` |
//! | `PERSEQ_IDLE_DRAIN` | milliseconds after which the cache of an idle CPU or thread is emptied | milliseconds, 1 to 86400000, or off | `10000` |
//! | `PERSEQ_SHARDS` | caches in the mode sharded | a number from 1 to 4096 | 4 for each CPU |
//! | `PERSEQ_TRANSFER_SHARDS` | shards of the transfer caches, among which CPUs are dealt out in turn | a number from 1 to 64 | 1 for each last-level cache, as /sys says |
//! | `PERSEQ_NAMES` | whether mappings have names in /proc/PID/maps and smaps, as perseq:heap, where the kernel has that; prctl(2) is then among the calls that are made at any time | 0 or 1 | `0` |
//! | `PERSEQ_SLICE` | whether a thread that holds a lock of the allocator's asks the kernel not to preempt it for some microseconds (Linux 7.0 with CONFIG_RSEQ_SLICE_EXTENSION); observe only counts what becomes of holders; prctl(2) and rseq_slice_yield(2) are then among the calls that are made at any time | 0, 1 or observe | `0` |
//! | `PERSEQ_STATS` | statistics at exit, to standard error (not of a forked child that closed it) or appended to a file; also every so many seconds, or when a signal arrives, which takes a thread | text, json, text:PATH or json:PATH, and behind it ,every=SECONDS (to 86400) or ,signal=USR1 or ,signal=USR2 | not set |
//! | `PERSEQ_PROFILE` | a heap profile by sampling, for pprof, written to PREFIX.PID.heap at exit: bytes from one sample to the next, in the mean | bytes, at least 4K, as in 512K, and behind it perhaps ,PREFIX | not set; PREFIX is perseq |
//! | `PERSEQ_HARDENED` | 1: no caches, and every operation is checked; for programs that may misuse memory | 0 or 1 | `0` |
//!
//! They are read at the first allocation; an empty one counts as not set. A value that makes no sense ends the process
//! with a message; a variable that begins with `PERSEQ_` and is not known is reported. [`options`] lists them.
//!
//! A total is a bound: together caches never hold more. Each has a right to an equal share of it; what nobody uses,
//! others may borrow.
//!
//! A mode that cannot run here is replaced by `perthread`, or `percpu-mmcid` by `percpu` if that can; the hardened mode
//! runs as `central`. [`active_mode`] says so and why.
//!
//! An idle cache is emptied by a thread that misses, at the price of a fence, between one period and one and a half
//! after its last use: that of a thread that sleeps, of a CPU that went offline, or of one that the process may not use
//! any more. Not in `perthread`, where only its thread can touch a cache; and not while nobody misses.
//!
//! # Memory that goes back
//!
//! At the end of each period, the fewest pages that were free at any moment of it go back to the kernel, whole huge
//! pages first. The slow paths of the program's threads do it, at most 64 MiB at a time. So a process that goes
//! completely idle keeps what it had free until it does something, unless it has the background thread.
//! [`set_release`], [`set_limits`] and [`set_background`] say at run time what the environment says at the start, and
//! [`release`] does it now.
//!
//! Limits count what is or may be resident ([`Stats::held_bytes`]): pages in use, free pages with old data, and tables.
//! A block counts whole from the start, though its pages are resident only once touched.
//!
//! A limit in percent is of the least of the physical memory and the limits of this process's memory control group
//! (cgroup, of either version) and those above it, as they are at the first allocation. Beyond such a group's limit the
//! kernel does not refuse memory: it kills a process of the group when memory is touched. Nothing but a hard limit
//! below it makes allocation fail instead. What is not the heap (code, stacks, other processes of the group) needs room
//! beside it. What caches keep is part of the heap. Without percent the groups are not looked at: address space does
//! not count there, and a group's limit may change while the process runs.
//!
//! # Signals, forks and sandboxes
//!
//! * **A signal handler may allocate, resize and free** in all modes but `perthread` and `perthread-drain`, hardened as
//!   well, whatever it interrupts. Fast paths are sequences, which the kernel aborts, or under a lock. A handler that
//!   interrupts a slow path of its own thread waits for no lock: it gets memory from regions apart, and what it frees
//!   goes home on the next slow path. In the two modes, a thread's lists are changed by plain loads and stores, and a handler
//!   that allocates between them may get an object that the interrupted code gets, too. Statistics,
//!   [`drain`], [`release`](crate::release()) and the types [`Heap`], [`pages`] and [`objects`] are not for handlers; nor
//!   is a background thread, which a slow path may have to start. A handler that calls one in the middle of the same ends
//!   the process, with a line on standard error.
//! * **fork** is right at any time, also in a handler, and its child may allocate. A thread that allocates during a fork
//!   waits for it 50 ms at most, and then gets memory from the same regions: so no thread keeps a fork waiting for what
//!   it holds, a stream of stdio for example. A fork in a handler that interrupted an allocation waits for no lock. Where
//!   another thread held one at that moment, the child allocates from those regions only, and gives nothing back.
//! * **No call is a point where a thread is cancelled**, and none but the first opens a file. After the first
//!   allocation, allocating and freeing make these system calls only: `mmap`, `munmap`, `mprotect`, `madvise`, `mremap`, `futex`, `membarrier`,
//!   `getcpu` (`percpu-lock` where the kernel keeps no CPU's number), and `write` to say what was misused. Exceptions: with
//!   `PERSEQ_NAMES=1`, `prctl` after what maps, until it is refused; with `PERSEQ_SLICE=1`, where the kernel gives it,
//!   `prctl` once in each thread and `rseq_slice_yield` after a lock was held; a background thread is a thread, made by
//!   libc; where libc registers no rseq areas (before glibc 2.35, musl) each thread registers its own at its first
//!   allocation, and under musl ends that before its memory goes; where the kernel lends no code for its clock,
//!   `clock_gettime`.
//! * **A heap profile** (`PERSEQ_PROFILE`, with glibc) walks the stack of whoever allocates a sample, which takes some KiB of
//!   that stack, also where a handler has one of its own. There, and where one is freed, it reads the clock, and calls `getcpu`
//!   where the kernel keeps no CPU's number. A handler that interrupts a slow path allocates no samples. A forked child
//!   begins with its parent's samples, and has a file of its own.
//! * **A refused call** of those (a filter, an old kernel, a limit) means one thing each. What a mode needs (rseq,
//!   `membarrier`, concurrency ids) is asked for at the first allocation, which decides once; [`active_mode`] says what
//!   runs and why. What is refused later changes no mode. `mmap` or `mprotect`: memory is exhausted, null and `ENOMEM`.
//!   `madvise`: free pages stay resident, and are counted. `munmap`: address space stays. `mremap`: blocks are copied
//!   where they grow. `membarrier`: caches of others stay full. `getcpu`, or `rseq` for a thread's own area: that thread
//!   goes past the caches.
//! * **A thread of perseq's** (`PERSEQ_BACKGROUND=1`, `PERSEQ_STATS` with `every` or `signal`) makes a process
//!   multi-threaded: `unshare(CLONE_NEWUSER)` and `setns` of a user namespace fail with `EINVAL`, as in any such process.
//! * **Memory goes back from slow paths.** Small traffic that a cache serves comes to none: in `perthread` and
//!   `perthread-drain` for ever, in the other modes until the thread is moved to another CPU. A burst before it then stays
//!   resident. A background thread gives it back in every mode, and [`release`](crate::release()) at once.
//!   `docs/architecture.md` says why nothing else could without a price on the fast path.
//!
//! # Limits
//!
//! * Linux on x86-64 and aarch64. The latter has run under arm64 kernels on emulated machines only, never on an arm64
//!   processor. Where the kernel's page is larger than [`PAGE_SIZE`], only whole ones of the kernel's go back.
//! * A block is smaller than 16 TiB, and aligned to less. What the kernel would refuse any program is refused: a block of
//!   more than the memory there is (unless `vm.overcommit_memory` is 1), or address space beyond `RLIMIT_AS`.
//! * The heap has at most some 8,000 of the 65,530 mappings of a process (`vm.max_map_count`) for holes in its address
//!   space and for blocks moved without a copy. A heap more fragmented than that keeps address space that is free, though
//!   not resident; then blocks are copied where they grow.
//! * Memory that the program locks (`mlock`, `mlockall`) does not go back, and is not tried again before something beside
//!   it is freed or all is asked for. What is beside it goes back.
//! * In `percpu` and `percpu-mmcid`, a debugger that steps by instructions through an allocation never comes out of it: each
//!   stop starts the sequence again. So it is with gdb's watchpoints in software; those of the processor, and other modes,
//!   are as usual.
//! * In a forked child, objects that other threads were just moving between tiers are lost: a batch each at most. A child of
//!   a fork in a handler that interrupted an allocation, where another thread changed the heap, gives nothing back, writes
//!   no report at exit, and ends with a line where it asks for statistics.
//! * A library that holds perseq stays mapped after `dlclose`: threads, the kernel and every block point into it.
//! * A thread that is cancelled asynchronously inside malloc or free may leave a lock behind, as with other libraries.
//! * A child of `vfork` or `clone(CLONE_VM)` runs on its parent's rseq area, of which the kernel knows nothing. It may
//!   allocate if the parent called [`lend_thread`] before; libperseq's `vfork` and `clone` do. Not so after such a system
//!   call made in another way (`syscall`, assembly): that child must not allocate in `percpu` and `percpu-mmcid`.
//!   `posix_spawn`, `popen` and `system` of glibc and musl do not allocate in their child.
//! * A child with memory of its own of which libc tells nobody (`clone` without `CLONE_VM`, `_Fork`, such a system call) may
//!   wait for ever for a lock that another thread of its parent held. Not so with [`Forking`], as in libperseq's `clone`
//!   without `CLONE_SETTLS`.
#![no_std]
#![cfg_attr(feature = "nightly", feature(allocator_api))]

#[cfg(test)]
mod aborting;
#[cfg(test)]
#[path = "../rseq/tests/kit/absence.rs"]
mod absence;
mod allocator;
#[cfg(any(feature = "allocator-api2", feature = "nightly"))]
mod allocator_api;
mod atomic;
mod by_address;
mod by_layout;
mod config;
mod decided;
mod emergency;
mod errno;
mod fatal;
mod front_end;
mod hardened;
mod heap;
mod lock_order;
mod message;
mod middle;
mod misuse;
mod mode;
mod names;
pub mod objects;
mod os;
mod owner;
mod page_heap;
pub mod pages;
mod place;
mod process;
mod profile;
mod size_class;
mod slices;
mod stats;
mod sync;
mod this_thread;
mod vdso;
mod way;
mod written_once;

pub use allocator::Perseq;
pub use config::{BUILD_CONFIG, PAGE_SIZE};
pub use heap::{Heap, HeapStats};
pub use mode::{ActiveMode, AlreadyActive, Mode, Reason};
pub use owner::Owner;
pub use page_heap::huge_pages::HugePageStats;
pub use page_heap::release::Policy as ReleasePolicy;
#[doc(hidden)]
pub use process::check::check;
pub use process::children::{LentThread, lend_thread, share_thread};
pub use process::control::{
    Limits, drain, limits, release, set_background, set_limits, set_release, stats, write_json, write_profile,
    write_text,
};
pub use process::fork::Forking;
pub use process::options::{RuntimeOption, options};
pub use process::start::{active_mode, set_mode};
pub use rseq;
pub use slices::Slices;
pub use stats::collect::{for_each_cache, for_each_class};
pub use stats::file_writer::FileWriter;
pub use stats::live;
pub use stats::numbers::{COUNTERS, COUNTS_HITS, CacheStats, ClassStats, Stats};
