//! Memory for lists' arrays: powers of two of words, kept by size and used again.

use core::ptr::NonNull;

use rseq::slab::Slot;

use crate::config::{LINE, MAX_LIST_WORDS};
use crate::lock_order::Rank;
use crate::message::law;
use crate::middle::back_end::BACK_END;
use crate::place::Place;
use crate::sync::Mutex;

/// How many sizes there are, from one word on.
pub const SIZES: usize = MAX_LIST_WORDS.ilog2() as usize + 1;

/// Free arrays by size, linked through their first words.
#[repr(transparent)]
pub struct SpareArrays(Mutex<[usize; SIZES]>);

/// The process's own.
pub static SPARE_ARRAYS: SpareArrays = SpareArrays(Mutex::new(Rank::SpareArrays, [0; SIZES]));

/// Where the first array of each size is named.
pub const fn heads() -> Place {
    Place::of((&raw const SPARE_ARRAYS).wrapping_byte_add(Mutex::<[usize; SIZES]>::VALUE_AT))
}

impl SpareArrays {
    /// Memory of `words` words, a power of two up to [`MAX_LIST_WORDS`]. Not zeroed.
    pub fn allocate(&self, words: usize) -> Option<NonNull<usize>> {
        debug_assert!(words.is_power_of_two() && words <= MAX_LIST_WORDS);
        let mut heads = self.0.lock_unless_orphaned()?;
        let head = &mut heads[words.ilog2() as usize];
        if *head == 0 {
            drop(heads);
            // Whole lines: a push writes its slot, and the neighbour may be another CPU's.
            let bytes = (words * size_of::<usize>()).next_multiple_of(LINE);
            return BACK_END.tables().allocate(bytes, LINE).map(NonNull::cast);
        }
        let memory = *head;
        // SAFETY: the head is free memory of ours whose first word is the link.
        *head = unsafe { *(memory as *const usize) };
        NonNull::new(memory as *mut usize)
    }

    /// Takes an array back. Without the lock it is lost.
    ///
    /// # Safety
    ///
    /// * `lowest` is the lowest slot of an array of `capacity` slots in memory from [`SpareArrays::allocate`],
    ///   and nobody uses it.
    pub unsafe fn release(&self, lowest: *mut Slot, capacity: usize) {
        law!((capacity + 2).is_power_of_two(), "accounted: an array comes back as long as it was");
        let Some(mut heads) = self.0.lock_unless_orphaned() else { return };
        let head = &mut heads[(capacity + 2).ilog2() as usize];
        // SAFETY: the array's memory starts with the low sentinel, one word below its lowest slot.
        unsafe {
            let memory = lowest.sub(1).cast::<usize>();
            *memory = *head;
            *head = memory as usize;
        }
    }

    /// Walks the free arrays.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let heads = self.0.lock();
        // No more arrays can be free than the allocator's own pages hold.
        let most = BACK_END.pages.totals().own * crate::config::PAGE_SIZE / LINE;
        for &head in heads.iter() {
            let (mut memory, mut seen) = (head, 0);
            while memory != 0 {
                law!(memory.is_multiple_of(LINE), "listed: a spare array begins on a line");
                law!(seen < most, "listed: no list of spare arrays is a circle");
                seen += 1;
                // SAFETY: free memory of ours whose first word is the link.
                memory = unsafe { *(memory as *const usize) };
            }
        }
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.0
    }
}
