//! Blocks that know whose they are.
//!
//! Every word of a block is made from a name, the block's address and the word's place. A block that was handed out
//! twice, overwritten, moved without its contents or mapped away does not look like itself any more.

use super::fault::fault;
use super::heap::Heap;
use super::live;
use super::random::{Random, mix};
use std::alloc::Layout;

/// Bytes at either end of a block that are always written and read.
const EDGE: usize = 256;
/// Between the edges, one word in each kernel page.
const STRIDE: usize = 4096;

/// Limits of classes and their neighbours, primes, pages.
const SIZES: [usize; 40] = [
    1, 2, 3, 7, 8, 9, 13, 16, 17, 24, 31, 32, 33, 48, 61, 64, 65, 80, 96, 127, 128, 129, 160, 251, 256, 257, 509, 512,
    640, 1021, 1024, 1025, 2048, 4093, 4096, 8192, 8193, 20480, 32749, 32768,
];
/// Blocks of whole pages.
const LARGE_SIZES: [usize; 10] = [32769, 40960, 65521, 65536, 131_072, 262_144, 524_287, 1 << 20, 1_048_583, 3 << 20];

/// A block in use.
#[derive(Debug)]
pub struct Object {
    address: *mut u8,
    layout: Layout,
    name: u64,
}

// SAFETY: an object is plain memory with one owner.
unsafe impl Send for Object {}

/// A layout of these numbers, which are small and right.
pub fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => fault(format_args!("the torture asked for {size} bytes aligned to {align}")),
    }
}

/// Mostly small sizes with mostly no alignment, now and then anything.
pub fn any_layout(random: &mut Random) -> Layout {
    let size = match random.below(1000) {
        0..=9 => random.of(&LARGE_SIZES),
        10..=399 => random.of(&SIZES),
        400..=899 => 1 + random.below(256),
        _ => 1 + random.below(8192),
    };
    layout(size, if random.once_in(8) { 1 << random.below(14) } else { 1 << random.below(5) })
}

impl Object {
    /// Allocates and writes. None: no memory.
    pub fn new(heap: Heap, layout: Layout, name: u64) -> Option<Object> {
        // SAFETY: the size is not 0.
        let address = unsafe { heap.alloc(layout) };
        Object::of(address, layout, name)
    }

    /// As [`Object::new`], and the bytes must be zero at first.
    pub fn new_zeroed(heap: Heap, layout: Layout, name: u64) -> Option<Object> {
        // SAFETY: the size is not 0.
        let address = unsafe { heap.alloc_zeroed(layout) };
        let object = Object::of_unwritten(address, layout, name)?;
        // SAFETY: the block's own bytes.
        let bytes = unsafe { std::slice::from_raw_parts(address, layout.size()) };
        if let Some(place) = bytes.iter().position(|byte| *byte != 0) {
            let size = layout.size();
            fault(format_args!("dirty: byte {place} of {size} zeroed bytes at {address:p} is {:#x}", bytes[place]));
        }
        object.write();
        Some(object)
    }

    fn of(address: *mut u8, layout: Layout, name: u64) -> Option<Object> {
        let object = Object::of_unwritten(address, layout, name)?;
        object.write();
        Some(object)
    }

    fn of_unwritten(address: *mut u8, layout: Layout, name: u64) -> Option<Object> {
        if address.is_null() {
            return None;
        }
        let (size, align) = (layout.size(), layout.align());
        if !(address as usize).is_multiple_of(align) {
            fault(format_args!("misaligned: {size} bytes aligned to {align} are at {address:p}"));
        }
        live::born(address as usize, size);
        Some(Object { address, layout, name })
    }

    /// Faults unless the block is as it was written.
    pub fn check(&self) {
        self.check_as(self.address as usize, self.layout.size(), "corrupted");
    }

    /// Checks and frees.
    pub fn free(self, heap: Heap) {
        self.check();
        live::died(self.address as usize, self.layout.size());
        // SAFETY: allocated with this layout, and `self` is gone.
        unsafe { heap.dealloc(self.address, self.layout) };
    }

    /// Changes the size; what both sizes have must still be there. False: no memory, and the block is as before.
    #[must_use]
    pub fn resize(&mut self, heap: Heap, size: usize, name: u64) -> bool {
        self.check();
        let (before, old) = (self.address as usize, self.layout.size());
        live::died(before, old);
        // SAFETY: allocated with this layout; the new size is not 0 and small.
        let address = unsafe { heap.realloc(self.address, self.layout, size) };
        if address.is_null() {
            live::born(before, old);
            self.check();
            return false;
        }
        let align = self.layout.align();
        if !(address as usize).is_multiple_of(align) {
            fault(format_args!("misaligned: a block resized to {size} bytes aligned to {align} is at {address:p}"));
        }
        live::born(address as usize, size);
        // The contents were made for the old address and the old size.
        self.address = address;
        self.check_as(before, old.min(size), "forgotten by realloc");
        (self.layout, self.name) = (layout(size, align), name);
        self.write();
        true
    }

    /// Compares the first `size` bytes with what was written when the block was at `made_for`.
    fn check_as(&self, made_for: usize, size: usize, what: &str) {
        self.each_word(made_for, size, |place, expected, found| {
            if *found != *expected {
                let (bytes, address, name) = (self.layout.size(), self.address, self.name);
                fault(format_args!(
                    "{what}: byte {place} of {bytes} at {address:p}: {found:02x?}, expected {expected:02x?} of {name:#x}"
                ));
            }
        });
    }

    fn write(&self) {
        let (address, size) = (self.address as usize, self.layout.size());
        self.each_word(address, size, |_, expected, found| found.copy_from_slice(expected));
    }

    /// Calls `visit` with the place, the expected and the actual bytes of each word that is looked at.
    fn each_word(&self, made_for: usize, size: usize, mut visit: impl FnMut(usize, &[u8], &mut [u8])) {
        let hash = mix(self.name ^ mix(made_for as u64));
        let (mut place, inner) = (0, EDGE..self.layout.size().saturating_sub(EDGE + STRIDE));
        while place < size {
            let length = (size - place).min(8);
            let word = (hash ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_ne_bytes();
            // SAFETY: within the first `size` bytes, which are this object's alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(self.address.add(place), length) };
            visit(place, &word[..length], bytes);
            place += if inner.contains(&place) { STRIDE } else { 8 };
        }
    }
}
