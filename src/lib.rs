//! # perseq
//!
//! A Linux memory allocator whose front end can be indexed by CPU, by concurrency id or by thread, over one
//! and the same set of size classes, batches and back end: made to compare the three, and to be used.
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
//! 2. `cache`: the list was empty. Fetch a batch, keep the rest, and let the list grow if it has earned it.
//! 3. `transfer_cache`: a batch that another cache gave back, as an array of pointers under one lock.
//! 4. `central_free_list`: no such batch. Take objects from the fullest spans with room.
//! 5. `page_heap`: no such span. Take the shortest run of free pages that fits.
//! 6. `os`: no such run. Commit more of the reservation, in units large enough to be rare.
//!
//! Each rung costs more than the one above it and answers with a batch, so it is reached that much less often.
//!
//! # Freeing, rung by rung
//!
//! 1. `allocator`: the layout names the class; push to this CPU's slab, whichever CPU allocated the object.
//! 2. `cache`: the list was full. Give a batch back.
//! 3. `transfer_cache`: no room. The batch goes to the spans.
//! 4. `central_free_list`: each object is a bit in its span; a span without live objects is pages again.
//! 5. `page_heap`: join the run with its free neighbours; beyond a limit give the longest runs back.
//!
//! # Where things are
//!
//! | file | what it holds |
//! |---|---|
//! | `allocator.rs` | the front door: `GlobalAlloc`, the fast path first |
//! | `allocator_api.rs` | `Allocator`, for collections that name theirs |
//! | `address.rs` | blocks known by address alone, for C |
//! | `front_end.rs` | the modes: how a thread finds its cache and how lists are changed |
//! | `cache.rs` | one cache: refill, flush, growth within its budget |
//! | `registry.rs` | all caches, by index and in one list |
//! | `budget.rs` | what one cache may hold: equal capacity, or equal total |
//! | `back_end.rs` | the tiers below, put together |
//! | `transfer_cache.rs`, `central_free_list.rs`, `page_heap.rs` | the tiers |
//! | `span.rs`, `metadata.rs`, `spare_arrays.rs` | what the tiers are made of |
//! | `size_class.rs`, `config.rs` | classes and constants, with reasons |
//! | `process.rs` | the first allocation, thread exit, fork, draining |
//! | `options.rs` | what the environment may say |
//! | `mode.rs`, `stats.rs`, `report.rs` | what a program can ask, and how it is written |
//! | `hardened.rs` | every operation checked, with a quarantine and guard pages |
//! | `hits.rs` | counters of the fast path, in builds that want them |
//! | `os.rs`, `sync.rs`, `fatal.rs` | the kernel's memory calls, the lock and its order, the last words |
//!
//! # Words
//!
//! An **object** is what a program holds; a **slot** is a pointer cell of a list; a **list** is a slab's stack
//! for one class; a **slab** is all lists of one CPU, concurrency id or thread; a **batch** is a group of objects
//! moved under one lock; a **span** is a run of pages with one use. A **page** is ours, 8 KiB.
//!
//! # Choosing at run time
//!
//! | environment | meaning | default |
//! |---|---|---|
//! | `PERSEQ_MODE` | `percpu`, `percpu-mmcid`, `perthread` or `central` | `percpu` |
//! | `PERSEQ_CACHE_BYTES` | bytes each cache may hold | `1M` |
//! | `PERSEQ_TOTAL_BYTES` | bytes all caches together may hold, in equal shares | not set |
//! | `PERSEQ_STATS` | statistics at exit: `text` or `json`, to standard error or to a file, as in `json:/tmp/stats` | not set |
//! | `PERSEQ_HARDENED` | `1`: no caches, and every operation is checked | `0` |
//!
//! They are read at the first allocation; an empty one counts as not set. A value that makes no sense ends the process
//! with a message; a variable that begins with `PERSEQ_` and is not known is reported. [`options`] lists them. A share shrinks as caches are added, and a cache goes below it at its next miss. A per-CPU
//! mode that cannot run here is replaced by `perthread`, and [`active_mode`] says so and why.
//!
//! # Limits
//!
//! * Linux on x86-64.
//! * One reservation of four to eight times the physical memory (64 GiB to 8 TiB). Beyond it, allocation fails.
//! * In a forked child, objects that other threads were just moving between tiers are lost: a batch each at most.
//! * Allocating or freeing in a signal handler is not safe: slow paths take locks, and per-thread caches are
//!   changed by plain stores.
//! * A child made by `vfork` or `clone(CLONE_VM)` must not allocate before it executes another program: it reads
//!   its parent's rseq area, which the kernel does not update for it.
#![no_std]
#![cfg_attr(feature = "nightly", feature(allocator_api))]

mod address;
mod allocator;
#[cfg(any(feature = "allocator-api2", feature = "nightly"))]
mod allocator_api;
mod back_end;
mod budget;
mod cache;
mod central_free_list;
mod config;
mod fatal;
mod front_end;
mod hardened;
mod hits;
mod metadata;
mod mode;
mod options;
mod os;
mod page_heap;
mod process;
mod registry;
mod report;
mod size_class;
mod span;
mod spare_arrays;
mod stats;
mod sync;
mod transfer_cache;

pub use allocator::Perseq;
pub use config::{BUILD_CONFIG, PAGE_SIZE};
pub use mode::{ActiveMode, AlreadyActive, Mode, Reason};
pub use options::{RuntimeOption, options};
pub use process::{active_mode, drain, release, set_mode};
pub use report::{FileWriter, write_json, write_text};
pub use rseq;
pub use stats::{COUNTS_HITS, CacheStats, ClassStats, Owner, Stats, for_each_cache, for_each_class, stats};
