//! A heap in a fixed piece of memory does what bytes say, beside a model of what it must hand out.
//!
//! ```text
//!   byte 0   how large the memory is          byte 1   after how many requests the source refuses
//!   then operations: a byte that says which, and those that say how large, how aligned, which block, how many
//! ```
//!
//! These are not the operations of the test kit (`tests/test-kit`): libFuzzer counts what an input reaches in the process
//! that plays it, and shortens what fails itself; the kit plays each stream in a child and shrinks it there. The memory can
//! be far smaller here, and the source may refuse.
//!
//! Any bytes mean something, so none are wasted. What is wrong is a panic: a block that overlaps another, is not as
//! aligned as was asked, is not zero where it should be, changed while it was held; blocks or pages that are gone when
//! all was freed; or an assertion of the heap's own.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use perseq::Heap;
use perseq::pages::{Arena, Failing, PageSource, Relocation};

/// Bytes of the smallest and of the largest piece of memory.
const LEAST: usize = 64 << 10;
const MOST: usize = 8 << 20;

/// What is wrong with a heap on purpose, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A large block is handed out again while it is held.
    Twice,
    /// A large block that becomes a small one loses a byte.
    Shrunk,
    /// A block that should be zero is not, if others were freed before.
    Dirty,
    /// A block that is more aligned than a page is not given back.
    Lost,
}

impl Fault {
    pub const ALL: [Fault; 4] = [Fault::Twice, Fault::Shrunk, Fault::Dirty, Fault::Lost];

    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }
}

/// How often each thing happened: what a row of inputs reaches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Played {
    pub allocated: usize,
    pub refused: usize,
    pub resized: usize,
    pub freed: usize,
    pub released_bytes: usize,
}

/// What is left of the input. Zeros follow its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> usize {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                usize::from(first)
            }
            None => 0,
        }
    }

    /// 1 byte to twice `1 << bits`, in steps that grow with it.
    fn size(&mut self, bits: usize) -> usize {
        let (power, part) = (1 << (self.byte() % (bits + 1)), self.byte());
        power + (power * part) / 256
    }

    fn layout(&mut self) -> Layout {
        let (size, align) = (self.size(18), self.byte());
        // Seven in eight as most are.
        let align = if align < 224 { 8 } else { 1 << (align % 17) };
        Layout::from_size_align(size, align).expect("neither is near its bound")
    }
}

/// A fixed piece of memory that also takes contents back and moves them, as the kernel does.
struct Memory(Arena);

// SAFETY: as for what it is made of; what is released and what was moved away is made zero.
unsafe impl PageSource for Memory {
    const GRANULE: usize = Arena::GRANULE;
    const WHOLE: bool = Arena::WHOLE;

