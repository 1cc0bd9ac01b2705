//! The heap profile: which calls allocated what is in use, and what was allocated at all, by sampling.
//!
//! # Which blocks
//!
//! Bytes are counted, and points are thrown onto the count with exponential gaps of `rate` bytes in the mean, one
//! sequence for each thread. A block in whose bytes a point falls is a sample: one of so many `bytes` with probability
//! `1 - exp(-bytes / rate)`, whatever came before it. So a reader who divides by that has sums without bias. Bytes are
//! those of the block: of its class, or of its pages.
//!
//! # What a sample is
//!
//! A run of pages of its own, also where the block is small, whose span says so. A free of another block looks at nothing
//! that it would not look at anyway. The stack and the bytes are counted in a [site](sites): one for each pair of them, so
//! that all blocks of a site have the same probability. The span also says when, on which CPU and by which thread the
//! sample was allocated, for what is counted when it is [freed](fate); who allocated what is [in use](in_use) is in a table.
//!
//! # What it costs who does not ask
//!
//! A look at the environment at the start, and a look at one word or byte where an operation is out of line anyway. Inlined
//! code reads the word that it reads in any case ([`crate::way`]), and finds no list of the thread's where that says
//! [`PROFILED`](crate::way::PROFILED). So with the profile on each operation goes out of line, is counted, and is then
//! served from the mode's own lists. It is on from the first allocation to the end of the process, or not at all.
//!
//! No lock is held where a stack is walked. Sites are only ever added, each by one atomic operation; memory for a new one
//! is taken under the lock of all metadata. A thread that must not wait for locks takes no samples, and neither does a
//! handler that interrupts the taking of one.

pub mod fate;
pub mod in_use;
pub mod layout;
pub mod sampler;
pub mod samples;
pub mod sites;
pub mod stack;
pub mod text;
