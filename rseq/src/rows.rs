//! Rows: one per index, in one reservation, found by arithmetic.
//!
//! ```text
//!  base          base + stride   base + 2*stride            base + count*stride
//!  ┌───────────┐ ┌───────────┐   ┌───────────┐              ┌───────────┐
//!  │ stopped 0 │ │ stopped 0 │   │ (untouched│    ...       │ stopped 0 │ the overflow row:
//!  │ value     │ │ value     │   │  memory)  │              │ value     │ taken, used, given back
//!  └───────────┘ └───────────┘   └───────────┘              └───────────┘
//! ```
//!
//! There is a row for every *possible* CPU, so a CPU that comes online later has one. A row nobody used
//! costs address space only. An index beyond the rows, whatever its reason, makes a sequence leave with
//! [`crate::Miss::Moved`]; it is never turned into an address.
//!
//! # Invariants
//!
//! * **zeroed**: a row begins as all zeros: running, and a valid value.
//! * **owned**: while `stopped` is 0, only sequences on the row's index change it; while it is 1, only
//!   the holder of its [`StoppedRow`] does. The overflow row has no index, so only holders change it.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::fence;
use crate::index::{CpuId, Index};
use crate::kernel;
use crate::stop::StopError;

/// Types for which all-zero memory is a value that threads may look at together.
///
/// # Safety
///
/// * All-zero bytes are a valid value, and it needs no drop.
/// * Every field that changes is an atomic or a cell that only the row's owner looks at.
pub unsafe trait Zeroed: Send + Sync {}

// SAFETY: zero is a number, and the type is an atomic.
unsafe impl Zeroed for core::sync::atomic::AtomicU64 {}
// SAFETY: an array of such values is zero where they are.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}

/// What one index has.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Row<T> {
    /// 0 while sequences may use the row, 1 while a guard holds it. Read inside every sequence.
    stopped: AtomicU32,
    value: T,
}

impl<T> Row<T> {
    /// Offset of the value in the row: what the `word` operand of a sequence counts from.
    pub const VALUE: usize = memoffset::offset_of!(Row<T>, value);
}

/// One row per index `I`, reserved together.
#[derive(Debug)]
pub struct Rows<T: Zeroed, I: Index = CpuId> {
    base: NonNull<Row<T>>,
    count: usize,
    _owns: PhantomData<(UnsafeCell<T>, I)>,
}

// SAFETY: rows change by **owned** only, and `Zeroed` values may be looked at from any thread.
unsafe impl<T: Zeroed, I: Index> Sync for Rows<T, I> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<T: Zeroed, I: Index> Send for Rows<T, I> {}

/// There was no address space for the rows; the errno of `mmap`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory(pub i32);

impl core::fmt::Display for NoMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "no address space for per-CPU rows (errno {})", self.0)
    }
}

impl core::error::Error for NoMemory {}

impl<T: Zeroed, I: Index> Rows<T, I> {
    /// log2 of the bytes from one row to the next.
    pub const SHIFT: u32 = size_of::<Row<T>>().next_power_of_two().trailing_zeros();

    /// Reserves a row for every possible CPU. A concurrency id is below their number as well.
    ///
    /// Two system calls and a small file read; memory is taken page by page as rows are used.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: the address space is exhausted or limited.
    pub fn new() -> Result<Self, NoMemory> {
        Self::with_count(kernel::possible_cpus())
    }

