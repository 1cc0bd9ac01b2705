//! The kernel's side of the contract: the area a thread shares with it.
//!
//! ```text
//! offset 0  cpu_id_start  u32   kernel writes   CPU at the last return to user space
//!        4  cpu_id        u32   kernel writes   the same, or -1 unregistered, -2 refused
//!        8  rseq_cs       u64   we write        address of the running sequence's descriptor
//!       16  flags         u32   kernel writes   bit 4: slice extensions can be had, bit 5: are enabled (Linux 7.0)
//!       20  node_id       u32   kernel writes   NUMA node           (Linux 6.3)
//!       24  mm_cid        u32   kernel writes   concurrency id      (Linux 6.3)
//!       28  slice_ctrl    u32   we write byte 0 slice extensions: byte 0 the request, byte 1 the grant (Linux 7.0)
//! ```
//!
//! This crate writes `rseq_cs`, and where [`slice`](crate::slice) is used the request; nothing else. Since Linux 7.0 a
//! process that changes a field the kernel owns may be killed, and on 6.19 such a write goes unnoticed and breaks
//! atomicity.

use memoffset::offset_of;

/// A thread's rseq area, 32 bytes as every kernel since 4.18 knows them, padded to the 64 that
/// newer kernels may ask for.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Area {
    /// CPU at the last return to user space. Not needed: sequences read [`Area::cpu_id`] after arming.
    pub cpu_id_start: u32,
    /// Current CPU, or [`UNREGISTERED`], or -2 where the kernel refused.
    pub cpu_id: u32,
    /// Address of the descriptor of the running sequence.
    pub rseq_cs: u64,
    /// What the kernel says of slice extensions; bits below are reserved.
    pub flags: u32,
    /// NUMA node of the current CPU.
    pub node_id: u32,
    /// Concurrency id: dense, unique among the running threads of this process.
    pub mm_cid: u32,
    /// Control of slice extensions: the request, and the kernel's grant.
    pub slice_ctrl: u32,
}

/// What [`Area::cpu_id`] holds before registration (-1).
pub const UNREGISTERED: u32 = u32::MAX;

/// What [`Area::cpu_id`] holds in a thread that will not be registered any more: the kernel's number for "refused" (-2).
pub(crate) const REFUSED: u32 = u32::MAX - 1;

/// The four bytes in front of every abort handler. One value per process; libc's is this one.
pub const SIGNATURE: u32 = crate::arch::SIGNATURE;

/// Length of an original registration. Kernels treat it as version 1 for ever.
pub const ORIGINAL_LENGTH: u32 = 32;

/// Most bytes that an area of this crate's own can be registered with, which are its size and alignment: 64, or 32 with
/// the feature `short-area`. Longer than 32 bytes gets the kernel's optimized mode (Linux 7.0); shorter is less static
/// TLS, which glibc has little of for libraries that are loaded with `dlopen`, and which its own areas leave unused.
pub const OWN_LENGTH: u32 = if cfg!(feature = "short-area") { ORIGINAL_LENGTH } else { size_of::<Area>() as u32 };

/// Bytes of the original area that the kernel fills (up to `flags`).
pub const ORIGINAL_FEATURE_SIZE: u32 = 20;

/// Flag of the system call that ends a registration.
pub(crate) const UNREGISTER: u32 = 1;

pub(crate) const CPU_ID_START: isize = offset_of!(Area, cpu_id_start) as isize;
pub(crate) const CPU_ID: isize = offset_of!(Area, cpu_id) as isize;
pub(crate) const NODE_ID: isize = offset_of!(Area, node_id) as isize;
pub(crate) const MM_CID: isize = offset_of!(Area, mm_cid) as isize;
pub(crate) const RSEQ_CS: isize = offset_of!(Area, rseq_cs) as isize;
pub(crate) const FLAGS: isize = offset_of!(Area, flags) as isize;
pub(crate) const SLICE_CTRL: isize = offset_of!(Area, slice_ctrl) as isize;

/// The byte of [`Area::slice_ctrl`] that users write, and the kernel's answer.
pub(crate) const SLICE_REQUEST: isize = SLICE_CTRL;
pub(crate) const SLICE_GRANTED: isize = SLICE_CTRL + 1;

/// Bit of [`Area::flags`]: the thread may enable slice extensions.
pub const SLICE_AVAILABLE: u32 = 1 << 4;
/// Bit of [`Area::flags`]: the thread has them enabled.
pub const SLICE_ENABLED: u32 = 1 << 5;

/// Operation of prctl (`PR_RSEQ_SLICE_EXTENSION`), what it may be asked, and its value.
pub(crate) const SLICE_EXTENSION: usize = 79;
pub(crate) const SLICE_EXTENSION_GET: usize = 1;
pub(crate) const SLICE_EXTENSION_SET: usize = 2;
pub(crate) const SLICE_ENABLE: usize = 1;
/// The system call that ends an extension, by the same number on both architectures.
pub(crate) const NR_RSEQ_SLICE_YIELD: core::ffi::c_long = 471;
/// The kernel's number of an error that no libc has: what was asked for is not supported.
pub(crate) const ENOTSUPP: i32 = 524;

/// A field is readable if the feature size reaches past its end.
pub(crate) const NODE_ID_END: u32 = offset_of!(Area, node_id) as u32 + 4;
pub(crate) const MM_CID_END: u32 = offset_of!(Area, mm_cid) as u32 + 4;

const _: () = {
    assert!(CPU_ID_START == 0 && CPU_ID == 4 && RSEQ_CS == 8 && MM_CID == 24, "the kernel's layout");
    assert!(offset_of!(Area, node_id) == 20 && size_of::<Area>() == 64);
    assert!(FLAGS == 16 && SLICE_CTRL == 28 && cfg!(target_endian = "little"));
};
