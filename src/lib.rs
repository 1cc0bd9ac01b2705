//! # perseq
//!
//! (map being written)
#![no_std]

mod allocator;
mod back_end;
mod budget;
mod cache;
mod central_free_list;
mod config;
mod fatal;
mod front_end;
mod metadata;
mod mode;
mod os;
mod page_heap;
mod process;
mod registry;
mod size_class;
mod span;
mod spare_arrays;
mod stats;
mod sync;
mod transfer_cache;

pub use allocator::Perseq;
pub use mode::{ActiveMode, AlreadyActive, Mode, Reason};
pub use process::{active_mode, drain, release, set_mode};
pub use rseq;
pub use stats::{CacheStats, Owner, Stats, for_each_cache, stats};
