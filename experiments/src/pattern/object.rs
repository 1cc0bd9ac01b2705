//! Objects that know their size and a number, and tell when they were lost or overwritten.

use nix::libc;
use std::hint::black_box;

/// The smallest object: its size and its number.
pub const SMALLEST: usize = 16;

/// The largest any pattern asks for. A size beyond it was never written by us.
const LARGEST: usize = 1 << 30;

/// Sums of one thread.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Objects made.
    pub operations: u64,
    /// Sum of the words read back.
    pub found: u64,
    /// Sum of the words written.
    pub expected: u64,
    serial: u64,
}

impl Tally {
    /// Sums of the thread called `number`: its objects' numbers are unlike those of others.
    pub fn new(number: usize) -> Tally {
        Tally { serial: mix(number as u64), ..Tally::default() }
    }

    /// These sums and another thread's.
    pub fn and(mut self, other: Tally) -> Tally {
        self.operations += other.operations;
        self.found = self.found.wrapping_add(other.found);
        self.expected = self.expected.wrapping_add(other.expected);
        self
    }

    /// The mark of one block more: a byte, seldom the same twice in a row.
    #[inline(always)]
    pub fn mark(&mut self) -> u8 {
        self.serial = self.serial.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.operations += 1;
        (self.serial >> 56) as u8
    }

    /// A word was written that must be found again.
    #[inline(always)]
    pub fn wrote(&mut self, word: u64) {
        self.expected = self.expected.wrapping_add(word);
    }

    /// A word was read back.
    #[inline(always)]
    pub fn read(&mut self, word: u64) {
        self.found = self.found.wrapping_add(word);
    }
}

/// A block with its size in the first word and its number in the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Object(*mut u8);

// SAFETY: a block may be used and freed by any thread, and it has one owner at a time.
unsafe impl Send for Object {}

// SAFETY: through a shared reference an object can only be copied; whoever uses the copy is its owner.
unsafe impl Sync for Object {}

impl Object {
    /// No object.
    pub const NONE: Object = Object(std::ptr::null_mut());

    /// Allocates `size` bytes, 16 at least, and signs them. Ends the process if there is no memory.
    #[inline(always)]
    pub fn new(size: usize, tally: &mut Tally) -> Object {
        let size = size.max(SMALLEST);
        Object::sign(block(size), size, tally)
    }

    /// Makes a block of `size` bytes an object.
    #[inline(always)]
    pub fn sign(block: *mut u8, size: usize, tally: &mut Tally) -> Object {
        tally.serial = tally.serial.wrapping_add(0x9e37_79b9_7f4a_7c15);
        tally.operations += 1;
        tally.wrote((size as u64).wrapping_mul(3).wrapping_add(tally.serial));
        // SAFETY: the block has 16 bytes or more and is ours.
        unsafe { block.cast::<u64>().write_unaligned(size as u64) };
        // SAFETY: the last word lies within the block and not before the first one's end.
        unsafe { block.add(size - 8).cast::<u64>().write_unaligned(tally.serial) };
        Object(block)
    }

    /// Its size, as it says itself.
    #[inline(always)]
    pub fn size(self) -> usize {
        // SAFETY: `sign` wrote this word of a block that was not freed since.
        let size = unsafe { self.0.cast::<u64>().read_unaligned() } as usize;
        if !(SMALLEST..=LARGEST).contains(&size) {
            fatal("verification: an object was overwritten while it was in use");
        }
        size
    }

    /// Its block, no longer an object: its words are read back.
    #[inline(always)]
    pub fn unsign(self, tally: &mut Tally) -> *mut u8 {
        let size = self.size();
        // SAFETY: `sign` wrote this word.
        let number = unsafe { self.0.add(size - 8).cast::<u64>().read_unaligned() };
        tally.read((size as u64).wrapping_mul(3).wrapping_add(number));
        self.0
    }

    /// Its block, still signed.
    pub fn block(self) -> *mut u8 {
        self.0
    }

    /// Allocates and signs `size` bytes, and writes all words between the first and the last.
    #[inline(always)]
    pub fn full(size: usize, tally: &mut Tally) -> Object {
        let object = Object::new(size, tally);
        for (index, word) in object.inner().iter_mut().enumerate() {
            *word = index as u64 ^ size as u64;
        }
        object
    }

    /// Reads all that [`Object::full`] wrote, and frees it. Nothing happens for [`Object::NONE`].
    #[inline(always)]
    pub fn free_full(self, tally: &mut Tally) {
        if self != Object::NONE {
            let size = self.size() as u64;
            if self.inner().iter().enumerate().any(|(index, word)| *word != index as u64 ^ size) {
                fatal("verification: an object was overwritten while it was in use");
            }
            self.free(tally);
        }
    }

