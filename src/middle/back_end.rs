//! The tiers behind the caches, put together: one set for the process, the same for every mode, and one for each
//! [`Heap`](crate::Heap).

use crate::middle::central_free_list::CentralFreeList;
use crate::middle::of_class::Middle;
use crate::middle::tables::Tables;
use crate::middle::transfer_caches::TransferCaches;
use crate::misuse::Misuse;
use crate::page_heap::PageHeap;
use crate::page_heap::metadata::Metadata;
use crate::page_heap::source::{Mmap, PageSource};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Padded;
#[cfg(debug_assertions)]
use crate::{emergency, middle::central_free_list::object_at, page_heap::span::SpanId};

/// Everything that is not a cache.
pub struct BackEnd<S: PageSource = Mmap> {
    /// Each class's locks on lines of their own.
    pub transfer: TransferCaches,
    pub central: [Padded<CentralFreeList>; CLASSES],
    pub pages: PageHeap<S>,
    pub metadata: Metadata,
}

/// The process's own.
pub static BACK_END: BackEnd = BackEnd::over(PageHeap::of_process());

impl<S: PageSource> BackEnd<S> {
    /// With memory from `source`, for pages of at most `bound` bytes.
    pub const fn new(source: S, bound: usize) -> Self {
        BackEnd::over(PageHeap::new(source, bound))
    }

    const fn over(pages: PageHeap<S>) -> Self {
        BackEnd {
            transfer: TransferCaches::new(),
            central: [const { Padded(CentralFreeList::new()) }; CLASSES],
            pages,
            metadata: Metadata::new(),
        }
    }

    /// The transfer cache of `class` and what stands behind it.
    #[inline]
    pub fn middle(&self, class: SizeClass) -> Middle<'_, S> {
        Middle { class, transfer: &self.transfer, central: &self.central[class.index()], tables: self.tables() }
    }

    /// Pages and metadata.
    #[inline]
    pub fn tables(&self) -> Tables<'_, S> {
        Tables { pages: &self.pages, metadata: &self.metadata }
    }

    /// Empties the transfer caches into the spans, and gives spans without a live object back to the page heap.
    ///
    /// # Errors
    ///
    /// An object that came back is none of its class, or was free already. All else is done.
    pub fn trim(&self) -> Result<(), Misuse> {
        let mut finding = Ok(());
        for class in SizeClass::all() {
            finding = finding.and(self.middle(class).trim());
        }
        finding
    }

    /// Walks the transfer caches, the spans and the pages. At rest.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        self.pages.check();
        for class in SizeClass::all() {
            let central = &self.central[class.index()];
            central.check(class, &self.pages);
            self.transfer.check(class, |address| self.is_out(class, address));
        }
    }

    /// Whether an object of `class` is at `address` that has left its span, or never had one.
    #[cfg(debug_assertions)]
    pub fn is_out(&self, class: SizeClass, address: usize) -> bool {
        if emergency::object_at(address) == Some((class, 0)) {
            return true;
        }
        let id = self.pages.span_of(address).unwrap_or(SpanId::NONE);
        let central = &self.central[class.index()];
        object_at(class, &self.pages, id, address).is_ok_and(|index| !central.is_free(class, &self.pages, id, index))
    }

    /// Bytes that could be had for something else if nothing were kept: free pages, and free objects in transfer
    /// caches and spans.
    pub fn free_bytes(&self) -> usize {
        let kept = |class: SizeClass| {
            let central = self.central[class.index()].totals(class);
            (self.transfer.counts(class).length + central.free) * class.size()
        };
        self.pages.free_bytes() + SizeClass::all().map(kept).sum::<usize>()
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    /// Caches and transfer caches take them as any other.
    #[test]
    fn an_object_that_never_had_a_span_is_out_of_it() {
        let back_end: BackEnd = BackEnd::new(Mmap::new(), 1 << 20);
        let (class, other) = (SizeClass::from_index(3), SizeClass::from_index(4));
        let address = emergency::allocate(class).expect("memory").addr().get();
        assert!(back_end.is_out(class, address));
        for (class, address) in
            [(other, address), (class, address + 8), (class, 0), (class, &raw const back_end as usize)]
        {
            assert!(!back_end.is_out(class, address), "{address:x} of {}", class.size());
        }
    }
}
