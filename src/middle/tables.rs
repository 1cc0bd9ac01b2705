//! Pages together with the allocator's own memory in them: what a tier needs that makes tables.

use core::ptr::NonNull;

use crate::page_heap::PageHeap;
use crate::page_heap::metadata::Metadata;
use crate::page_heap::source::PageSource;

/// Pages, and the allocator's own memory in them.
pub struct Tables<'a, S: PageSource> {
    pub pages: &'a PageHeap<S>,
    pub metadata: &'a Metadata,
}

impl<S: PageSource> Clone for Tables<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: PageSource> Copy for Tables<'_, S> {}

impl<S: PageSource> Tables<'_, S> {
    /// As [`Metadata::allocate`].
    pub fn allocate(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.metadata.allocate(self.pages, bytes, align)
    }
}
