//! The heap under test: perseq called as a crate, or whatever stands behind this process's `malloc`.
//!
//! A fault may be planted between the heap and the storm. It shows that the torture finds what it is for.

use super::fault::fault;
use nix::libc;
use serde::{Deserialize, Serialize};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// The way to the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Door {
    /// `perseq::Perseq`, linked into this program.
    Crate,
    /// `malloc` and its family, of the C library or of what is preloaded.
    Malloc,
}

/// Something that an allocator must not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
pub enum Plant {
    /// Hands out a block that is in use.
    Doubles,
    /// Forgets the last bytes when a block grows.
    Forgets,
    /// Writes into a block that is in use.
    Scribbles,
    /// Gives a block that is not aligned as asked.
    Misaligns,
    /// Gives a zeroed block that is not.
    Dirties,
    /// Never takes a block back.
    Loses,
    /// Finds no memory where there is some.
    Refuses,
    /// Never returns.
    Hangs,
    /// Writes where nothing is mapped.
    Crashes,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    /// The way to it.
    pub door: Door,
    /// What is wrong with it.
    pub plant: Option<Plant>,
}

static PERSEQ: perseq::Perseq = perseq::Perseq::new();

/// Operations that could have gone wrong.
static CHANCES: AtomicU64 = AtomicU64::new(0);
/// A block in use, of [`VICTIM_BYTES`], or 0.
static VICTIM: AtomicUsize = AtomicUsize::new(0);
/// The one that is being written to, or 0: its owner waits, for it is a block in use that is to be changed.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);
const VICTIM_BYTES: usize = 64;
/// Operations between two that go wrong.
const PERIOD: u64 = 300;

impl Heap {
    /// Allocates.
    ///
    /// # Safety
    ///
    /// * The layout is not empty.
    pub unsafe fn alloc(self, layout: Layout) -> *mut u8 {
        if let Some(plant) = self.plant
            && let Some(wrong) = wrong_block(plant, layout)
        {
            return wrong;
        }
        let block = match self.door {
            // SAFETY: by our own contract.
            Door::Crate => unsafe { PERSEQ.alloc(layout) },
            // SAFETY: plain integers.
            Door::Malloc if layout.align() <= 16 => unsafe { libc::malloc(layout.size()).cast() },
            Door::Malloc => {
                let mut block = null_mut();
                // SAFETY: `block` is ours to write; the alignment is a power of two above 16.
                let refused = unsafe { libc::posix_memalign(&mut block, layout.align(), layout.size()) };
                if refused == 0 { block.cast() } else { null_mut() }
            }
        };
        match self.plant {
            // SAFETY: a block of one byte more, and aligned to 2 at least: `wrong` is inside it.
            Some(Plant::Misaligns) if layout.align() >= 2 && chance() => unsafe { self.misaligned(block, layout) },
            Some(_) if layout.size() == VICTIM_BYTES => {
                VICTIM.store(block as usize, Relaxed);
                block
            }
            _ => block,
        }
    }

