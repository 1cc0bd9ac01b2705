//! Objects of one class on their way from one cache to another: an array of pointers under one lock.
//!
//! A batch that one CPU gives back is a batch another fetches, without a look at spans and without touching
//! an object. What does not fit, or is not there, is the central free list's.

use core::ptr;

use crate::central_free_list::CentralFreeList;
use crate::config::{LINE, TRANSFER_BATCHES, TRANSFER_BYTES};
use crate::metadata::Metadata;
use crate::page_heap::PageHeap;
use crate::size_class::SizeClass;
use crate::sync::Mutex;

/// The pointers of one class.
pub struct TransferCache(Mutex<State>);

struct State {
    /// `capacity(class)` pointers, allocated at the first insert; null before.
    objects: *mut *mut u8,
    length: usize,
    counts: Counts,
}

// SAFETY: `objects` is this structure's own memory.
unsafe impl Send for State {}

/// What went through, in objects, and through which door.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Single objects for a thread that had no cache to use.
    pub uncached_allocs: u64,
    pub uncached_frees: u64,
    /// Objects now in the array.
    pub length: usize,
}

/// The tiers behind the caches, for one class.
#[derive(Clone, Copy)]
pub struct Middle<'a> {
    pub class: SizeClass,
    pub transfer: &'a TransferCache,
    pub central: &'a CentralFreeList,
    pub pages: &'a PageHeap,
    pub metadata: &'a Metadata,
}

impl Middle<'_> {
    /// Fills `out` with objects; returns how many, fewer only if memory is exhausted.
    pub fn remove_range(&self, out: &mut [*mut u8]) -> usize {
        let taken = self.transfer.0.lock().take(out);
        self.fetch(taken, out)
    }

    /// Takes objects back.
    pub fn insert_range(&self, objects: &[*mut u8]) {
        let put = self.transfer.0.lock().put(self.class, self.metadata, objects);
        self.pass_on(put, objects);
    }

    /// One object for a thread without a cache.
    pub fn remove_uncached(&self) -> Option<*mut u8> {
        let mut out = [ptr::null_mut()];
        let taken = {
            let mut state = self.transfer.0.lock();
            state.counts.uncached_allocs += 1;
            state.take(&mut out)
        };
        if self.fetch(taken, &mut out) == 0 {
            self.transfer.0.lock().counts.uncached_allocs -= 1; // memory is exhausted
            return None;
        }
        Some(out[0])
    }

    /// Takes one object back from a thread without a cache.
    pub fn insert_uncached(&self, object: *mut u8) {
        let put = {
            let mut state = self.transfer.0.lock();
            state.counts.uncached_frees += 1;
            state.put(self.class, self.metadata, &[object])
        };
        self.pass_on(put, &[object]);
    }

    /// Counts the free of an object that went elsewhere.
    pub fn count_uncached_free(&self) {
        self.transfer.0.lock().counts.uncached_frees += 1;
    }

    /// Empties the transfer cache into the spans, and gives a span that became empty back.
    pub fn trim(&self) {
        let mut objects = [ptr::null_mut(); 64];
        loop {
            let taken = self.transfer.0.lock().take(&mut objects);
            if taken == 0 {
                break;
            }
            self.central.insert_range(self.class, self.pages, &objects[..taken]);
        }
        self.central.trim(self.class, self.pages);
    }

    fn fetch(&self, taken: usize, out: &mut [*mut u8]) -> usize {
        if taken == out.len() {
            return taken;
        }
        taken + self.central.remove_range(self.class, self.pages, self.metadata, &mut out[taken..])
    }

    fn pass_on(&self, put: usize, objects: &[*mut u8]) {
        if put < objects.len() {
            self.central.insert_range(self.class, self.pages, &objects[put..]);
        }
    }
}

impl TransferCache {
    pub const fn new() -> Self {
        let counts = Counts { uncached_allocs: 0, uncached_frees: 0, length: 0 };
        TransferCache(Mutex::new(State { objects: ptr::null_mut(), length: 0, counts }))
    }

    /// What it holds and did.
    pub fn counts(&self) -> Counts {
        let state = self.0.lock();
        Counts { length: state.length, ..state.counts }
    }

    pub(crate) fn mutex(&self) -> &Mutex<impl Sized> {
        &self.0
    }
}

/// Pointers a class's array holds.
fn capacity(class: SizeClass) -> usize {
    let batch = class.info().batch as usize;
    (TRANSFER_BYTES / class.size()).clamp(2 * batch, TRANSFER_BATCHES * batch)
}

impl State {
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let count = out.len().min(self.length);
        self.length -= count;
        // SAFETY: the array holds `length + count` pointers, and `out` is not part of it.
        unsafe { ptr::copy_nonoverlapping(self.objects.wrapping_add(self.length), out.as_mut_ptr(), count) };
        count
    }

    fn put(&mut self, class: SizeClass, metadata: &Metadata, objects: &[*mut u8]) -> usize {
        if self.objects.is_null() {
            let bytes = (capacity(class) * size_of::<*mut u8>()).next_multiple_of(LINE);
            let Some(memory) = metadata.allocate(bytes, LINE) else { return 0 };
            self.objects = memory.as_ptr().cast();
        }
        let count = objects.len().min(capacity(class) - self.length);
        // SAFETY: the array has room for `capacity` pointers, `length` of which are used.
        unsafe { ptr::copy_nonoverlapping(objects.as_ptr(), self.objects.add(self.length), count) };
        self.length += count;
        count
    }
}
