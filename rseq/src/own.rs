//! A thread's own area: registered where libc registers none, and taken from the kernel before its memory goes.
//!
//! The kernel writes to an area whenever its thread goes on after a preemption, until the thread has ended, and kills the
//! process if the area is not there. glibc gives a thread's memory to others only when the kernel says that the thread has
//! ended. musl's detached threads unmap their stack and TLS themselves and run on for one system call. So with a libc other
//! than glibc an area is registered only in a thread for which the destructor of a key of thread-specific data was
//! arranged. It ends the registration, and the thread gets none again: destructors that run later, and handlers, find
//! [`Refusal::Ending`]. Signals are held off by musl before the memory goes.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::abi;
use crate::arch::{self, load_u32, own_area_offset, thread_pointer};
use crate::kernel;
use crate::syscall;

/// Why the thread has no area of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel said this errno.
    Kernel(i32),
    /// libc has no key left for a destructor.
    NoKey,
    /// The destructor has run.
    Ending,
}

/// Whether a thread may unmap the memory of its area before it ends.
const UNMAPS_ITSELF: bool = cfg!(not(target_env = "gnu"));

/// Registers the calling thread's area with so many bytes. Again, it changes nothing.
pub fn register(length: u32) -> Result<(), Refusal> {
    if UNMAPS_ITSELF {
        // SAFETY: the area is this thread's, registered or not.
        if unsafe { load_u32(own_area_offset() + abi::CPU_ID) } == abi::REFUSED {
            return Err(Refusal::Ending);
        }
        let key = key().ok_or(Refusal::NoKey)?;
        // SAFETY: the key is valid. The value is a number, which the destructor is given.
        if unsafe { libc::pthread_setspecific(key, ptr::without_provenance::<c_void>(length as usize)) } != 0 {
            return Err(Refusal::NoKey);
        }
    }
    match area(length, 0) {
        Ok(()) | Err(libc::EBUSY) => Ok(()), // busy: with this very area, registered before
        Err(errno) => Err(Refusal::Kernel(errno)),
    }
}

/// Takes the calling thread's area, registered with so many bytes, from the kernel, if it is registered.
pub fn unregister(length: u32) -> Result<(), i32> {
    // Between the two steps below the area says concurrency id 0 and nothing protects it, so no handler may run.
    kernel::without_signals(|| {
        // SAFETY: the area is this thread's, registered or not.
        if (unsafe { load_u32(own_area_offset() + abi::CPU_ID) } as i32) < 0 {
            return Ok(());
        }
        area(length, abi::UNREGISTER)?;
        // The kernel leaves 0 in `mm_cid`, which would be an index; nobody has none of -1.
        // SAFETY: the area is this thread's and no longer the kernel's; the word is `mm_cid` and `slice_ctrl`.
        unsafe { arch::store_word(own_area_offset() + abi::MM_CID, abi::UNREGISTERED as usize) };
        Ok(())
    })
}

/// The key whose destructor unregisters, made when a thread first needs it. `None` if libc has none left.
///
/// libc's functions here allocate nothing under musl, and hold signals off while they hold a lock.
fn key() -> Option<libc::pthread_key_t> {
    /// The key and 1; 0 before there is one.
    static KEY: AtomicU32 = AtomicU32::new(0);
    let known = KEY.load(Relaxed); // Relaxed: a number, which libc made ready before
    if let Some(key) = known.checked_sub(1) {
        return Some(key);
    }
    let mut key = 0;
    // SAFETY: `key` is ours to be written. The destructor stays, as musl unloads nothing.
    if unsafe { libc::pthread_key_create(&mut key, Some(at_end)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key + 1, Relaxed, Relaxed) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: the key is ours, and nobody has used it.
            unsafe { libc::pthread_key_delete(key) };
            Some(other - 1)
        }
    }
}

/// The calling thread ends: its area is unregistered, and stays so.
extern "C" fn at_end(length: *mut c_void) {
    kernel::without_signals(|| {
        // A filter that has come since may refuse. Then nothing else can be done, and the area stays what it was.
        if unregister(length.addr() as u32).is_ok() {
            let refused = (abi::REFUSED as usize) << 32;
            // SAFETY: the area is this thread's and no longer the kernel's; the word is `cpu_id_start` and `cpu_id`.
            unsafe { arch::store_word(own_area_offset() + abi::CPU_ID_START, refused) };
        }
    });
}

/// The rseq system call on the calling thread's own area.
fn area(length: u32, flags: u32) -> Result<(), i32> {
    let area = (thread_pointer() + own_area_offset()) as usize;
    let arguments = [area, length as usize, flags as usize, abi::SIGNATURE as usize];
    // SAFETY: the area is this thread's own static TLS, aligned to 64, and is unregistered before its memory goes.
    unsafe { syscall::call(linux_raw_sys::general::__NR_rseq.into(), arguments) }.map(drop)
}
