//! Blocks of any size from one byte on, whose size their owner knows: a mark in their bytes is read back before they are
//! freed.

use super::object::{Tally, block, fatal, release};

/// What is written into a new block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Its first and its last byte.
    Ends,
    /// A byte on each page, and its ends.
    Pages,
    /// Every byte.
    All,
}

/// A block and what must be found in it.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    at: *mut u8,
    size: u32,
    mark: u8,
}

// SAFETY: a block may be used and freed by any thread, and it has one owner at a time.
unsafe impl Send for Block {}

// SAFETY: through a shared reference a block can only be copied; whoever uses the copy is its owner.
unsafe impl Sync for Block {}

impl Block {
    /// No block.
    pub const NONE: Block = Block { at: std::ptr::null_mut(), size: 0, mark: 0 };

    /// Allocates `size` bytes, one at least, and marks them. Ends the process if there is no memory.
    #[inline(always)]
    pub fn new(size: usize, written: Written, tally: &mut Tally) -> Block {
        let (size, mark) = (size.max(1), tally.mark());
        let at = block(size);
        match written {
            Written::Ends => {}
            Written::Pages => {
                for offset in (4096..size).step_by(4096) {
                    // SAFETY: within the block, which is ours.
                    unsafe { at.add(offset).write(mark) };
                }
            }
            // SAFETY: so many bytes are in the block, which is ours.
            Written::All => unsafe { at.write_bytes(mark, size) },
        }
        // SAFETY: a block has one byte at least.
        unsafe { at.write(mark) };
        // SAFETY: its last byte.
        unsafe { at.add(size - 1).write(mark) };
        tally.wrote(size as u64 * 3 + 2 * u64::from(mark));
        Block { at, size: size as u32, mark }
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        !self.at.is_null()
    }

    /// Its size.
    pub fn size(self) -> usize {
        self.size as usize
    }

    /// Reads its ends and frees it. Nothing happens for [`Block::NONE`].
    #[inline(always)]
    pub fn free(self, tally: &mut Tally) {
        if self.is_some() {
            // SAFETY: `new` wrote its first byte, and it was not freed since.
            let first = unsafe { self.at.read() };
            // SAFETY: as above, its last.
            let last = unsafe { self.at.add(self.size() - 1).read() };
            tally.read(self.size() as u64 * 3 + u64::from(first) + u64::from(last));
            release(self.at);
        }
    }

    /// Reads all that [`Written::All`] wrote and frees it. Nothing happens for [`Block::NONE`].
    #[inline(always)]
    pub fn free_after_reading(self, tally: &mut Tally) {
        if self.is_some() {
            // SAFETY: so many bytes were written, and the block was not freed since.
            let bytes = unsafe { std::slice::from_raw_parts(self.at, self.size()) };
            if bytes.iter().any(|byte| *byte != self.mark) {
                fatal("verification: a block was overwritten while it was in use");
            }
            self.free(tally);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_and_what_was_overwritten_is_not() {
        for written in [Written::Ends, Written::Pages, Written::All] {
            let mut tally = Tally::new(1);
            let blocks = [1, 2, 8, 5000].map(|size| Block::new(size, written, &mut tally));
            assert_eq!(blocks.map(Block::size), [1, 2, 8, 5000]);
            assert_ne!(tally.found, tally.expected);
            blocks.iter().for_each(|block| block.free(&mut tally));
            assert_eq!((tally.found, tally.operations), (tally.expected, 4));

            let block = Block::new(64, written, &mut tally);
            // SAFETY: the last byte of a block of 64.
            unsafe { *block.at.add(63) ^= 1 };
            block.free(&mut tally);
            assert_ne!(tally.found, tally.expected);
        }
        let mut tally = Tally::new(1);
        Block::new(999, Written::All, &mut tally).free_after_reading(&mut tally);
        assert_eq!(tally.found, tally.expected);
    }
}
