//! Blocks that one thread holds, and names for them.
//!
//! It allocates nothing by itself: its places for blocks are there from the start. So a storm may take memory away from
//! the process and hit only what it means to hit.

use super::fault::fault;
use super::heap::Heap;
use super::object::{Object, any_layout};
use super::random::Random;

/// Blocks that one thread holds at most.
pub const HELD: usize = 100;

/// Blocks, and names for them.
pub struct Holder {
    /// The blocks.
    pub objects: Vec<Object>,
    /// Its random numbers.
    pub random: Random,
    heap: Heap,
    may_refuse: bool,
    next_name: u64,
}

impl Holder {
    /// One without blocks, whose names begin with `owner`.
    pub fn new(heap: Heap, may_refuse: bool, random: Random, owner: u64) -> Holder {
        Holder { objects: Vec::with_capacity(HELD), random, heap, may_refuse, next_name: owner << 40 }
    }

    /// Allocates one block more.
    pub fn allocate(&mut self) {
        let layout = any_layout(&mut self.random);
        self.next_name += 1;
        let zeroed = self.random.once_in(16);
        let make = if zeroed { Object::new_zeroed } else { Object::new };
        match make(self.heap, layout, self.next_name) {
            Some(object) => self.objects.push(object),
            None => self.refused(layout.size()),
        }
    }

    /// Takes any block out.
    pub fn take(&mut self) -> Option<Object> {
        let count = self.objects.len();
        (count > 0).then(|| self.objects.swap_remove(self.random.below(count)))
    }

    /// Checks and frees any block.
    pub fn free(&mut self) {
        if let Some(object) = self.take() {
            object.free(self.heap);
        }
    }

    /// Checks and frees all.
    pub fn free_all(&mut self) {
        while let Some(object) = self.objects.pop() {
            object.free(self.heap);
        }
    }

    /// Resizes any block.
    pub fn resize(&mut self) {
        let size = any_layout(&mut self.random).size();
        self.next_name += 1;
        if let Some(mut object) = self.take() {
            if !object.resize(self.heap, size, self.next_name) {
                self.refused(size);
            }
            self.objects.push(object);
        }
    }

    fn refused(&self, bytes: usize) {
        if !self.may_refuse {
            fault(format_args!("refused: no memory for {bytes} bytes, in a storm that takes none away"));
        }
    }
}