    /// Reserves `count` rows. Threads whose index is `count` or more use none.
    ///
    /// # Errors
    ///
    /// As for [`Rows::new`].
    pub fn with_count(count: usize) -> Result<Self, NoMemory> {
        const { assert!(align_of::<Row<T>>() <= 4096, "mmap aligns to pages") };
        let bytes = Self::bytes(count).ok_or(NoMemory(libc::ENOMEM))?;
        // SAFETY: a fresh private mapping, which replaces nothing.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(memory.cast()) {
            Some(base) if memory != libc::MAP_FAILED => Ok(Rows { base, count, _owns: PhantomData }),
            _ => Err(NoMemory(kernel::errno())),
        }
    }

    /// Bytes that `count` rows and the overflow row take, unless that is more than there are addresses.
    fn bytes(count: usize) -> Option<usize> {
        count.checked_add(1)?.checked_mul(1 << Self::SHIFT)
    }

    /// The first row.
    #[inline(always)]
    pub(crate) fn base(&self) -> *mut Row<T> {
        self.base.as_ptr()
    }

    /// How many rows there are, not counting the overflow row.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Row `index`'s value as others may see it: reading it is a hint, unless its row is stopped.
    #[must_use]
    pub fn peek(&self, index: usize) -> Option<&T> {
        (index < self.count).then(|| &self.row(index).value)
    }

    /// All rows' values, the overflow row's last, as hints like [`Rows::peek`].
    pub fn values(&self) -> impl Iterator<Item = &T> {
        (0..=self.count).map(|index| &self.row(index).value)
    }

    fn row(&self, index: usize) -> &Row<T> {
        assert!(index <= self.count);
        // SAFETY: within the reservation, and by **zeroed** a valid row.
        unsafe { &*self.base.as_ptr().byte_add(index << Self::SHIFT) }
    }

    /// Takes row `index` from its owner: no sequence uses it when this returns, and none will until the
    /// guard is dropped. Costs one [`fence`]; [`fence::register`] comes first (Linux 5.10).
    ///
    /// # Errors
    ///
    /// [`StopError`] says why it was not.
    pub fn stop(&self, index: usize) -> Result<StoppedRow<'_, T>, StopError> {
        if index >= self.count {
            return Err(StopError::NoRow);
        }
        let guard = self.hold(index).ok_or(StopError::Held)?;
        let fenced = if I::IS_CPU { fence::cpu(index as u32) } else { fence::all() };
        // On failure dropping the guard lets the row run again, untouched.
        fenced.map(|()| guard).map_err(StopError::Fence)
    }

    /// As [`Rows::stop`], but waits for another holder to be done. Not for signal handlers.
    pub(crate) fn stop_in_turn(&self, index: usize) -> Result<StoppedRow<'_, T>, StopError> {
        loop {
            match self.stop(index) {
                Err(StopError::Held) => wait(),
                answer => return answer,
            }
        }
    }

    /// Takes the overflow row, which belongs to no index: where threads without a row of their own meet,
    /// one at a time. Waits for it, so not for signal handlers.
    pub fn overflow(&self) -> StoppedRow<'_, T> {
        loop {
            match self.hold(self.count) {
                Some(guard) => return guard,
                None => wait(),
            }
        }
    }

    /// Runs `f` on the overflow row. No handler of this thread runs meanwhile, since it would wait for the row for ever.
    #[cold]
    pub(crate) fn with_overflow<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        kernel::without_signals(|| f(&self.overflow()))
    }

    fn hold(&self, index: usize) -> Option<StoppedRow<'_, T>> {
        let row = self.row(index);
        // AcqRel: we see what the last guard did. Sequences that read 0 before are dealt with by the fence.
        row.stopped.compare_exchange(0, 1, AcqRel, Relaxed).ok()?;
        Some(StoppedRow { row, _not_send: PhantomData })
    }

    /// Whether a guard holds row `index` now. A hint.
    #[must_use]
    pub fn is_stopped(&self, index: usize) -> bool {
        // Acquire: who finds the row running again sees what its guard did.
        index < self.count && self.row(index).stopped.load(Acquire) != 0
    }
}

impl<T: Zeroed, I: Index> Drop for Rows<T, I> {
    fn drop(&mut self) {
        if let Some(bytes) = Self::bytes(self.count) {
            // SAFETY: our own mapping of these bytes; `&mut self` says no sequence or guard uses it.
            unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
        }
    }
}

/// Exclusive use of one row. Dropping it lets the row run again.
#[derive(Debug)]
pub struct StoppedRow<'a, T> {
    row: &'a Row<T>,
    _not_send: PhantomData<*mut ()>,
}

impl<T> Deref for StoppedRow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.row.value
    }
}

impl<T> Drop for StoppedRow<'_, T> {
    fn drop(&mut self) {
        self.row.stopped.store(0, Release); // pairs with the load of `stopped` in each sequence, and with `hold`
    }
}

/// Lets another thread run, perhaps the one that holds a row.
fn wait() {
    // SAFETY: sched_yield has no preconditions; on Linux it always succeeds, so errno stays.
    unsafe { libc::sched_yield() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;

    #[test]
    fn rows_are_powers_of_two_apart() {
        assert_eq!(Rows::<AtomicU64>::SHIFT, 6);
        assert_eq!(Rows::<[AtomicU64; 8]>::SHIFT, 7);
        assert_eq!(Row::<AtomicU64>::VALUE, 8);
    }

    #[test]
    fn a_held_row_is_held_once_and_comes_back() {
        let rows = Rows::<AtomicU64>::with_count(2).expect("two rows");
        fence::register().expect("membarrier");
        let guard = rows.stop(1).expect("stops");
        assert!(rows.is_stopped(1));
        assert_eq!(rows.stop(1).err(), Some(StopError::Held));
        assert_eq!(rows.stop(2).err(), Some(StopError::NoRow));
        drop(guard);
        assert!(!rows.is_stopped(1));
        assert!(rows.stop(1).is_ok());
    }

    #[test]
    fn too_many_rows_are_refused() {
        assert!(Rows::<AtomicU64>::with_count(usize::MAX / 2).is_err());
    }
}
