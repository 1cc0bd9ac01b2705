//! membarrier: after it, no sequence that began before it is still running.
//!
//! A sequence that read a slab's id before another thread changed it may still commit. The fence makes the kernel abort
//! it: every thread of this process that was inside a sequence on a target CPU restarts. The caller itself is never
//! aborted. Costs a system call and an interrupt of every target CPU that runs this process. Never on a hot path.

use linux_raw_sys::general::{__NR_membarrier, membarrier_cmd, membarrier_cmd_flag};

use crate::syscall;

/// Registers this process for fences (Linux 5.10). Idempotent; inherited across fork.
///
/// # Errors
///
/// The errno of the membarrier call.
pub fn register() -> Result<(), i32> {
    membarrier(membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0)
}

/// Aborts every sequence of this process that runs on `cpu` (Linux 5.10). A CPU that is offline, or has no such number,
/// runs none.
///
/// # Errors
///
/// The errno of the membarrier call, for instance EPERM before [`register`].
pub fn cpu(cpu: u32) -> Result<(), i32> {
    // The flag is as old as the command.
    let flag = membarrier_cmd_flag::MEMBARRIER_CMD_FLAG_CPU as u32;
    membarrier(membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, flag, cpu)
}

/// Aborts every sequence of this process on every CPU (Linux 5.10).
///
/// # Errors
///
/// The errno of the membarrier call, for instance EPERM before [`register`].
pub fn all() -> Result<(), i32> {
    membarrier(membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 0, 0)
}

/// Registers this process for [`memory`] (Linux 4.14). Idempotent; inherited across fork.
///
/// # Errors
///
/// The errno of the membarrier call.
pub fn register_memory() -> Result<(), i32> {
    membarrier(membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)
}

/// Has every running thread of this process execute a full memory barrier; aborts no sequence (Linux 4.14).
///
/// # Errors
///
/// The errno of the membarrier call, for instance EPERM before [`register_memory`].
pub fn memory() -> Result<(), i32> {
    membarrier(membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)
}

fn membarrier(command: membarrier_cmd, flags: u32, cpu: u32) -> Result<(), i32> {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    unsafe { syscall::call(__NR_membarrier.into(), [command as usize, flags as usize, cpu as usize]) }.map(drop)
}
