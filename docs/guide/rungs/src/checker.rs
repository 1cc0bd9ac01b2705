//! Whether what an allocator hands out is right: blocks are as aligned as asked, no two live ones overlap, zeroed ones are
//! zero, and contents stay until a block is freed, also by another thread.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::{Allocator, lock};

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A block in a thread's hands.
#[derive(Debug)]
struct Block {
    start: *mut u8,
    layout: Layout,
    /// What its contents are made of.
    seed: u8,
}

// SAFETY: a block is memory, and whose it is has it alone.
unsafe impl Send for Block {}

/// What all threads of a check share.
struct Shared {
    allocator: Allocator,
    /// Where each live block begins and ends.
    live: Mutex<BTreeMap<usize, usize>>,
    /// Blocks on their way to another thread.
    passing: Mutex<Vec<Block>>,
}

impl Block {
    fn expected(&self, index: usize) -> u8 {
        self.seed.wrapping_add((index % 251) as u8)
    }

    fn fill(&self) {
        for index in 0..self.layout.size() {
            // SAFETY: within the block, which is ours.
            unsafe { self.start.add(index).write(self.expected(index)) };
        }
    }

    /// The first of `bytes` that is not what [`Block::fill`] wrote.
    fn changed(&self, bytes: usize) -> Option<usize> {
        // SAFETY: within the block, which is ours and filled.
        (0..bytes).find(|&index| unsafe { self.start.add(index).read() } != self.expected(index))
    }
}

impl Shared {
    /// Writes down that a block is live.
    fn begin(&self, start: *mut u8, layout: Layout) -> Result<(), String> {
        if start.is_null() {
            return Err(format!("no memory for {layout:?}"));
        }
        let (start, end) = (start as usize, start as usize + layout.size());
        if !start.is_multiple_of(layout.align()) {
            return Err(format!("{start:#x} is not aligned to {}", layout.align()));
        }
        let mut live = lock(&self.live);
        let overlapped = live.range(..end).next_back().filter(|(_, other_end)| **other_end > start);
        if let Some((other, other_end)) = overlapped {
            return Err(format!("{start:#x} to {end:#x} overlaps {other:#x} to {other_end:#x}, which is live"));
        }
        live.insert(start, end);
        Ok(())
    }

    fn end(&self, block: &Block) {
        lock(&self.live).remove(&(block.start as usize));
    }

    fn allocate(&self, random: &mut Random) -> Result<Block, String> {
        let layout = layout(random);
        let zeroed = random.below(8) == 0;
        // SAFETY: no layout is empty.
        let start = unsafe { if zeroed { self.allocator.alloc_zeroed(layout) } else { self.allocator.alloc(layout) } };
        self.begin(start, layout)?;
        // SAFETY: within a block that is ours.
        if zeroed && let Some(index) = (0..layout.size()).find(|&index| unsafe { start.add(index).read() } != 0) {
            return Err(format!("byte {index} of a zeroed block of {layout:?} is not zero"));
        }
        let block = Block { start, layout, seed: random.below(256) as u8 };
        block.fill();
        Ok(block)
    }

    fn free(&self, block: Block) -> Result<(), String> {
        if let Some(index) = block.changed(block.layout.size()) {
            return Err(format!("byte {index} of {block:?} changed while it was live"));
        }
        self.end(&block);
        // SAFETY: it came from this allocator for this layout, and is not used again.
        unsafe { self.allocator.dealloc(block.start, block.layout) };
        Ok(())
    }

    fn resize(&self, block: &mut Block, size: usize) -> Result<(), String> {
        let kept = block.layout.size().min(size);
        self.end(block);
        // SAFETY: it came from this allocator for this layout; the new size is not 0, and below the largest.
        let start = unsafe { self.allocator.realloc(block.start, block.layout, size) };
        let layout = Layout::from_size_align(size, block.layout.align()).map_err(|error| error.to_string())?;
        self.begin(start, layout)?;
        (block.start, block.layout) = (start, layout);
        if let Some(index) = block.changed(kept) {
            return Err(format!("byte {index} of {block:?} changed when it was resized"));
        }
        block.fill();
        Ok(())
    }

    fn thread(&self, steps: usize, seed: u64) -> Result<(), String> {
        const SLOTS: usize = 200;
        let mut random = Random::new(seed);
        let mut held: Vec<Block> = Vec::new();
        for _ in 0..steps {
            match random.below(16) {
                0 if !held.is_empty() => {
                    let block = held.swap_remove(random.below(held.len()));
                    lock(&self.passing).push(block);
                }
                1 => {
                    let passed = lock(&self.passing).pop();
                    held.extend(passed);
                }
                2 if !held.is_empty() => {
                    let (index, size) = (random.below(held.len()), layout(&mut random).size());
                    self.resize(&mut held[index], size)?;
                }
                _ if held.len() < SLOTS && random.below(SLOTS) >= held.len() / 2 => {
                    held.push(self.allocate(&mut random)?);
                }
                _ if held.is_empty() => {}
                _ => {
                    let index = random.below(held.len());
                    self.free(held.swap_remove(index))?;
                }
            }
        }
        held.into_iter().try_for_each(|block| self.free(block))
    }
}

/// Mostly small, now and then large or very aligned.
fn layout(random: &mut Random) -> Layout {
    let size = match random.below(64) {
        0 => 1 + random.below(200_000),
        1..8 => 1 + random.below(8_000),
        _ => 1 + random.below(300),
    };
    let align = 1 << if random.below(32) == 0 { random.below(17) } else { random.below(5) };
    Layout::from_size_align(size, align).expect("a power of two, and no size near the largest")
}

/// Has `threads` do `steps` each with `allocator`, and looks at every block.
///
/// # Errors
///
/// What was wrong first.
pub fn check(allocator: Allocator, threads: u64, steps: usize, seed: u64) -> Result<(), String> {
    let shared = Shared { allocator, live: Mutex::default(), passing: Mutex::default() };
    let all = &shared;
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let start = |thread| scope.spawn(move || all.thread(steps, seed + thread));
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
    let passing: Vec<_> = lock(&shared.passing).drain(..).collect();
    passing.into_iter().try_for_each(|block| shared.free(block))?;
    let left = lock(&shared.live).len();
    if left == 0 { Ok(()) } else { Err(format!("{left} blocks were never freed")) }
}
