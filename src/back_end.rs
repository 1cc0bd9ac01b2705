//! The tiers behind the caches, put together: one per process, the same for every mode.

use crate::central_free_list::CentralFreeList;
use crate::metadata::Metadata;
use crate::page_heap::PageHeap;
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;
use crate::transfer_cache::{Middle, TransferCaches};

/// Everything that is not a cache.
pub struct BackEnd {
    /// Each class's locks on lines of their own.
    pub transfer: TransferCaches,
    pub central: [Padded<CentralFreeList>; CLASSES],
    pub pages: PageHeap,
    pub metadata: Metadata,
}

/// The process's own.
pub static BACK_END: BackEnd = BackEnd {
    transfer: TransferCaches::new(),
    central: [const { Padded(CentralFreeList::new()) }; CLASSES],
    pages: PageHeap::new(),
    metadata: Metadata::new(),
};

impl BackEnd {
    /// The transfer caches of `class` and what stands behind it.
    #[inline]
    pub fn middle(&self, class: SizeClass) -> Middle<'_> {
        Middle {
            class,
            transfer: &self.transfer,
            central: &self.central[class.index()],
            pages: &self.pages,
            metadata: &self.metadata,
        }
    }
}
