//! Objects that know whose they are.
//!
//! Every word of an object is made from its owner, a serial number, the object's address and the word's
//! place. So an object handed out twice, overwritten, moved without its contents or mapped away does not
//! look like itself any more, and what it looks like says whose object lies there instead.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::ptr::NonNull;

use super::random::{Random, mix};

/// Bytes at either end of an object that are always written and read.
const EDGE: usize = 512;
/// Between the edges, one word in each kernel page.
const STRIDE: usize = 4096;

static ZEROES: [u8; 4096] = [0; 4096];

/// Sizes worth trying: classes' limits and their neighbours, primes, and pages.
pub const SIZES: [usize; 46] = [
    1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 24, 31, 32, 33, 40, 48, 61, 64, 65, 80, 96, 127, 128, 129, 160, 251, 256, 257,
    509, 512, 640, 1021, 1024, 1025, 1280, 2039, 2048, 4093, 4096, 8191, 8192, 8193, 16381, 20480, 32749, 32768,
];
/// The same for objects of whole pages.
pub const LARGE_SIZES: [usize; 12] =
    [32769, 40960, 40961, 65521, 65536, 131_071, 131_072, 262_144, 524_287, 1 << 20, 1_048_583, 3 << 20];

/// A block of memory and what was written to it.
#[derive(Debug)]
pub struct Object {
    address: NonNull<u8>,
    layout: Layout,
    /// Owner above, serial number below.
    name: u64,
}

// SAFETY: an object is plain memory with one owner.
unsafe impl Send for Object {}

/// A layout of `size` bytes.
pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// Mostly small sizes with mostly no alignment, now and then anything.
pub fn any_layout(random: &mut Random) -> Layout {
    let size = match random.below(1000) {
        0..=9 => random.of(&LARGE_SIZES),
        10..=399 => random.of(&SIZES),
        400..=899 => 1 + random.below(256),
        _ => 1 + random.below(8192),
    };
    let align = if random.once_in(8) { 1 << random.below(14) } else { 1 << random.below(5) };
    layout(size, align)
}

impl Object {
    /// Allocates and writes. `None` if memory is exhausted.
    pub fn try_new(layout: Layout, name: u64) -> Option<Object> {
        // SAFETY: the size is not 0.
        let address = NonNull::new(unsafe { alloc(layout) })?;
        assert!((address.as_ptr() as usize).is_multiple_of(layout.align()), "{address:?} for {layout:?}");
        let object = Object { address, layout, name };
        object.write();
        Some(object)
    }

    /// As [`Object::try_new`] where memory is not exhausted.
    pub fn new(layout: Layout, name: u64) -> Object {
        Object::try_new(layout, name).unwrap_or_else(|| panic!("no memory for {layout:?}"))
    }

    /// From `alloc_zeroed`: asserts that it is zero, then writes.
    pub fn new_zeroed(layout: Layout, name: u64) -> Object {
        // SAFETY: the size is not 0.
        let address = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        let object = Object { address, layout, name };
        // SAFETY: the object's own bytes.
        let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr(), layout.size()) };
        // Compared as a whole first: a search byte by byte takes long without optimization.
        if bytes.chunks(ZEROES.len()).any(|chunk| chunk != &ZEROES[..chunk.len()]) {
            let dirty = bytes.iter().position(|byte| *byte != 0);
            panic!("alloc_zeroed of {layout:?} at {address:?}: byte {dirty:?} is not zero");
        }
        object.write();
        object
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// Asserts that the object is as it was written.
    pub fn check(&self) {
        self.check_first(self.layout.size());
    }

    /// Asserts that its first `size` bytes are as they were written.
    fn check_first(&self, size: usize) {
        self.each_word(size, |place, expected, found| {
            assert!(
                found == expected,
                "object {:#x} ({:?}) at {:#x} is not itself at byte {place}: {found:02x?}, expected {expected:02x?}",
                self.name,
                self.layout,
                self.address(),
            );
        });
    }

    fn write(&self) {
        self.each_word(self.layout.size(), |_, expected, found| found.copy_from_slice(expected));
    }

    /// Checks and frees.
    pub fn free(self) {
        self.check();
        // SAFETY: allocated with this layout, and `self` is gone.
        unsafe { dealloc(self.address.as_ptr(), self.layout) };
    }

    /// Frees without a look.
    pub fn free_unchecked(self) {
        // SAFETY: as in `free`.
        unsafe { dealloc(self.address.as_ptr(), self.layout) };
    }

    /// Changes the size; asserts that what is left of the contents is there. `None`: memory is exhausted, and
    /// the object is as before.
    pub fn try_resize(&mut self, size: usize, name: u64) -> Option<()> {
        self.check();
        // SAFETY: allocated with this layout; the new size is not 0 and small enough.
        let moved = NonNull::new(unsafe { realloc(self.address.as_ptr(), self.layout, size) });
        let Some(address) = moved else {
            self.check();
            return None;
        };
        assert!((address.as_ptr() as usize).is_multiple_of(self.layout.align()));
        // The contents were made for the old address: look at them as that object.
        let old = Object { address, layout: self.layout, name: self.name };
        let made_for = self.address();
        old.each_word_of(made_for, self.layout.size().min(size), |place, expected, found| {
            assert!(found == expected, "realloc of {:?} to {size} lost byte {place}", self.layout);
        });
        self.address = address;
        self.layout = layout(size, self.layout.align());
        self.name = name;
        self.write();
        Some(())
    }

    fn each_word(&self, size: usize, visit: impl FnMut(usize, &[u8], &mut [u8])) {
        self.each_word_of(self.address(), size, visit);
    }

    /// Calls `visit` with the place, the expected and the actual bytes of each word that is looked at.
    fn each_word_of(&self, made_for: usize, size: usize, mut visit: impl FnMut(usize, &[u8], &mut [u8])) {
        let hash = mix(self.name ^ mix(made_for as u64));
        let mut place = 0;
        while place < size {
            let length = (size - place).min(8);
            let word = (hash ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_ne_bytes();
            // SAFETY: within the first `size` bytes, which are this object's alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr().add(place), length) };
            visit(place, &word[..length], bytes);
            // Where the edges of the old and the new size differ, fewer bytes are compared, never others.
            place += if (EDGE..self.layout.size().saturating_sub(EDGE + STRIDE)).contains(&place) { STRIDE } else { 8 };
        }
    }
}
