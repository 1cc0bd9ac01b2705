//! Objects that are signed when allocated and checked before they are freed.
//!
//! The first and the last word of each object are written, so its first and last cache line are touched.
//! If two threads ever hold one object, or its memory changes hands early, the sums disagree.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

/// The last word is the signature times this odd number.
const LAST: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse: an object of one word holds the last word only.
const INVERSE: u64 = inverse(LAST);

/// Newton's iteration doubles the digits that are right.
const fn inverse(odd: u64) -> u64 {
    let (mut inverse, mut step) = (odd, 0);
    while step < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// Sizes that follow one another round and round, a power of two of them.
pub struct Sizes {
    layouts: Vec<Layout>,
}

impl Sizes {
    /// Powers of two from `min` to `max` bytes; 16 at least.
    pub fn powers(min: u64, max: u64) -> Result<Sizes, String> {
        let sizes = std::iter::successors(Some(min), |size| size.checked_mul(2)).take_while(|size| *size <= max);
        let layouts: Vec<_> = sizes
            .map(|size| Layout::from_size_align(size as usize, 8).map_err(|error| format!("size {size}: {error}")))
            .collect::<Result<_, _>>()?;
        if layouts.is_empty() || min < 16 {
            return Err(format!("sizes {min}..={max}: expected at least one size, 16 bytes or more"));
        }
        // Repeated up to a power of two, so that the choice below is a mask.
        let length = layouts.len().next_power_of_two();
        Ok(Sizes { layouts: layouts.iter().cycle().take(length).copied().collect() })
    }

    /// Layout of object number `index`.
    #[inline(always)]
    pub fn layout(&self, index: usize) -> Layout {
        self.layouts[index & (self.layouts.len() - 1)]
    }

    /// How many objects make up at least `bytes`.
    pub fn objects_for(&self, bytes: u64) -> usize {
        let cycle: u64 = self.layouts.iter().map(|layout| layout.size() as u64).sum();
        (bytes.div_ceil(cycle) as usize) * self.layouts.len()
    }
}

/// Sums of the words read back and of the words that should have been there.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sums {
    /// Read from the objects.
    pub found: u64,
    /// Computed from the signatures.
    pub expected: u64,
}

impl Sums {
    /// Both sums together with another's.
    pub fn add(&mut self, other: Sums) {
        self.found = self.found.wrapping_add(other.found);
        self.expected = self.expected.wrapping_add(other.expected);
    }
}

/// Allocates and signs one object for each slot. False: the allocator has no memory left.
#[inline(always)]
pub fn fill<A: GlobalAlloc>(allocator: &A, sizes: &Sizes, slots: &mut [*mut u8], signature: u64) -> bool {
    for (index, slot) in slots.iter_mut().enumerate() {
        let layout = sizes.layout(index);
        // SAFETY: no layout here has size 0.
        let object = unsafe { allocator.alloc(black_box(layout)) };
        if object.is_null() {
            return false;
        }
        let word = signature.wrapping_add(index as u64);
        // SAFETY: the object has at least 16 bytes and is ours.
        unsafe { object.cast::<u64>().write(word) };
        // SAFETY: the last word lies within the layout; sizes are multiples of 8.
        unsafe { object.add(layout.size() - 8).cast::<u64>().write(word.wrapping_mul(LAST)) };
        *slot = black_box(object);
    }
    true
}

/// Checks and frees the objects of [`fill`] with the same `signature`, newest first.
#[inline(always)]
pub fn empty<A: GlobalAlloc>(allocator: &A, sizes: &Sizes, slots: &mut [*mut u8], signature: u64) -> Sums {
    let mut found = 0u64;
    for (index, slot) in slots.iter_mut().enumerate().rev() {
        let layout = sizes.layout(index);
        let object = black_box(*slot);
        // SAFETY: `fill` wrote this word of an object we still hold.
        let first = unsafe { object.cast::<u64>().read() };
        // SAFETY: as above.
        let last = unsafe { object.add(layout.size() - 8).cast::<u64>().read() };
        found = found.wrapping_add(first).wrapping_add(last);
        // SAFETY: `fill` allocated it with this layout, and nobody freed it since.
        unsafe { allocator.dealloc(object, layout) };
    }
    Sums { found, expected: expected(slots.len() as u64, signature) }
}