    fn most_bytes(&self) -> usize {
        self.0.most_bytes()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.0.reserve(bytes)
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract, here and below.
        unsafe { self.0.unreserve(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        unsafe { self.0.commit(start, bytes) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        unsafe { start.write_bytes(0, bytes) };
        true
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        // SAFETY: as above; they are apart.
        unsafe {
            to.copy_from_nonoverlapping(from, bytes);
            from.write_bytes(0, bytes);
        }
        Relocation::Moved
    }
}

struct Block {
    start: *mut u8,
    layout: Layout,
    /// What it is full of.
    byte: u8,
}

struct Player {
    heap: Heap<Failing<Memory>>,
    fault: Option<Fault>,
    held: Vec<Block>,
    /// Start and end of each block that is held.
    ranges: BTreeMap<usize, usize>,
    played: Played,
}

impl Player {
    fn add(&mut self, start: *mut u8, layout: Layout) {
        let byte = 1 + (self.played.allocated + self.played.resized) as u8 % 255;
        if !start.is_null() {
            // SAFETY: it is ours, and so long.
            unsafe { start.write_bytes(byte, layout.size()) };
        }
        self.add_full_of(byte, start, layout);
    }

    fn add_full_of(&mut self, byte: u8, start: *mut u8, layout: Layout) {
        if start.is_null() {
            self.played.refused += 1;
            return;
        }
        self.played.allocated += 1;
        self.keep(Block { start, layout, byte });
    }

    /// Notes a block as held.
    fn keep(&mut self, block: Block) {
        let (address, layout) = (block.start as usize, block.layout);
        assert!(address.is_multiple_of(layout.align()), "{address:#x} is not aligned: {layout:?}");
        let end = address + layout.size();
        let before = self.ranges.range(..end).next_back();
        assert!(before.is_none_or(|(_, &before)| before <= address), "{address:#x}, {layout:?} overlaps {before:x?}");
        self.ranges.insert(address, end);
        self.held.push(block);
    }

    fn take(&mut self, which: usize) -> Option<Block> {
        let block = (!self.held.is_empty()).then(|| self.held.swap_remove(which % self.held.len()))?;
        assert!(self.ranges.remove(&(block.start as usize)).is_some());
        check(block.start, block.layout.size(), block.byte);
        Some(block)
    }

    fn allocate(&mut self, layout: Layout) {
        let is_large = |layout: Layout| layout.size() > 64 << 10;
        let twice = self.fault == Some(Fault::Twice) && is_large(layout);
        let again = twice.then(|| self.held.iter().find(|block| is_large(block.layout))).flatten();
        // SAFETY: the size is not 0.
        let start = again.map_or_else(|| unsafe { self.heap.alloc(layout) }, |block| block.start);
        self.add(start, layout);
    }

    fn allocate_zeroed(&mut self, layout: Layout) {
        // SAFETY: the size is not 0.
        let start = unsafe { self.heap.alloc_zeroed(layout) };
        if !start.is_null() {
            if self.fault == Some(Fault::Dirty) && self.played.freed > 3 {
                // SAFETY: its first byte.
                unsafe { start.write(1) };
            }
            check(start, layout.size(), 0);
        }
        // It stays as it is: a block that was never written is resized in another way.
        self.add_full_of(0, start, layout);
    }

    fn free(&mut self, which: usize) {
        let Some(block) = self.take(which) else { return };
        self.played.freed += 1;
        if self.fault != Some(Fault::Lost) || block.layout.align() <= 8192 {
            // SAFETY: it came from this heap with this layout, and is nobody's any more.
            unsafe { self.heap.dealloc(block.start, block.layout) };
        }
    }

    fn resize(&mut self, which: usize, size: usize) {
        let Some(block) = self.take(which) else { return };
        // SAFETY: it came from this heap with this layout; the size is not 0.
        let start = unsafe { self.heap.realloc(block.start, block.layout, size) };
        if start.is_null() {
            self.played.refused += 1;
            check(block.start, block.layout.size(), block.byte);
            return self.keep(block);
        }
        self.played.resized += 1;
        if self.fault == Some(Fault::Shrunk) && block.layout.size() > 32 << 10 && size < 1 << 10 {
            // SAFETY: its first byte.
            unsafe { start.write(!block.byte) };
        }
        let kept = size.min(block.layout.size());
        check(start, kept, block.byte);
        // SAFETY: what it grew by, if it did.
        unsafe { start.add(kept).write_bytes(block.byte, size - kept) };
        let layout = Layout::from_size_align(size, block.layout.align()).expect("as above");
        self.keep(Block { start, layout, ..block });
    }

    /// What the heap says is live is what is held, and what classes add to it.
    fn count(&self) {
        let (stats, held) = (self.heap.stats(), self.held.iter().map(|block| block.layout.size() as u64).sum::<u64>());
        let live = stats.live_small_bytes + stats.live_large_bytes;
        assert!(live >= held && (held > 0 || live == 0), "{held} bytes are held: {stats:?}");
    }

    fn operate(&mut self, script: &mut Script) {
        match script.byte() % 8 {
            0 | 1 => {
                let layout = script.layout();
                self.allocate(layout);
            }
            2 => {
                let layout = script.layout();
                self.allocate_zeroed(layout);
            }
            3 => self.free(script.byte()),
            4 => {
                let (which, size) = (script.byte(), script.size(18));
                self.resize(which, size);
            }
            // So many of one size that spans fill up; and so many freed that they are pages again.
            5 => {
                let (size, count) = (script.size(12), script.byte());
                let layout = Layout::from_size_align(size, 8).expect("a layout");
                (0..count).for_each(|_| self.allocate(layout));
            }
            6 => {
                let (which, count) = (script.byte(), script.byte());
                (0..count).for_each(|_| self.free(which));
            }
            _ => {
                // From now on the source refuses after so many requests, or never.
                let good = script.byte() as u64;
                self.heap.source().allow(if good > 32 { u64::MAX } else { good });
                self.played.released_bytes += self.heap.release();
                self.count();
            }
        }
    }
}

/// The bytes of a block are what they were.
fn check(start: *mut u8, size: usize, byte: u8) {
    // SAFETY: a block that is held, so long.
    let bytes = unsafe { std::slice::from_raw_parts(start, size) };
    let all = [byte; 4096];
    assert!(bytes.chunks(4096).all(|chunk| *chunk == all[..chunk.len()]), "{size} bytes at {start:?} are not {byte}");
}

/// Plays an input from its beginning to its end, and frees everything.
pub fn play(input: &[u8], fault: Option<Fault>) -> Played {
    thread_local! {
        static MEMORY: *mut MaybeUninit<u8> = vec![MaybeUninit::new(0xee); MOST].leak().as_mut_ptr();
    }
    let mut script = Script(input);
    let (bytes, good) = (LEAST << (script.byte() % 8), script.byte() as u64);
    // SAFETY: this thread's, and the heap that had it last was dropped.
    let memory = unsafe { std::slice::from_raw_parts_mut(MEMORY.with(|memory| *memory), bytes.min(MOST)) };
    let source = Failing::new(Memory(Arena::new(memory)), if good < 192 { u64::MAX } else { good - 192 });
    let (held, ranges) = (Vec::new(), BTreeMap::new());
    let mut player = Player { heap: Heap::new(source), fault, held, ranges, played: Played::default() };
    while !script.0.is_empty() {
        player.operate(&mut script);
    }
    player.count();
    while !player.held.is_empty() {
        player.free(0);
    }
    player.heap.source().allow(u64::MAX);
    player.played.released_bytes += player.heap.release();
    player.count();
    let stats = player.heap.stats();
    assert_eq!((stats.transfer_bytes, stats.central_bytes), (0, 0), "{stats:?}");
    player.played
}
