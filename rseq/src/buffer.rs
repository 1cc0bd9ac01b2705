//! Small records that threads write down and somebody collects later.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::access::Access;
use crate::index::{CpuId, Index};
use crate::rows::{NoMemory, Row, Rows, Zeroed};
use crate::stop::StopError;
use crate::{local, sequence};

#[repr(C)]
#[derive(Debug)]
struct Items<const N: usize> {
    length: AtomicU64,
    items: [AtomicU64; N],
}

impl<const N: usize> Items<N> {
    /// Moves the last items to `block`, as many as there are and fit; returns how many. Nobody else changes the buffer.
    fn take(&self, block: &mut [u64]) -> usize {
        let length = self.length.load(Relaxed) as usize;
        let taken = length.min(block.len());
        for (place, item) in block.iter_mut().zip(&self.items[length - taken..length]) {
            *place = item.load(Relaxed);
        }
        self.length.store((length - taken) as u64, Relaxed);
        taken
    }
}

// SAFETY: zero is the empty buffer, and all fields are atomics.
unsafe impl<const N: usize> Zeroed for Items<N> {}

/// A buffer of `N` words per index.
///
/// Appending is one sequence ([`sequence::append`]). Without restartable sequences all threads share one buffer under a
/// lock.
///
/// Needs Linux 4.18, or 6.3 for [`crate::MmCid`], 5.10 for fences; runs without them as said.
///
/// ```
/// let events = rseq::PerCpuBuffer::<64>::new()?;
/// events.append(7).expect("room");
/// let mut seen = Vec::new();
/// events.drain(|event| seen.push(event));
/// assert_eq!(seen, [7]);
/// # Ok::<(), rseq::rows::NoMemory>(())
/// ```
#[derive(Debug)]
pub struct PerCpuBuffer<const N: usize, I: Index = CpuId> {
    rows: Rows<Items<N>, I>,
    access: Access<I>,
}

/// The buffer of this index has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Items copied out while a row is stopped, before `user` sees them.
const BLOCK: usize = 64;

impl<const N: usize, I: Index> PerCpuBuffer<N, I> {
    /// Empty buffers.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: no address space.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(PerCpuBuffer { rows: Rows::new()?, access: Access::new() })
    }

    /// Writes `item` at the end of this index's buffer.
    ///
    /// # Errors
    ///
    /// [`Full`]: no room here; others may have some. Drain.
    #[inline]
    pub fn append(&self, item: u64) -> Result<(), Full> {
        // SAFETY: the handle is of index `I`; the row is a length followed by `N` items.
        let append = |handle| unsafe { sequence::append(handle, &self.rows, Row::<Items<N>>::VALUE, N, item) };
        match self.access.run(append) {
            Some(answer) => answer.map_err(|_| Full),
            None => {
                let appended = self.rows.with_overflow(|row| local::append(&row.length, &row.items, item));
                if appended { Ok(()) } else { Err(Full) }
            }
        }
    }

    /// Takes every item out of every buffer and gives it to `user`, in any order. Rows run again before `user` is
    /// called. One [`fence`](crate::fence) per 64 items or part of them. Waits for other drains, so not for signal handlers.
    ///
    /// # Panics
    ///
    /// If the kernel refuses the fence it granted before.
    pub fn drain(&self, mut user: impl FnMut(u64)) {
        for (index, row) in self.rows.values().enumerate() {
            let mut left = row.length.load(Relaxed) as usize;
            while left > 0 {
                let mut block = [0; BLOCK];
                let mut take = |row: &Items<N>| row.take(&mut block);
                let taken = match self.rows.stop_in_turn(index) {
                    Ok(row) => take(&row),
                    Err(StopError::NoRow) => self.rows.with_overflow(take),
                    Err(why) => panic!("cannot stop row {index}: {why}"),
                };
                block[..taken].iter().for_each(|&item| user(item));
                left = if taken == 0 { 0 } else { left.saturating_sub(taken) };
            }
        }
    }

    /// Whether appends are sequences. If not, they take a lock.
    #[must_use]
    pub fn is_per_cpu(&self) -> bool {
        self.access.is_available()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_a_row_uses_the_overflow_row() {
        let buffer =
            PerCpuBuffer::<2, CpuId> { rows: Rows::with_count(0).expect("address space"), access: Access::new() };
        assert_eq!([5, 6, 7].map(|item| buffer.append(item)), [Ok(()), Ok(()), Err(Full)]);
        let mut sum = 0;
        buffer.drain(|item| sum += item);
        assert_eq!(sum, 11);
    }
}
