//! A test kit for memory allocators.
//!
//! A **stream** of operations (allocate, resize, free, send to another thread, fork, be interrupted, run out of memory) is
//! made from a seed and done on the **subject**, whatever implements [`Subject`]. Each block is full of words that follow
//! from its name and address, so a block that is handed out twice, overlaps another, is overwritten or loses contents does
//! not look like itself any more. A stream that fails is shrunk, and the shortest one found is printed with what was wrong.
//!
//! ```
//! use allocator_test_kit::{ByGlobal, Kit};
//!
//! let passed = Kit::new().seed(1).cases(5).run(|| ByGlobal(std::alloc::System)).unwrap_or_else(|failure| panic!("{failure}"));
//! assert!(passed.allocated > 0);
//! ```
//!
//! # How a case runs
//!
//! ```text
//!   this process ──fork──► a child: the subject, its threads, its own children ──► verdict in a shared page, exit status
//!        │  no progress for a while: killed, with all it started
//!        └─ shrinks, forks again
//! ```
//!
//! So faults that end a process (a crash, an abort, a hang) are found and shrunk as the others are. What the kit itself
//! notes is in mappings of its own, never in memory of the subject's: a subject that is the process's `malloc` sees the
//! operations of the stream and nothing else, and one that corrupts memory does not corrupt what is known of it.
//!
//! # What a process with threads may fork
//!
//! Cargo's harness has threads, so a case may be forked while another thread holds a lock. The child calls no code that
//! takes one of theirs: it reads the stream, which is in memory, and uses the subject, system calls, threads of the C
//! library (whose locks are put right in a child) and locks that were made in the child. It prints nothing, and leaves by
//! `_exit`. What makes the subject runs there as well, and should wait for nothing that another thread does. A subject whose own locks other threads use meanwhile must allow forks, or be tested by a process of one thread.
//!
//! # Modules
//!
//! ```text
//!   kit        seeds, cases, shrinking             stream      how a stream is made and shrunk
//!     case     a stream in a child                 ability     what it may do
//!                                                  operation   what it is made of
//!     player   does the operations                 team        the threads that it sends blocks to
//!     judge    asks the subject, checks answers    signals     the timer that interrupts
//!     block    contents of a block                 books       which addresses are held
//!     verdict  the page that outlives the child    own         memory of the kit's own
//!     subject  what is tested                      system      what the kernel is asked for
//!                                                  errno       the calling thread's
//! ```

mod ability;
mod block;
mod books;
mod case;
mod errno;
mod judge;
mod kit;
mod operation;
mod own;
mod player;
mod signals;
mod stream;
mod subject;
mod system;
mod team;
mod verdict;

pub use ability::Ability;
pub use kit::{Failure, Kit};
pub use operation::{Errand, Operation};
#[cfg(feature = "allocator-api2")]
pub use subject::allocator::ByAllocator;
pub use subject::c::ByC;
pub use subject::global::ByGlobal;
pub use subject::{Errno, Subject};
pub use verdict::{Fault, Kind, Tally};

/// The examples of the README are built.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
