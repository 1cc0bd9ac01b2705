//! Caches of constructed objects: an object that is given back stays as it was left, and is handed out so.
//!
//! Building an object often costs more than its memory: buffers it owns, locks it initializes, tables it fills. If objects
//! are put together and taken apart all the time, most of that is spent on bringing them from one known state to the same
//! known state. An object cache keeps the state: it constructs an object when there is none to hand out, and destructs it
//! when it leaves the cache, not when it is given back.
//!
//! ```
//! use perseq::objects::ObjectCache;
//!
//! let buffers = ObjectCache::<Vec<u8>>::builder()
//!     .by_fn(|| Vec::with_capacity(4096))
//!     .reset(|buffer| buffer.clear())
//!     .build()?;
//! for _ in 0..10 {
//!     let mut buffer = buffers.get().expect("memory");
//!     buffer.extend(b"as long as this, or longer");
//! } // given back, with its 4096 bytes
//! assert_eq!(buffers.stats().ctor + buffers.stats().ctor_elided, 10);
//! assert_eq!(buffers.shrink(), buffers.stats().ctor as usize);
//! # Ok::<(), perseq::objects::BuildError>(())
//! ```
//!
//! The idea is Bonwick's ("The Slab Allocator: An Object-Caching Kernel Memory Allocator", USENIX Summer 1994), and so is
//! what is done for many CPUs (Bonwick and Adams, "Magazines and Vmem", USENIX 2001).
//!
//! # Taking, rung by rung
//!
//! 1. This CPU's list: a few pointers, changed in a restartable sequence ([`rseq::PerCpuBuffer`]).
//! 2. The cache's depot, an array of pointers under a lock: half a list at a time. A thread that takes and gives at the border
//!    between full and empty goes there once in half a list, which is what a CPU's second magazine is for in the paper.
//! 3. The process's heap: memory for one object, and the constructor.
//! 4. Memory is exhausted: an object from another CPU's list.
//!
//! A second sequence counts what step 1 served, so [`ObjectStats::ctor_elided`] is exact and no atomic is shared for it.
//!
//! Giving back climbs the same ladder; what the depot has no room for is destructed. Where sequences do not run, step 1 is
//! left out, and every object comes through the depot's lock ([`ObjectCache::is_per_cpu`]).
//!
//! # Memory
//!
//! Lists and depot are arrays of pointers, so no byte of an object is used while it is idle, and no header stands before
//! it. Objects are blocks of the size class that fits `T`, packed as all of that class, or runs of pages if they are
//! large; they may have any alignment. An object without size has no memory; it is constructed, counted and destructed
//! like any other.
//!
//! Everything on a list is constructed: memory of objects that were destructed is the heap's at once, for whoever needs
//! that class. So no pointer carries a bit that says "constructed", and there is no slab of the cache's own. That is also
//! why objects are not coloured as in the paper: it shifts the objects of a slab by what is left over in it, and here there is no
//! such slab.
//!
//! Idle objects stay until [`ObjectCache::shrink`] or the cache's end; a CPU that no thread uses any more keeps what is on its
//! list till then. At most the builder's capacities are idle.
//!
//! # Panics
//!
//! A constructor that panics gives its memory back. An object whose reset panics is destructed, for it may be half reset.
//! If a destructor panics, the other objects that were leaving with it are destructed all the same (a second panic
//! aborts, as everywhere in Rust). A user that panics gives its object back as it is then: that is for the reset to clean, or for
//! [`Cached::discard`] to prevent.
//!
//! # Limits
//!
//! * Not for signal handlers, as the heap is not.
//! * A child of `fork` may use a cache if no other thread of the parent was using it at that moment. Objects that other threads had
//!   out are lost to it.
//! * An object that is leaked, or taken raw and not given back, stays where it is: neither destructed nor freed, and valid when
//!   the cache is gone. [`ObjectCache::close`] counts such.
//! * In the hardened mode (`PERSEQ_HARDENED`) nothing is kept, so that a use after the give-back is found: every object is
//!   constructed for its user.

mod batch;
mod builder;
mod cache;
mod cached;
mod construct;
mod depot;

pub use batch::MAX_PER_CPU;
pub use builder::Builder;
pub use cache::{BuildError, ObjectCache, ObjectStats};
pub use cached::Cached;
pub use construct::{ByDefault, ByFn, Construct, InPlace, Uninit, WithReset};
