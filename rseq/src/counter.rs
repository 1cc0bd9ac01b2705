//! A number that many threads add to and few read.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::access::Access;
use crate::index::{CpuId, Index};
use crate::rows::{NoMemory, Row, Rows};
use crate::{local, sequence};

/// A counter with one word per index, each on a cache line of its own.
///
/// Adding is one sequence ([`sequence::add`]), no atomic operation and no shared cache line.
/// Without restartable sequences all threads share one word under a lock: correct, and slow.
///
/// Needs Linux 4.18, or 6.3 for [`crate::MmCid`], 5.10 for fences; runs without them as said.
///
/// ```
/// let counter = rseq::PerCpuCounter::<rseq::CpuId>::new()?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
///     }
/// });
/// assert_eq!(counter.sum(), 4000);
/// # Ok::<(), rseq::rows::NoMemory>(())
/// ```
#[derive(Debug)]
pub struct PerCpuCounter<I: Index = CpuId> {
    rows: Rows<AtomicU64, I>,
    access: Access<I>,
}

impl<I: Index> PerCpuCounter<I> {
    /// A counter at 0.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: no address space.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(PerCpuCounter { rows: Rows::new()?, access: Access::new() })
    }

    /// Adds `value`, wrapping.
    #[inline]
    pub fn add(&self, value: u64) {
        // SAFETY: the handle is of index `I`; the word is the row's number.
        let add = |handle| unsafe { sequence::add(handle, &self.rows, Row::<AtomicU64>::VALUE, value) };
        if self.access.run(add).is_none() {
            self.rows.with_overflow(|row| local::add(row, value));
        }
    }

    /// The sum of all rows. An addition that runs meanwhile is in it or not; one that is done is in it.
    #[must_use]
    pub fn sum(&self) -> u64 {
        // Relaxed: each row is one word, so a read finds it before or after an addition.
        self.rows.values().fold(0, |sum, row| sum.wrapping_add(row.load(Relaxed)))
    }

    /// Whether additions are sequences. If not, they take a lock.
    #[must_use]
    pub fn is_per_cpu(&self) -> bool {
        self.access.is_available()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_a_row_counts_in_the_overflow_row() {
        let counter =
            PerCpuCounter::<CpuId> { rows: Rows::with_count(0).expect("address space"), access: Access::new() };
        counter.add(3);
        assert_eq!(counter.rows.overflow().load(Relaxed), 3);
        assert_eq!(counter.sum(), 3);
    }
}