    /// The whole words between its first and its last.
    #[inline(always)]
    fn inner<'a>(self) -> &'a mut [u64] {
        let words = (self.size() - 8) / 8 - 1;
        // SAFETY: malloc aligns to 8 at least, so many words lie between the first and the last, the object is ours until
        // it is freed, and no other reference to them is made meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(8).cast::<u64>(), words) }
    }

    /// Writes to each page from the byte `from` to its last word; its first word stays.
    pub fn touch(self, from: usize) {
        const OS_PAGE: usize = 4096;
        for offset in (from.max(8)..self.size() - 8).step_by(OS_PAGE) {
            // SAFETY: within the object and outside its two words.
            unsafe { self.0.add(offset).write_volatile(offset as u8) };
        }
    }

    /// Checks and frees it. Nothing happens for [`Object::NONE`].
    #[inline(always)]
    pub fn free(self, tally: &mut Tally) {
        if self != Object::NONE {
            release(self.unsign(tally));
        }
    }

    /// As an address that can be stored in an atomic; 0 for none.
    pub fn address(self) -> usize {
        self.0.expose_provenance()
    }

    /// The object of [`Object::address`].
    pub fn at(address: usize) -> Object {
        Object(std::ptr::with_exposed_provenance_mut(address))
    }
}

/// Allocates.
#[inline(always)]
pub fn block(size: usize) -> *mut u8 {
    // SAFETY: malloc has no preconditions.
    let block = black_box(unsafe { libc::malloc(black_box(size)) });
    present(block)
}

/// Allocates zeroed bytes.
pub fn zeroed(size: usize) -> *mut u8 {
    // SAFETY: calloc has no preconditions.
    let block = black_box(unsafe { libc::calloc(1, black_box(size)) });
    present(block)
}

/// Resizes.
pub fn resized(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: every block of a pattern came from malloc and is not used again by its old address.
    let block = black_box(unsafe { libc::realloc(black_box(block.cast()), size) });
    present(block)
}

/// Frees.
#[inline(always)]
pub fn release(block: *mut u8) {
    // SAFETY: every block of a pattern came from malloc, and its one owner frees it once.
    unsafe { libc::free(black_box(block.cast())) };
}

#[inline(always)]
fn present(block: *mut libc::c_void) -> *mut u8 {
    if block.is_null() {
        fatal("the allocator returned null");
    }
    block.cast()
}

/// Ends the worker with one line; its parent records the sample as failed.
#[cold]
pub fn fatal(line: &str) -> ! {
    eprintln!("{line}");
    std::process::exit(1)
}

/// Random numbers: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of thread `number` under `seed`.
    pub fn new(seed: u64, number: usize) -> Random {
        Random(mix(seed ^ mix(number as u64 + 1)))
    }

    /// The next one.
    #[inline(always)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One below `limit`.
    #[inline(always)]
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// One from `low` to `high`, both included.
    #[inline(always)]
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
}

#[inline(always)]
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_and_what_was_overwritten_is_not() {
        let mut tally = Tally::new(1);
        let objects = [16, 17, 100, 5000].map(|size| Object::new(size, &mut tally));
        assert_eq!(objects.map(Object::size), [16, 17, 100, 5000]);
        objects.iter().for_each(|object| object.free(&mut tally));
        assert_eq!((tally.found, tally.operations), (tally.expected, 4));

        let object = Object::new(64, &mut tally);
        // SAFETY: the last byte of an object of 64.
        unsafe { *object.0.add(63) ^= 1 };
        object.free(&mut tally);
        assert_ne!(tally.found, tally.expected);
    }

    #[test]
    fn every_word_of_a_full_object_is_read_back() {
        let mut tally = Tally::new(1);
        for size in [16, 17, 24, 25, 32, 1000] {
            let object = Object::full(size, &mut tally);
            assert_eq!(object.inner().len(), (size - 8) / 8 - 1, "{size}");
            object.free_full(&mut tally);
        }
        assert_eq!((tally.found, tally.operations), (tally.expected, 6));
    }

    #[test]
    fn a_lost_object_is_noticed() {
        let mut tally = Tally::new(1);
        let object = Object::new(64, &mut tally);
        assert_ne!(tally.found, tally.expected);
        object.free(&mut tally);
        assert_eq!(tally.found, tally.expected);
    }

    #[test]
    fn random_numbers_stay_within_their_bounds() {
        let mut random = Random::new(1, 2);
        let numbers: Vec<_> = (0..1000).map(|_| random.between(10, 12)).collect();
        assert!(numbers.iter().all(|number| (10..=12).contains(number)));
        assert!((10..=12).all(|wanted| numbers.contains(&wanted)));
    }
}
