//! # Caches of many CPUs, as a model
//!
//! Accesses go in, one at a time; counts come out. The same accesses give the same counts on any host.
//!
//! ```text
//!            CPU 0           CPU 1     …      CPU 8   …
//!         L1d    dTLB     L1d    dTLB
//!          │      │        │      │
//!         L2     STLB     L2     STLB         private: holds all that its L1d holds
//!          └───────┬───────┘                    │
//!             last level                   last level          one for each group of CPUs
//!                  └──── directory, memory of the nodes ────┘
//! ```
//!
//! 1. [`geometry`]: sizes and ways of known processors, and of this host.
//! 2. [`topology`]: which CPUs share a last level, which of those a node, and whose an address is.
//! 3. [`cache`]: one cache or TLB. Replacement is least recently used, exactly, at every level.
//! 4. [`model`]: the hierarchy. A line is modified or exclusive in one private cache, or shared by several (MESI), and
//!    a directory knows where each line is.
//! 5. [`counts`]: what is counted, for each CPU and each class of accesses that the caller tells apart.
//! 6. [`objects`]: how far back a CPU last touched an object that it is handed, and how many CPUs touched the object's
//!    line since it was given back; [`reuse`] sums that up.
//! 7. [`places`]: counts by where in a program's memory the data lay.
//!
//! # What it leaves out
//!
//! Time, prefetchers, speculation, store buffers, instruction fetches and the accesses of page-table walks. Levels
//! index their sets by the lowest bits of the line's number, where processors hash those of large caches. Replacement in
//! processors is an approximation of this one. So a count is that of the program's own accesses under an idealised
//! cache: ratios between programs mean something, the sum of nanoseconds does not exist.

pub mod cache;
pub mod counts;
pub mod geometry;
mod lines;
pub mod model;
pub mod objects;
pub mod places;
pub mod reuse;
pub mod topology;

pub use counts::Counts;
pub use geometry::{Geometry, Inclusion, Shape};
pub use model::{Access, Model};
pub use places::{Places, Ranges};
pub use reuse::Reuse;
pub use topology::{Distance, Topology};

/// Bytes of a line, at every level and on every processor modelled.
pub const LINE_BYTES: u64 = 64;

/// The most CPUs a model has: a directory entry keeps one bit for each.
pub const CPUS_MAX: usize = 64;
