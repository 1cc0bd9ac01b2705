//! Words that threads write down, to be taken again where they were written or collected by somebody later.

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
/// Appending and taking the newest word are one sequence each ([`sequence::append`], [`sequence::take`]). Without
/// restartable sequences all threads share one buffer under a lock.
///
/// Needs Linux 4.18, or 6.3 for [`crate::MmCid`], 5.10 for fences; runs without them as said.
///
/// ```
/// let events = rseq::PerCpuBuffer::<64>::new()?;
/// events.append(7).expect("room");
/// let mut seen = Vec::new();
/// events.drain(|event| seen.push(event))?;
/// assert_eq!(seen, [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PerCpuBuffer<const N: usize, I: Index = CpuId> {
    rows: Rows<Items<N>, I>,
    access: Access<I>,
    /// Words in use of each buffer, `N` at most.
    capacity: usize,
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
        PerCpuBuffer::with_capacity(N)
    }

    /// As [`PerCpuBuffer::new`], with room for `capacity` words in each buffer, `N` at most.
    ///
    /// # Errors
    ///
    /// As for [`PerCpuBuffer::new`].
    pub fn with_capacity(capacity: usize) -> Result<Self, NoMemory> {
        Ok(PerCpuBuffer { rows: Rows::new()?, access: Access::new(), capacity: capacity.min(N) })
    }

    /// Words that each buffer has room for.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes `item` at the end of this index's buffer.
    ///
    /// # Errors
    ///
    /// [`Full`]: no room here; others may have some. Drain.
    #[inline]
    pub fn append(&self, item: u64) -> Result<(), Full> {
        // SAFETY: the handle is of index `I`; the row is a length followed by `N` items, and `capacity` is no more.
        let append =
            |handle| unsafe { sequence::append(handle, &self.rows, Row::<Items<N>>::VALUE, self.capacity, item) };
        match self.access.run(append) {
            Some(answer) => answer.map_err(|_| Full),
            None => {
                let append = |row: &Items<N>| local::append(&row.length, &row.items[..self.capacity], item);
                let appended = self.rows.with_overflow(append);
                if appended { Ok(()) } else { Err(Full) }
            }
        }
    }

    /// Takes the item that was appended last to this index's buffer. `None`: there is none *here*; others may have
    /// some.
    #[inline]
    pub fn take(&self) -> Option<u64> {
        // SAFETY: the handle is of index `I`; the row is a length followed by the items.
        let take = |handle| unsafe { sequence::take(handle, &self.rows, Row::<Items<N>>::VALUE) };
        match self.access.run(take) {
            Some(answer) => answer.ok(),
            None => self.rows.with_overflow(|row| local::take(&row.length, &row.items)),
        }
    }

    /// How many items each buffer holds, as hints: by index, and last the one that threads without an index share.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.rows.values().map(|row| row.length.load(Relaxed) as usize)
    }

    /// Moves the newest items of the buffer in place `index` of [`PerCpuBuffer::lengths`] to `items`, as many as there
    /// are and fit, and returns how many. One [`fence`](crate::fence), unless the buffer looks empty. Waits for others
    /// that do the same, so not for signal handlers.
    ///
    /// # Errors
    ///
    /// [`StopError`]: there is no such buffer, or the kernel refuses the fence it granted before.
    pub fn take_from(&self, index: usize, items: &mut [u64]) -> Result<usize, StopError> {
        match self.lengths().nth(index) {
            None => Err(StopError::NoRow),
            Some(0) => Ok(0),
            Some(_) if index == self.rows.count() => Ok(self.rows.with_overflow(|row| row.take(items))),
            Some(_) => self.rows.stop_in_turn(index).map(|row| row.take(items)),
        }
    }

    /// Moves items of any buffer to `items`, as many as there are and fit, and returns how many. No fence: the caller
    /// is the only user.
    pub fn take_alone(&mut self, items: &mut [u64]) -> usize {
        self.rows.values().fold(0, |taken, row| taken + row.take(&mut items[taken..]))
    }

    /// Takes every item out of every buffer and gives it to `user`, in any order. Rows run again before `user` is
    /// called. One [`fence`](crate::fence) per 64 items or part of them. Waits for other drains, so not for signal
    /// handlers.
    ///
    /// # Errors
    ///
    /// [`StopError::Fence`]: the kernel refuses the fence it granted before, by a filter that was set since, or for
    /// want of memory. Items of the buffers it was refused for stay there, and can be taken; `user` has those of all
    /// others.
    pub fn drain(&self, mut user: impl FnMut(u64)) -> Result<(), StopError> {
        let mut outcome = Ok(());
        for (index, mut left) in self.lengths().enumerate() {
            while left > 0 {
                let mut block = [0; BLOCK];
                let taken = self.take_from(index, &mut block).unwrap_or_else(|why| {
                    outcome = Err(why);
                    0
                });
                block[..taken].iter().for_each(|&item| user(item));
                left = if taken == 0 { 0 } else { left.saturating_sub(taken) };
            }
        }
        outcome
    }

    /// Whether appends and takes are sequences. If not, they take a lock.
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
        let mut buffer = PerCpuBuffer::<2, CpuId> {
            rows: Rows::with_count(0).expect("address space"),
            access: Access::new(),
            capacity: 2,
        };
        assert_eq!([5, 6, 7].map(|item| buffer.append(item)), [Ok(()), Ok(()), Err(Full)]);
        assert_eq!((buffer.take(), buffer.append(8)), (Some(6), Ok(())));
        assert_eq!(buffer.take_from(0, &mut [0]), Ok(1));
        assert_eq!(buffer.take_from(1, &mut [0]), Err(StopError::NoRow));
        assert_eq!(buffer.append(6), Ok(()));
        let mut sum = 0;
        assert_eq!(buffer.drain(|item| sum += item), Ok(()));
        assert_eq!((sum, buffer.take()), (11, None));
        assert_eq!(buffer.append(9), Ok(()));
        assert_eq!((buffer.take_alone(&mut [0; 4]), buffer.lengths().sum::<usize>()), (1, 0));
    }

    #[test]
    fn a_capacity_below_the_size_is_kept_to() {
        let buffer = PerCpuBuffer::<8, CpuId>::with_capacity(3).expect("address space");
        let here = (0..100).filter(|&item| buffer.append(item).is_ok()).count();
        let most = buffer.lengths().max();
        assert!(here >= 3 && most == Some(3), "{here} {most:?}");
        assert!(buffer.lengths().enumerate().all(|(index, length)| buffer.take_from(index, &mut [0; 8]) == Ok(length)));
        assert_eq!((buffer.take(), buffer.capacity()), (None, 3));
        assert_eq!(PerCpuBuffer::<2, CpuId>::with_capacity(9).expect("address space").capacity(), 2);
    }
}
