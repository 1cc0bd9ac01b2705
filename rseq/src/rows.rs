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
//! * **owned**: while `stopped` is 0, only sequences on the row's index change it; while it is not, only
//!   the holder of its [`StoppedRow`] does. The overflow row has no index, so only holders change it.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::fence;
use crate::hold::Hold;
use crate::index::{CpuId, Index};
use crate::kernel;
use crate::stop::StopError;
use crate::syscall;

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
    /// 0 while sequences may use the row, something else while a guard holds it. Read inside every sequence.
    stopped: Hold,
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
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize;
        // SAFETY: a fresh private mapping, which replaces nothing.
        let memory = unsafe { syscall::call(libc::SYS_mmap, [0, bytes, protection, flags, usize::MAX, 0]) };
        let base = NonNull::new(memory.map_err(NoMemory)? as *mut Row<T>).ok_or(NoMemory(libc::ENOMEM))?;
        Ok(Rows { base, count, _owns: PhantomData })
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
        Self::fenced(index, self.hold(index).ok_or(StopError::Held)?)
    }

    /// As [`Rows::stop`], but sleeps until another holder is done. Not for signal handlers.
    pub(crate) fn stop_in_turn(&self, index: usize) -> Result<StoppedRow<'_, T>, StopError> {
        if index >= self.count {
            return Err(StopError::NoRow);
        }
        Self::fenced(index, self.hold_in_turn(index))
    }

    /// Aborts what still runs on row `index`, which `guard` holds.
    fn fenced(index: usize, guard: StoppedRow<'_, T>) -> Result<StoppedRow<'_, T>, StopError> {
        let fenced = if I::IS_CPU { fence::cpu(index as u32) } else { fence::all() };
        // On failure dropping the guard lets the row run again, untouched.
        fenced.map(|()| guard).map_err(StopError::Fence)
    }

    /// Takes the overflow row, which belongs to no index: where threads without a row of their own meet,
    /// one at a time. Sleeps until it is free, so not for signal handlers.
    pub fn overflow(&self) -> StoppedRow<'_, T> {
        self.hold_in_turn(self.count)
    }

    /// Runs `f` on the overflow row. No handler of this thread runs meanwhile, since it would wait for the row for
    /// ever.
    #[cold]
    pub(crate) fn with_overflow<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        kernel::without_signals(|| f(&self.overflow()))
    }

    fn hold(&self, index: usize) -> Option<StoppedRow<'_, T>> {
        let row = self.row(index);
        // A guard made before the answer is known would give back what another has.
        row.stopped.try_take().then(|| StoppedRow { row, _not_send: PhantomData })
    }

    fn hold_in_turn(&self, index: usize) -> StoppedRow<'_, T> {
        let row = self.row(index);
        row.stopped.take();
        StoppedRow { row, _not_send: PhantomData }
    }

    /// Whether a guard holds row `index` now. A hint.
    #[must_use]
    pub fn is_stopped(&self, index: usize) -> bool {
        index < self.count && self.row(index).stopped.is_held()
    }
}

impl<T: Zeroed, I: Index> Drop for Rows<T, I> {
    fn drop(&mut self) {
        if let Some(bytes) = Self::bytes(self.count) {
            // SAFETY: our own mapping of these bytes; `&mut self` says no sequence or guard uses it.
            let _ = unsafe { syscall::call(libc::SYS_munmap, [self.base.as_ptr() as usize, bytes]) };
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
        self.row.stopped.give_back();
    }
}

#[cfg(test)]
mod tests;
