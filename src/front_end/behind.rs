//! What stands behind a cache, as its policy sees it: so that tests give a cache something else.

use core::ptr::NonNull;

use rseq::slab::Slot;

use crate::front_end::budget;
use crate::middle::back_end::BACK_END;
use crate::middle::spare_arrays::SPARE_ARRAYS;
use crate::misuse::Misuse;
use crate::size_class::SizeClass;

/// Where a cache's objects and arrays come from and go, and how much it may hold.
pub trait Behind {
    /// Fills `out` with objects of `class`; returns how many, fewer only if memory is exhausted.
    fn remove_range(class: SizeClass, out: &mut [*mut u8]) -> usize;
    /// Takes objects of `class` back.
    fn insert_range(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse>;
    /// The same of objects that this CPU has used till now, and another probably will.
    ///
    /// # Safety
    ///
    /// * They are objects of `class`, and nobody's.
    unsafe fn hand_on(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse>;
    /// Memory of `words` words for a list's array. Not zeroed.
    fn allocate_array(words: usize) -> Option<NonNull<usize>>;
    /// Takes an array back.
    ///
    /// # Safety
    ///
    /// * `lowest` is the lowest slot of an array of `capacity` slots in memory from `allocate_array`, and nobody uses it.
    unsafe fn release_array(lowest: *mut Slot, capacity: usize);
    /// Bytes a cache may have now, if they can be reserved.
    fn most() -> usize;
    /// Bytes a cache has a right to now.
    fn share() -> usize;
    /// Takes `bytes` out of what no list has. False if there are not so many.
    fn reserve(bytes: usize) -> bool;
    /// Gives back what `reserve` took.
    fn release(bytes: usize);
    /// A cache below its share was served.
    fn is_served();
}

/// The process's own tiers and budget.
pub enum Process {}

impl Behind for Process {
    #[inline]
    fn remove_range(class: SizeClass, out: &mut [*mut u8]) -> usize {
        BACK_END.middle(class).remove_range(out)
    }
    #[inline]
    fn insert_range(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse> {
        BACK_END.middle(class).insert_range(objects)
    }
    #[inline]
    unsafe fn hand_on(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse> {
        // SAFETY: by our own contract.
        unsafe { BACK_END.middle(class).hand_on(objects) }
    }
    #[inline]
    fn allocate_array(words: usize) -> Option<NonNull<usize>> {
        SPARE_ARRAYS.allocate(words)
    }
    #[inline]
    unsafe fn release_array(lowest: *mut Slot, capacity: usize) {
        // SAFETY: by our own contract.
        unsafe { SPARE_ARRAYS.release(lowest, capacity) };
    }
    #[inline]
    fn most() -> usize {
        budget::most()
    }
    #[inline]
    fn share() -> usize {
        budget::share()
    }
    #[inline]
    fn reserve(bytes: usize) -> bool {
        budget::reserve(bytes)
    }
    #[inline]
    fn release(bytes: usize) {
        budget::release(bytes);
    }
    #[inline]
    fn is_served() {
        budget::starve(false);
    }
}
