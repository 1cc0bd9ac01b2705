//! Lines of objects on their way to another CPU.
//!
//! A CPU that only read an object, and frees it, shares its lines with the CPU that wrote them. That one will write to
//! them again when the object is its own once more, and must first ask all other CPUs to give them up, where two writers
//! in turn just pass a line on. So who hands an object on writes to its lines, what is there already, while nobody waits
//! for it. What it is worth is in `docs/performance.md`, entry 6.

use core::mem::MaybeUninit;

use crate::config::{CLAIMED_BYTES, LINE};

/// Writes to each line of each object what is there.
///
/// # Safety
///
/// * Each is the beginning of `size` bytes of memory, which nobody uses.
pub unsafe fn claim(objects: &[*mut u8], size: usize) {
    if size > CLAIMED_BYTES {
        return;
    }
    for &object in objects {
        for offset in (0..size).step_by(LINE) {
            // SAFETY: inside the object.
            let byte = unsafe { object.add(offset) }.cast::<MaybeUninit<u8>>();
            // SAFETY: the byte is ours. Volatile, so that both accesses happen.
            unsafe { byte.write_volatile(byte.read_volatile()) };
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// The objects are as they were.
    #[test]
    fn contents_stay() {
        for size in [8, 48, 64, 192, CLAIMED_BYTES] {
            let mut memory: Vec<u64> = (0..10 * size as u64 / 8).map(|word| word ^ 0x5eed).collect();
            let before = memory.clone();
            let first = memory.as_mut_ptr().cast::<u8>();
            let objects: Vec<*mut u8> = (0..10).map(|place| first.wrapping_add(place * size)).collect();
            // SAFETY: ten objects of the vector's memory.
            unsafe { claim(&objects, size) };
            assert_eq!(memory, before, "objects of {size} bytes");
        }
    }

    /// Objects that the program need not have touched whole are not touched.
    #[test]
    fn large_objects_are_left_alone() {
        let mut memory = vec![MaybeUninit::<u8>::uninit(); 8];
        // SAFETY: by the size nothing is touched.
        unsafe { claim(&[memory.as_mut_ptr().cast()], CLAIMED_BYTES + 8) };
    }
}