    /// Allocates zeroed bytes.
    ///
    /// # Safety
    ///
    /// * The layout is not empty.
    pub unsafe fn alloc_zeroed(self, layout: Layout) -> *mut u8 {
        let block = match self.door {
            // SAFETY: by our own contract.
            Door::Crate => unsafe { PERSEQ.alloc_zeroed(layout) },
            // SAFETY: plain integers.
            Door::Malloc if layout.align() <= 16 => unsafe { libc::calloc(1, layout.size()).cast() },
            Door::Malloc => {
                // SAFETY: by our own contract.
                let block = unsafe { self.alloc(layout) };
                if !block.is_null() {
                    // SAFETY: a block of this size.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
                block
            }
        };
        if self.plant == Some(Plant::Dirties) && !block.is_null() && chance() {
            // SAFETY: the block has a last byte.
            unsafe { block.add(layout.size() - 1).write(1) };
        }
        block
    }

    /// Resizes. Null: the block stays as it was.
    ///
    /// # Safety
    ///
    /// * `block` was allocated here with `layout`; `size` is not 0 and, rounded up to the alignment, no overflow.
    pub unsafe fn realloc(self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.plant.is_some() {
            no_victim(block);
        }
        if self.plant == Some(Plant::Forgets) && size > layout.size() && chance() {
            // SAFETY: by our own contract.
            return unsafe { self.moved(block, layout, size, layout.size() - layout.size().min(8)) };
        }
        match self.door {
            // SAFETY: by our own contract.
            Door::Crate => unsafe { PERSEQ.realloc(block, layout, size) },
            // SAFETY: as above.
            Door::Malloc if layout.align() <= 16 => unsafe { libc::realloc(block.cast(), size).cast() },
            // C has no realloc of aligned blocks.
            // SAFETY: as above.
            Door::Malloc => unsafe { self.moved(block, layout, size, layout.size().min(size)) },
        }
    }

    /// Frees.
    ///
    /// # Safety
    ///
    /// * `block` was allocated here with `layout`, and nobody uses it.
    pub unsafe fn dealloc(self, block: *mut u8, layout: Layout) {
        if self.plant.is_some() {
            no_victim(block);
            if self.plant == Some(Plant::Loses) && chance() {
                return;
            }
        }
        match self.door {
            // SAFETY: by our own contract.
            Door::Crate => unsafe { PERSEQ.dealloc(block, layout) },
            // SAFETY: as above.
            Door::Malloc => unsafe { libc::free(block.cast()) },
        }
    }

    /// Moves the first `count` bytes into a new block.
    unsafe fn moved(self, block: *mut u8, layout: Layout, size: usize, count: usize) -> *mut u8 {
        let Ok(larger) = Layout::from_size_align(size, layout.align()) else {
            fault(format_args!("the torture asked for {size} bytes aligned to {}", layout.align()))
        };
        // SAFETY: not empty, by the caller's contract.
        let new = unsafe { self.alloc(larger) };
        if !new.is_null() {
            // SAFETY: both blocks have as many bytes, and are two.
            unsafe { new.copy_from_nonoverlapping(block, count) };
            // SAFETY: by the caller's contract.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }

    /// A byte beyond the beginning of a larger block, which is leaked.
    unsafe fn misaligned(self, block: *mut u8, layout: Layout) -> *mut u8 {
        let Ok(larger) = Layout::from_size_align(layout.size() + 1, layout.align()) else { return block };
        let sound = Heap { plant: None, ..self };
        // SAFETY: not empty.
        let larger = unsafe { sound.alloc(larger) };
        if larger.is_null() { block } else { larger.wrapping_add(1) }
    }
}

/// The block is no victim any more, nor being written to: its owner gives it up.
fn no_victim(block: *mut u8) {
    _ = VICTIM.compare_exchange(block as usize, 0, SeqCst, SeqCst);
    while WRITTEN.load(SeqCst) == block as usize {
        std::thread::yield_now();
    }
}

fn chance() -> bool {
    CHANCES.fetch_add(1, Relaxed) % PERIOD == PERIOD - 1
}

/// What these plants answer instead of a block, now and then.
fn wrong_block(plant: Plant, layout: Layout) -> Option<*mut u8> {
    match plant {
        Plant::Doubles if layout.size() <= VICTIM_BYTES && layout.align() <= 8 && chance() => {
            let victim = VICTIM.load(Relaxed);
            (victim != 0).then_some(victim as *mut u8)
        }
        Plant::Scribbles if chance() => {
            let victim = VICTIM.load(SeqCst);
            if victim != 0 && WRITTEN.compare_exchange(0, victim, SeqCst, SeqCst).is_ok() {
                if VICTIM.load(SeqCst) == victim {
                    // SAFETY: not sound at all, as planted: a word of a block that is another's, and in use.
                    unsafe { (victim as *mut u64).write_volatile(0x5c21_bb1e) };
                }
                WRITTEN.store(0, SeqCst);
            }
            None
        }
        Plant::Refuses if chance() => Some(null_mut()),
        Plant::Hangs if chance() => loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        Plant::Crashes if chance() => {
            // SAFETY: not sound at all, as planted.
            unsafe { std::ptr::dangling_mut::<u64>().write_volatile(1) };
            None
        }
        _ => None,
    }
}
