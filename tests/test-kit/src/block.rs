//! A block and what it is full of.
//!
//! Every word is made from the block's name, its address and the word's place. So a block that was handed out twice,
//! overwritten, moved without its contents or mapped away does not look like itself any more.

use std::alloc::Layout;
use std::ptr::NonNull;

/// Blocks up to so many bytes are written and read whole.
const WHOLE: usize = 32 << 10;
/// Of larger ones, so many bytes at either end, and between them a word in every `STRIDE`.
const EDGE: usize = 4096;
const STRIDE: usize = 1024;

static ZEROES: [u8; 4096] = [0; 4096];

/// A block that is held.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub start: NonNull<u8>,
    pub layout: Layout,
    pub name: u64,
    /// By which operations choose it.
    pub key: u16,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Block {}

/// A place where a block is not what it was.
pub struct Difference {
    pub at: usize,
    pub expected: u8,
    pub found: u8,
}

/// A bijection that leaves no trace of order (the finalizer of splitmix64).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Block {
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Fills it.
    pub fn write(&self) {
        for (place, word) in self.words(self.layout.size()) {
            let length = word.len().min(self.layout.size() - place);
            if length == word.len() {
                // SAFETY: a whole word within the block, which is ours.
                unsafe { self.start.add(place).cast::<[u8; 8]>().write_unaligned(word) };
                continue;
            }
            // SAFETY: within the block, which is ours.
            unsafe { self.start.add(place).copy_from_nonoverlapping(NonNull::from(&word).cast(), length) };
        }
    }

    /// Where it is not as it was filled.
    pub fn difference(&self) -> Option<Difference> {
        self.difference_at(self.start, self.layout.size())
    }

    /// Where the first `size` bytes of the memory at `start` are not what this block's were.
    pub fn difference_at(&self, start: NonNull<u8>, size: usize) -> Option<Difference> {
        self.words(size).find_map(|(place, word)| {
            if place + word.len() <= size {
                // SAFETY: the caller holds so many bytes there.
                let found = unsafe { start.add(place).cast::<[u8; 8]>().read_unaligned() };
                if u64::from_ne_bytes(found) == u64::from_ne_bytes(word) {
                    return None; // nearly always
                }
            }
            // SAFETY: as above.
            let found = unsafe { std::slice::from_raw_parts(start.as_ptr().add(place), word.len().min(size - place)) };
            if *found == word[..found.len()] {
                return None;
            }
            let at = (0..found.len()).find(|&at| found[at] != word[at])?;
            Some(Difference { at: place + at, expected: word[at], found: found[at] })
        })
    }

    /// The first byte that is not zero.
    pub fn not_zero(&self) -> Option<Difference> {
        // SAFETY: the block's own bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) };
        // Compared as a whole first: a search byte by byte takes long without optimization.
        let chunk = bytes.chunks(ZEROES.len()).position(|chunk| *chunk != ZEROES[..chunk.len()])?;
        let at = (chunk * ZEROES.len()..bytes.len()).find(|&at| bytes[at] != 0)?;
        Some(Difference { at, expected: 0, found: bytes[at] })
    }

    /// The places that are written, below `size`, and their words. They follow from the size that the block has.
    fn words(&self, size: usize) -> impl Iterator<Item = (usize, [u8; 8])> + use<> {
        let hash = mix(self.name ^ mix(self.address() as u64));
        let sparse = if self.layout.size() > WHOLE { EDGE..self.layout.size() - EDGE - STRIDE } else { 0..0 };
        let mut next = 0;
        std::iter::from_fn(move || {
            let place = next;
            next += if sparse.contains(&place) { STRIDE } else { 8 };
            let word = hash ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (place < size).then(|| (place, word.to_ne_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found() {
        let mut memory = vec![0_u8; 100_000];
        let start = NonNull::new(memory.as_mut_ptr()).expect("not null");
        for size in [1, 7, 8, 9, 1000, WHOLE, WHOLE + 1, 99_999] {
            let block = Block { start, layout: Layout::from_size_align(size, 1).expect("a layout"), name: 5, key: 0 };
            block.write();
            assert!(block.difference().is_none());
            let places =
                [0, size / 3, size - 1].into_iter().filter(|&at| size <= WHOLE || at < EDGE || at >= size - EDGE);
            for at in places {
                // SAFETY: within the memory above.
                unsafe { *start.as_ptr().add(at) ^= 1 };
                assert_eq!(block.difference().map(|difference| difference.at), Some(at));
                // SAFETY: as above.
                unsafe { *start.as_ptr().add(at) ^= 1 };
            }
            assert!(Block { name: 6, ..block }.difference().is_some());
        }
    }

    #[test]
    fn a_byte_that_is_not_zero_is_found() {
        let mut memory = vec![0_u8; 10_000];
        let start = NonNull::new(memory.as_mut_ptr()).expect("not null");
        let block = Block { start, layout: Layout::from_size_align(9999, 1).expect("a layout"), name: 5, key: 0 };
        assert!(block.not_zero().is_none());
        for at in [0, 4095, 4096, 9998] {
            // SAFETY: within the memory above.
            unsafe { *start.as_ptr().add(at) = 1 };
            assert_eq!(block.not_zero().map(|difference| difference.at), Some(at));
            // SAFETY: as above.
            unsafe { *start.as_ptr().add(at) = 0 };
        }
    }
}
