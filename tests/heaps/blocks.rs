//! Blocks that know what they are full of, and a walk over every path of a heap with them.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::Barrier;

use perseq::Heap;
use perseq::pages::PageSource;

pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// A block full of one byte.
#[derive(Clone, Copy)]
pub struct Block {
    pub start: NonNull<u8>,
    pub layout: Layout,
    byte: u8,
}

// SAFETY: a block is moved between threads, and used by one at a time.
unsafe impl Send for Block {}

impl Block {
    pub fn new<S: PageSource>(heap: &Heap<S>, layout: Layout, byte: u8) -> Option<Block> {
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { heap.alloc(layout) })?;
        assert!((start.as_ptr() as usize).is_multiple_of(layout.align()), "{layout:?}");
        // SAFETY: ours, and so long.
        unsafe { start.write_bytes(byte, layout.size()) };
        Some(Block { start, layout, byte })
    }

    pub fn zeroed<S: PageSource>(heap: &Heap<S>, layout: Layout, byte: u8) -> Option<Block> {
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { heap.alloc_zeroed(layout) })?;
        let block = Block { start, layout, byte: 0 };
        block.check(layout.size());
        // SAFETY: ours, and so long.
        unsafe { start.write_bytes(byte, layout.size()) };
        Some(Block { byte, ..block })
    }

    pub fn check(&self, size: usize) {
        // SAFETY: ours, and so long.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), size) };
        let all = [self.byte; 4096];
        assert!(bytes.chunks(4096).all(|chunk| *chunk == all[..chunk.len()]), "{:?} is not itself", self.layout);
    }

    /// False, and the block as it was, if memory is exhausted.
    pub fn resize<S: PageSource>(&mut self, heap: &Heap<S>, size: usize) -> bool {
        // SAFETY: allocated with this layout.
        let Some(start) = NonNull::new(unsafe { heap.realloc(self.start.as_ptr(), self.layout, size) }) else {
            self.check(self.layout.size());
            return false;
        };
        let kept = self.layout.size().min(size);
        self.start = start;
        self.layout = layout(size, self.layout.align());
        self.check(kept);
        // SAFETY: ours, and so long.
        unsafe { start.write_bytes(self.byte, size) };
        true
    }

    pub fn free<S: PageSource>(self, heap: &Heap<S>) {
        self.check(self.layout.size());
        // SAFETY: allocated with this layout, and freed once.
        unsafe { heap.dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A small generator: the same choices for the same seed.
pub struct Choices(pub u64);

impl Choices {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// Every path: small, large, zeroed, aligned, resized over all borders, from one thread to another. Returns how many
/// calls failed. Whatever failed, the rest is whole, and in the end nothing is held.
pub fn every_path<S: PageSource>(heap: &Heap<S>, steps: usize) -> usize {
    let barrier = Barrier::new(2);
    let failed: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|seed| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let (mut choices, mut held, mut failed) = (Choices(seed), Vec::new(), 0);
                    for step in 0..steps {
                        let bits = 3 + choices.below(18);
                        let size = 1 + choices.below(1 << bits);
                        let align = 1 << if choices.below(8) == 0 { choices.below(17) } else { 3 };
                        let byte = 1 + (step % 255) as u8;
                        let block = match choices.below(4) {
                            0 => Block::zeroed(heap, layout(size, align), byte),
                            1 | 2 => Block::new(heap, layout(size, align), byte),
                            _ if held.is_empty() => continue,
                            _ => {
                                let index = choices.below(held.len());
                                let block: &mut Block = &mut held[index];
                                failed += usize::from(!block.resize(heap, size));
                                continue;
                            }
                        };
                        match block {
                            Some(block) => held.push(block),
                            None => failed += 1,
                        }
                        if held.len() > 40 {
                            held.swap_remove(choices.below(held.len())).free(heap);
                        }
                        if step % 97 == 96 {
                            heap.release();
                        }
                    }
                    (held, failed)
                })
            })
            .collect();
        let done: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        // What one thread allocated, another frees.
        done.into_iter().fold(0, |sum, (held, failed)| {
            held.into_iter().for_each(|block: Block| block.free(heap));
            sum + failed
        })
    });
    let stats = heap.stats();
    assert_eq!((stats.live_small_bytes, stats.live_large_bytes), (0, 0), "{stats:?}");
    failed
}

/// After `release`, everything but tables is free, and so many pages as before.
pub fn nothing_is_lost<S: PageSource>(heap: &Heap<S>) -> u64 {
    heap.release();
    let stats = heap.stats();
    assert_eq!((stats.transfer_bytes, stats.central_bytes), (0, 0), "{stats:?}");
    stats.free_page_bytes + stats.released_bytes + stats.metadata_bytes
}
