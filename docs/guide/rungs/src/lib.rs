//! The programs of the guide: an allocator from nothing, rung by rung. The book is in `docs/guide/src`.
//!
//! ```sh
//! cargo run --release -p perseq-guide -- per_cpu             # this rung beside the one before it
//! cargo run --release -p perseq-guide -- --check per_cpu     # is what it hands out right?
//! ```
//!
//! | rung | adds |
//! |---|---|
//! | [`bump`] | a pointer that goes up |
//! | [`free_list`] | memory that is freed is found again |
//! | [`size_classes`] | it is found at once |
//! | [`per_thread`] | without a lock |
//! | [`per_cpu`] | in as many caches as there are CPUs |
//! | [`transfer_cache`] | objects pass from cache to cache without being touched |
//! | [`page_heap`], [`spans`] | memory of one size becomes memory of another |
//! | [`giving_back`] | and the kernel's again |
//!
//! Each is a [`GlobalAlloc`], and from the third on each is made of those before it: what stands behind a cache is a
//! [`Tier`](tier::Tier). [`kernel`] is all that they know of Linux. [`checker`] looks at what they hand out,
//! [`workload`] is what they are measured with, [`measure`] how.

use std::alloc::{GlobalAlloc, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod bump;
pub mod checker;
pub mod free_list;
pub mod giving_back;
pub mod kernel;
pub mod measure;
pub mod page_heap;
pub mod per_cpu;
pub mod per_thread;
pub mod size_classes;
pub mod spans;
pub mod tier;
pub mod transfer_cache;
pub mod workload;

/// An allocator of this process.
pub type Allocator = &'static (dyn GlobalAlloc + Sync);

static BUMP: bump::Bump = bump::Bump::empty();
static FREE_LIST: free_list::FreeList = free_list::FreeList::empty();
static SIZE_CLASSES: size_classes::SizeClasses = size_classes::SizeClasses::empty();
static PER_THREAD: per_thread::PerThread = per_thread::PerThread;
static PER_CPU: per_cpu::PerCpu<size_classes::SizeClasses> = per_cpu::PerCpu::new(size_classes::SizeClasses::empty());
static TRANSFER_CACHE: transfer_cache::Rung = transfer_cache::rung();
static PAGE_HEAP: page_heap::Rung = page_heap::rung();
static GIVING_BACK: giving_back::GivingBack = giving_back::GivingBack::empty();
static SYSTEM: System = System;
static PERSEQ: perseq::Perseq = perseq::Perseq::new();

/// The rungs in order, with the C library's allocator below the first and perseq above the last, to compare with.
pub static RUNGS: [(&str, Allocator); 10] = [
    ("system", &SYSTEM),
    ("bump", &BUMP),
    ("free_list", &FREE_LIST),
    ("size_classes", &SIZE_CLASSES),
    ("per_thread", &PER_THREAD),
    ("per_cpu", &PER_CPU),
    ("transfer_cache", &TRANSFER_CACHE),
    ("page_heap", &PAGE_HEAP),
    ("giving_back", &GIVING_BACK),
    ("perseq", &PERSEQ),
];

/// Where in [`RUNGS`] the rung called `name` is.
#[must_use]
pub fn rung(name: &str) -> Option<usize> {
    RUNGS.iter().position(|(known, _)| *known == name)
}

/// Why lists of CPUs are one list under a lock in this process; `None` if they are lists of CPUs.
#[must_use]
pub fn without_sequences() -> Option<String> {
    if PER_CPU.is_per_cpu() {
        return None;
    }
    Some(rseq::probe().err().map_or_else(|| "membarrier is refused".into(), |why| why.to_string()))
}

/// The lock of `mutex`. That a thread panicked with it is no reason to have no memory.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
