//! The atomics of what is modelled: `tests/loom` puts its own in their place.

pub use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};
