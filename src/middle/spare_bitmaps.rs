//! Bitmaps for spans of more objects than a span has bits for: memory of one size, kept and used again.

use core::ptr::NonNull;

use crate::middle::tables::Tables;
use crate::page_heap::source::PageSource;
use crate::size_class::MAX_OBJECTS;

/// Bytes of a bitmap.
const BYTES: usize = MAX_OBJECTS.div_ceil(64) * 8;

/// Bitmaps of [`MAX_OBJECTS`] bits that no span uses, linked through their first words.
pub struct SpareBitmaps(usize);

impl SpareBitmaps {
    pub const fn new() -> Self {
        SpareBitmaps(0)
    }

    /// A bitmap, with anything in it. `None` if memory is exhausted.
    pub fn allocate(&mut self, tables: Tables<'_, impl PageSource>) -> Option<NonNull<u8>> {
        let Some(bitmap) = NonNull::new(self.0 as *mut u8) else { return tables.allocate(BYTES, 64) };
        // SAFETY: the head of the list is a bitmap nobody uses, whose first word is the link.
        self.0 = unsafe { bitmap.cast::<usize>().read() };
        Some(bitmap)
    }

    /// Takes a bitmap back.
    ///
    /// # Safety
    ///
    /// * The bitmap is from [`SpareBitmaps::allocate`], and nobody uses it.
    pub unsafe fn release(&mut self, bitmap: NonNull<u8>) {
        // SAFETY: by our own contract; its first word becomes the link.
        unsafe { bitmap.cast::<usize>().write(self.0) };
        self.0 = bitmap.as_ptr() as usize;
    }
}