/// Sum of the words of `count` objects, by arithmetic instead of by reading.
#[inline(always)]
fn expected(count: u64, signature: u64) -> u64 {
    let indices = if count.is_multiple_of(2) {
        (count / 2).wrapping_mul(count.wrapping_sub(1))
    } else {
        count.wrapping_mul(count.wrapping_sub(1) / 2)
    };
    count.wrapping_mul(signature).wrapping_add(indices).wrapping_mul(LAST.wrapping_add(1))
}

/// Allocates one object and signs it with `word`. None: the allocator has no memory left.
#[inline(always)]
pub fn create<A: GlobalAlloc>(allocator: &A, layout: Layout, word: u64) -> Option<*mut u8> {
    // SAFETY: no layout of a workload has size 0.
    let object = unsafe { allocator.alloc(black_box(layout)) };
    if object.is_null() {
        return None;
    }
    // SAFETY: the object has at least 8 bytes and is ours.
    unsafe { object.cast::<u64>().write(word) };
    // SAFETY: the last word lies within the layout; sizes are multiples of 8.
    unsafe { object.add(layout.size() - 8).cast::<u64>().write(word.wrapping_mul(LAST)) };
    Some(black_box(object))
}

/// Reads the words of an object of [`create`] and frees it. [`words`] says what the sum should be.
///
/// # Safety
///
/// * `object` came from `create` with this allocator and layout, and nobody else uses it.
#[inline(always)]
pub unsafe fn destroy<A: GlobalAlloc>(allocator: &A, layout: Layout, object: *mut u8) -> u64 {
    // SAFETY: `create` wrote this word of an object that is ours.
    let first = unsafe { object.cast::<u64>().read() };
    // SAFETY: as above.
    let last = unsafe { object.add(layout.size() - 8).cast::<u64>().read() };
    // SAFETY: by our own contract.
    unsafe { allocator.dealloc(object, layout) };
    if layout.size() == 8 { last.wrapping_mul(INVERSE).wrapping_add(last) } else { first.wrapping_add(last) }
}

/// Sum of the words of an object signed with `word`.
#[inline(always)]
pub fn words(word: u64) -> u64 {
    word.wrapping_mul(LAST.wrapping_add(1))
}

/// A random number generator of one word, for choices inside measured loops.
#[inline(always)]
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A signature for round `round` of thread `thread`, different for each.
#[inline(always)]
pub fn signature(seed: u64, thread: u64, round: u64) -> u64 {
    (seed ^ thread.wrapping_mul(LAST)).wrapping_add(round.wrapping_mul(0xff51_afd7_ed55_8ccd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::ptr::null_mut;

    #[test]
    fn the_sum_read_is_the_sum_expected() {
        let sizes = Sizes::powers(16, 512).unwrap();
        for count in [1, 2, 7, 64] {
            let mut slots = vec![null_mut(); count];
            assert!(fill(&System, &sizes, &mut slots, signature(1, 2, 3)));
            let sums = empty(&System, &sizes, &mut slots, signature(1, 2, 3));
            assert_eq!(sums.found, sums.expected);
        }
    }

    #[test]
    fn one_object_at_a_time_sums_up_as_well() {
        for size in [8, 16, 24, 4096] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let object = create(&System, layout, 77).unwrap();
            // SAFETY: just created, and ours.
            assert_eq!(unsafe { destroy(&System, layout, object) }, words(77), "{size}");
        }
    }

    #[test]
    fn an_object_with_two_owners_is_noticed() {
        let sizes = Sizes::powers(64, 64).unwrap();
        let (mut mine, mut theirs) = ([null_mut(); 4], [null_mut(); 4]);
        assert!(fill(&System, &sizes, &mut mine, 100));
        assert!(fill(&System, &sizes, &mut theirs, 900));
        // Their signature, written over one of my objects as if we both held it.
        // SAFETY: the object is 64 bytes and ours.
        unsafe { mine[2].cast::<u64>().write(902) };
        let sums = empty(&System, &sizes, &mut mine, 100);
        assert_ne!(sums.found, sums.expected);
        let sums = empty(&System, &sizes, &mut theirs, 900);
        assert_eq!(sums.found, sums.expected);
    }
}
