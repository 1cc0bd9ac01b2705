//! Which of the kernel's numbers names a slab.

use crate::abi;

mod sealed {
    pub trait Sealed {}
}

/// A field of the area that says where the calling thread is. Sealed: [`CpuId`] and [`MmCid`].
pub trait Index: sealed::Sealed + Copy + Send + Sync + core::fmt::Debug + 'static {
    /// Offset of the field in [`abi::Area`].
    const FIELD: isize;
    /// Low bit of a [`crate::Handle`] for this index.
    const TAG: isize;
    /// Feature size from which the kernel fills the field.
    const END: u32;
    /// Whether a fence can be aimed at the CPU behind an index value.
    const IS_CPU: bool;
}

/// The CPU the thread runs on. Any number below the possible CPUs; numbers may have gaps.
#[derive(Clone, Copy, Debug)]
pub struct CpuId;

/// The memory-map concurrency id (Linux 6.3): dense from 0, at most one running thread of the process
/// per value. The kernel does not say which CPU a value is on, so fences must reach all CPUs.
///
/// What one holder of a value wrote, the next must see, also on another CPU. Up to Linux 6.18 the kernel documents the
/// barriers for that at the hand-over of a value. Since 6.19 tasks keep their value while there are no more threads
/// than CPUs; whether a hand-over is ordered likewise was not verified for those.
///
/// When an area's registration ends, the kernel leaves 0 in the field, which is an index like any other.
/// [`crate::Registration::forget_thread`] replaces it in areas of our own. libc's must stay registered while threads
/// use this index.
#[derive(Clone, Copy, Debug)]
pub struct MmCid;

impl sealed::Sealed for CpuId {}
impl sealed::Sealed for MmCid {}

impl Index for CpuId {
    const FIELD: isize = abi::CPU_ID;
    const TAG: isize = 1;
    const END: u32 = abi::ORIGINAL_FEATURE_SIZE;
    const IS_CPU: bool = true;
}

impl Index for MmCid {
    const FIELD: isize = abi::MM_CID;
    const TAG: isize = 2;
    const END: u32 = abi::MM_CID_END;
    const IS_CPU: bool = false;
}
