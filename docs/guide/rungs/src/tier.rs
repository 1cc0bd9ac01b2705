//! What the rungs from the third on are put together from: tiers, which give and take objects of a class, several at
//! once; and lists of free objects.

use std::alloc::Layout;
use std::ptr;

use crate::kernel;

/// What can stand behind a cache. A class is an index below [`CLASSES`](crate::size_classes::CLASSES).
pub trait Tier: Sync {
    /// Fills `out` with objects of `class`; returns how many: fewer only if memory is exhausted.
    fn take(&self, class: usize, out: &mut [*mut u8]) -> usize;

    /// Takes objects back.
    ///
    /// # Safety
    ///
    /// * They came from this tier's `take` for `class`, and nobody uses them.
    unsafe fn give(&self, class: usize, objects: &[*mut u8]);

    /// One object; null if memory is exhausted.
    fn take_one(&self, class: usize) -> *mut u8 {
        let mut object = [ptr::null_mut()];
        self.take(class, &mut object);
        object[0]
    }

    /// A block that is of no class; null if memory is exhausted.
    fn take_large(&self, layout: Layout) -> *mut u8 {
        kernel::map(layout.size(), layout.align()).map_or(ptr::null_mut(), |block| block.as_ptr())
    }

    /// Takes such a block back.
    ///
    /// # Safety
    ///
    /// * It came from this tier's `take_large` for `layout`, and nobody uses it.
    unsafe fn give_large(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by our own contract.
        unsafe { kernel::unmap(block, layout.size()) };
    }
}

/// Free objects, each beginning with the address of the next.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    first: *mut u8,
    count: usize,
}

impl Objects {
    /// None. All zeros.
    pub const NONE: Objects = Objects { first: ptr::null_mut(), count: 0 };

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes the one that came last.
    pub fn pop(&mut self) -> Option<*mut u8> {
        let object = self.first;
        if object.is_null() {
            return None;
        }
        // SAFETY: by the contract of `push`, it begins with the address of the next, and it is ours.
        self.first = unsafe { object.cast::<*mut u8>().read() };
        self.count -= 1;
        Some(object)
    }

    /// Puts one in.
    ///
    /// # Safety
    ///
    /// * `object` is nobody's; it has room for an address and is aligned for one.
    pub unsafe fn push(&mut self, object: *mut u8) {
        // SAFETY: by our own contract.
        unsafe { object.cast::<*mut u8>().write(self.first) };
        *self = Objects { first: object, count: self.count + 1 };
    }
}
