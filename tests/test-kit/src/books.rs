//! Which addresses are held, and by whom.

use std::sync::{Mutex, MutexGuard};

use crate::block::Block;
use crate::own::Row;

/// How many blocks a stream may hold at once.
pub const MOST_BLOCKS: usize = 1 << 16;

/// What one block occupies.
#[derive(Clone, Copy)]
pub struct Entry {
    start: usize,
    end: usize,
    pub name: u64,
}

/// All that is held, by address.
pub struct Books(Mutex<Row<Entry>>);

impl Books {
    pub fn new() -> Books {
        Books(Mutex::new(Row::new(MOST_BLOCKS)))
    }

    /// Keeps other threads out, as while this one forks: the child must be able to go on.
    pub fn lock(&self) -> MutexGuard<'_, impl Sized + use<>> {
        self.row()
    }

    fn row(&self) -> MutexGuard<'_, Row<Entry>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether there is room for another block.
    pub fn have_room(&self) -> bool {
        self.row().room() > 0
    }

    /// Notes a block as held. The block that it overlaps, if there is one.
    pub fn add(&self, block: &Block) -> Result<(), Entry> {
        let (start, end) = (block.address(), block.address() + block.layout.size());
        let mut row = self.row();
        // Those held do not overlap, so their ends are in order as well.
        let at = row.partition_point(|entry| entry.end <= start);
        match row.get(at) {
            Some(entry) if entry.start < end => Err(*entry),
            _ => {
                row.insert(at, Entry { start, end, name: block.name });
                Ok(())
            }
        }
    }

    /// Notes that a block is held no more.
    pub fn remove(&self, block: &Block) {
        let mut row = self.row();
        let at = row.partition_point(|entry| entry.start < block.address());
        let entry = row.remove(at);
        assert!(entry.start == block.address() && entry.name == block.name, "the kit's books are wrong");
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;
    use std::ptr::NonNull;

    use super::*;

    #[test]
    fn blocks_that_share_a_byte_are_found() {
        let block = |start: usize, size| {
            let layout = Layout::from_size_align(size, 1).expect("a layout");
            Block { start: NonNull::new(start as *mut u8).expect("not null"), layout, name: start as u64, key: 0 }
        };
        let books = Books::new();
        let held = [block(100, 10), block(110, 1), block(50, 50), block(200, 1)];
        held.iter().for_each(|block| assert!(books.add(block).is_ok()));
        for (start, size, of) in
            [(100, 1, 100), (109, 1, 100), (110, 90, 110), (40, 11, 50), (1, 500, 50), (111, 90, 200)]
        {
            assert_eq!(books.add(&block(start, size)).err().map(|entry| entry.name), Some(of), "{start}, {size}");
        }
        books.remove(&held[0]);
        assert!(books.add(&block(101, 9)).is_ok() && books.add(&block(111, 89)).is_ok());
    }
}
