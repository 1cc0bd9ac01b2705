//! Rung 5: each CPU keeps free objects, and the thread that runs there uses them.
//!
//! ```text
//!   thread 1 ─┐
//!   thread 2 ─┼─ runs on ─►  CPU 0   lists ◄──┐
//!   thread 3 ─┘              CPU 1   lists ◄──┴──►  what stands behind
//! ```
//!
//! Between finding out the CPU and changing its list the kernel may move the thread. So both are one *restartable
//! sequence*: if the kernel interrupts it, it starts again. The `rseq` crate's [`PerCpuBuffer`] is such lists of words.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::OnceLock;

use rseq::{PerCpuBuffer, StopError};

use crate::per_thread::{MOST, batch, capacity};
use crate::size_classes::{CLASSES, class_of};
use crate::tier::Tier;

/// Takes an object from the list of the CPU that the thread is on, and a batch from `T` if it has none.
#[derive(Debug)]
pub struct PerCpu<T> {
    /// Addresses of free objects, by class and CPU. Made when a class is first used; `None` if there was no memory.
    lists: [OnceLock<Option<PerCpuBuffer<MOST>>>; CLASSES],
    behind: T,
}

impl<T> PerCpu<T> {
    /// Empty caches over `behind`.
    pub const fn new(behind: T) -> Self {
        PerCpu { lists: [const { OnceLock::new() }; CLASSES], behind }
    }

    /// What stands behind the caches.
    pub fn behind(&self) -> &T {
        &self.behind
    }

    fn list(&self, class: usize) -> Option<&PerCpuBuffer<MOST>> {
        self.lists[class].get_or_init(|| PerCpuBuffer::with_capacity(capacity(class)).ok()).as_ref()
    }

    /// Whether lists are changed in sequences. Where the kernel, a filter or an emulator refuses them, all threads
    /// share one cache under a lock: slower, and as right.
    pub fn is_per_cpu(&self) -> bool {
        self.list(0).is_some_and(PerCpuBuffer::is_per_cpu)
    }
}

impl<T: Tier> PerCpu<T> {
    /// A batch from behind: one object for the caller, the others for the CPU that the thread is on by now.
    #[cold]
    fn refill(&self, class: usize) -> *mut u8 {
        let mut objects = [ptr::null_mut(); MOST];
        let taken = self.behind.take(class, &mut objects[..batch(class)]);
        if let Some(kept) = (1..taken).find(|&index| self.append(class, objects[index]).is_none()) {
            // SAFETY: they came from there, and nobody uses them.
            unsafe { self.behind.give(class, &objects[kept..taken]) };
        }
        objects[0]
    }

    /// Moves a batch of this CPU's list behind, with `object`.
    ///
    /// # Safety
    ///
    /// * As for [`Tier::give`].
    #[cold]
    unsafe fn flush(&self, class: usize, object: *mut u8) {
        let (mut objects, mut count) = ([object; MOST], 1);
        while count < batch(class)
            && let Some(other) = self.take(class)
        {
            objects[count] = other;
            count += 1;
        }
        // SAFETY: lists hold what came from there and nobody uses; `object` by our own contract.
        unsafe { self.behind.give(class, &objects[..count]) };
    }

    /// One sequence: the newest address of this CPU's list.
    fn take(&self, class: usize) -> Option<*mut u8> {
        self.list(class)?.take().map(|address| ptr::with_exposed_provenance_mut(address as usize))
    }

    /// One sequence: an address at the end of this CPU's list. `None`: it is full.
    fn append(&self, class: usize, object: *mut u8) -> Option<()> {
        self.list(class)?.append(object.expose_provenance() as u64).ok()
    }

    /// Moves all objects of all CPUs behind. It interrupts each CPU that has some, to abort what runs there.
    ///
    /// # Errors
    ///
    /// The kernel refuses that. What it was refused for stays.
    pub fn drain(&self) -> Result<(), StopError> {
        let mut outcome = Ok(());
        for (class, list) in self.lists.iter().enumerate() {
            let Some(list) = list.get().and_then(Option::as_ref) else { continue };
            let give = |address: u64| {
                // SAFETY: lists hold what came from there and nobody uses.
                unsafe { self.behind.give(class, &[ptr::with_exposed_provenance_mut(address as usize)]) }
            };
            outcome = outcome.and(list.drain(give)); // also where another was refused
        }
        outcome
    }
}

// SAFETY: an object is on one list or in one program's hands; a sequence puts it on a list or takes it off as a whole.
unsafe impl<T: Tier> GlobalAlloc for PerCpu<T> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else { return self.behind.take_large(layout) };
        self.take(class).unwrap_or_else(|| self.refill(class))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by GlobalAlloc's contract, it came from `alloc` for this layout.
        unsafe {
            let Some(class) = class_of(layout) else { return self.behind.give_large(pointer, layout) };
            if self.append(class, pointer).is_none() {
                self.flush(class, pointer);
            }
        }
    }
}
