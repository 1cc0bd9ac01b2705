//! # Restartable sequences, and per-CPU slabs made of them
//!
//! (front page being written)
#![no_std]

pub mod abi;
pub mod fence;
mod index;
pub mod local;
pub mod sequence;
pub mod slab;
mod thread;

pub use index::{CpuId, Index, MmCid};
pub use sequence::{Miss, ThreadCell};
pub use slab::{STOPPED, Slab, Stopped};
pub use thread::{Handle, Registrant, Registration, Unavailable, probe, restarts};
