//! Rung 6: batches pass from one CPU to another as they are.
//!
//! ```text
//!   CPU 0   lists ──► a batch of addresses ──►┌──────────────────┐──► a batch of addresses ──► CPU 1   lists
//!                                             │ array, a class's │
//!                                             └──────────────────┘
//!                                          full ▼          ▲ empty
//!                                             what stands behind
//! ```
//!
//! What stands behind looks at each object. Here an object is an address: a batch is copied under one lock, and the
//! memory of its objects is not touched.

use std::alloc::Layout;
use std::ptr;
use std::sync::Mutex;

use crate::lock;
use crate::per_cpu::PerCpu;
use crate::per_thread::{MOST, capacity};
use crate::size_classes::{CLASSES, SizeClasses};
use crate::tier::Tier;

/// Full caches of a class that its array has room for.
const CACHES: usize = 4;

/// Arrays of addresses between caches and `T`, one for each class.
#[derive(Debug)]
pub struct TransferCache<T> {
    arrays: [Mutex<Array>; CLASSES],
    behind: T,
}

/// Free objects of one class: the first `count`.
#[derive(Debug)]
struct Array {
    objects: [*mut u8; CACHES * MOST],
    count: usize,
}

// SAFETY: the objects are nobody's, until whoever has the lock takes them.
unsafe impl Send for Array {}

impl Array {
    const EMPTY: Array = Array { objects: [ptr::null_mut(); CACHES * MOST], count: 0 };

    /// Fills `out` from its beginning, as far as there are objects; returns how many.
    fn take(&mut self, out: &mut [*mut u8]) -> usize {
        let taken = self.count.min(out.len());
        self.count -= taken;
        out[..taken].copy_from_slice(&self.objects[self.count..self.count + taken]);
        taken
    }

    /// Puts in the first of `objects`, as many as there is room for with at most `most`; returns how many.
    fn give(&mut self, objects: &[*mut u8], most: usize) -> usize {
        let given = objects.len().min(most.saturating_sub(self.count));
        self.objects[self.count..self.count + given].copy_from_slice(&objects[..given]);
        self.count += given;
        given
    }
}

impl<T> TransferCache<T> {
    /// Empty arrays before `behind`.
    pub const fn new(behind: T) -> Self {
        TransferCache { arrays: [const { Mutex::new(Array::EMPTY) }; CLASSES], behind }
    }

    /// What stands behind the arrays.
    pub fn behind(&self) -> &T {
        &self.behind
    }
}

impl<T: Tier> TransferCache<T> {
    /// Moves all objects behind.
    pub fn drain(&self) {
        let mut objects = [ptr::null_mut(); MOST];
        for (class, array) in self.arrays.iter().enumerate() {
            loop {
                let taken = lock(array).take(&mut objects);
                if taken == 0 {
                    break;
                }
                // SAFETY: they came from there, and nobody uses them.
                unsafe { self.behind.give(class, &objects[..taken]) };
            }
        }
    }
}

impl<T: Tier> Tier for TransferCache<T> {
    fn take(&self, class: usize, out: &mut [*mut u8]) -> usize {
        let taken = lock(&self.arrays[class]).take(out);
        if taken == out.len() { taken } else { taken + self.behind.take(class, &mut out[taken..]) }
    }

    unsafe fn give(&self, class: usize, objects: &[*mut u8]) {
        let given = lock(&self.arrays[class]).give(objects, CACHES * capacity(class));
        if given < objects.len() {
            // SAFETY: they came from there, by our own contract.
            unsafe { self.behind.give(class, &objects[given..]) };
        }
    }

    fn take_large(&self, layout: Layout) -> *mut u8 {
        self.behind.take_large(layout)
    }

    unsafe fn give_large(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by our own contract.
        unsafe { self.behind.give_large(block, layout) };
    }
}

/// This rung: caches of CPUs over transfer caches over size classes.
pub type Rung = PerCpu<TransferCache<SizeClasses>>;

/// Makes it.
#[must_use]
pub const fn rung() -> Rung {
    PerCpu::new(TransferCache::new(SizeClasses::empty()))
}
