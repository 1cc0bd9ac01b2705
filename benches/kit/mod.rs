//! Slabs for the bare sequences, criterion's settings, estimates and random numbers: shared by the benchmarks.
#![allow(dead_code)] // each benchmark uses its part

pub mod estimate;
pub mod random;

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

use criterion::Criterion;
use rseq::{Handle, Index, Slab, local, slab};

/// Lists of a slab, and the one used: not the first, as in the allocator.
pub const LISTS: usize = 44;
/// The list used.
pub const LIST: usize = 7;
const OBJECTS: usize = 64;
const SLOTS: usize = 126;

static NO_SLAB: Slab<LISTS> = Slab::new();
rseq::thread_cell! {
    /// The slab used last.
    pub fn cell() -> "perseq_bench_cell": LISTS, NO_SLAB
}

/// By index, for CPUs and for concurrency ids.
static SLABS: [OnceLock<Vec<&'static Slab<LISTS>>>; 2] = [const { OnceLock::new() }; 2];

/// Short enough for a laptop, long enough for steady figures.
pub fn criterion() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

/// Stays on one CPU.
pub fn pin() {
    let first = core_affinity::get_core_ids().and_then(|ids| ids.first().copied());
    if !first.is_some_and(core_affinity::set_for_current) {
        eprintln!("not pinned: the kernel refused");
    }
}

/// A slab with some objects, this thread's alone.
pub fn slab() -> &'static Slab<LISTS> {
    let made: &'static Slab<LISTS> = Box::leak(Box::new(Slab::new()));
    // SAFETY: the slab stays where it is.
    unsafe { made.detach() };
    let memory = NonNull::from(Box::leak(vec![0usize; SLOTS + 2].into_boxed_slice())).cast();
    // SAFETY: SLOTS + 2 words, leaked; nobody else knows the slab.
    unsafe {
        let array = slab::make_array(memory, SLOTS);
        assert!(local::replace(made, LIST, made.nothing(), array));
        for _ in 0..OBJECTS {
            assert!(local::push(made, LIST, NonNull::from(Box::leak(Box::new(0u64))).cast()));
        }
    }
    made
}

/// Makes a slab for each index a thread can have and names the calling thread's.
pub fn provide<I: Index>(handle: Handle) {
    let started = |index| {
        let made = slab();
        // SAFETY: new, whole, leaked, and the only one with this index.
        unsafe { made.start::<I>(index) };
        made
    };
    SLABS[usize::from(I::IS_CPU)].get_or_init(|| (0..rseq::kernel::possible_cpus() as u32).map(started).collect());
    locate::<I>(handle);
}

/// Names the slab of the calling thread's index.
#[cold]
pub fn locate<I: Index>(handle: Handle) {
    // SAFETY: the handle is for `I`.
    let index = unsafe { handle.index::<I>() };
    cell().set(SLABS[usize::from(I::IS_CPU)].get().expect("provided")[index as usize]);
}
