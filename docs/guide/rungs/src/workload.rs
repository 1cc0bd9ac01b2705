//! What the rungs are measured with. Each does a fixed amount of work and checks the blocks that it frees.

use std::alloc::Layout;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::checker::Random;
use crate::{Allocator, kernel};

/// What a value is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds for each block that is allocated and freed.
    Nanoseconds,
    /// Bytes in memory beyond what was there before.
    Bytes,
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What its value is of. Less is better.
    pub unit: Unit,
    run: fn(Allocator, usize) -> f64,
}

impl Workload {
    /// Runs it on `allocator`, with `percent` of the usual work.
    #[must_use]
    pub fn run(&self, allocator: Allocator, percent: usize) -> f64 {
        (self.run)(allocator, percent)
    }
}

/// All of them.
pub static WORKLOADS: [Workload; 6] = [
    Workload {
        name: "alone",
        about: "one thread replaces blocks of 16 to 528 bytes at random, of 1000",
        unit: Unit::Nanoseconds,
        run: alone,
    },
    Workload { name: "together", about: "four threads do so at once", unit: Unit::Nanoseconds, run: together },
    Workload { name: "passing", about: "one thread allocates, another frees", unit: Unit::Nanoseconds, run: passing },
    Workload {
        name: "phases",
        about: "4 MiB of one size, freed but for some, then of another, five times",
        unit: Unit::Bytes,
        run: phases,
    },
    Workload {
        name: "sleepers",
        about: "64 threads that worked for a moment, freed everything and sleep",
        unit: Unit::Bytes,
        run: sleepers,
    },
    Workload {
        name: "burst",
        about: "32 MiB, freed; then little work for a third of a second",
        unit: Unit::Bytes,
        run: burst,
    },
];

/// The workload called `name`.
#[must_use]
pub fn workload(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

/// A live block, with its own address in its first word.
struct Block(*mut u8, Layout);

// SAFETY: a block is memory, and whose it is has it alone.
unsafe impl Send for Block {}

impl Block {
    fn new(allocator: Allocator, size: usize) -> Self {
        let layout = Layout::from_size_align(size, 16).expect("a small size");
        // SAFETY: no layout here is empty, and each has room for a word.
        unsafe {
            let start = allocator.alloc(layout);
            assert!(!start.is_null(), "out of memory");
            start.cast::<usize>().write(start as usize);
            Block(start, layout)
        }
    }

    fn free(self, allocator: Allocator) {
        // SAFETY: it came from this allocator for this layout.
        unsafe {
            assert_eq!(self.0.cast::<usize>().read(), self.0 as usize, "a live block was overwritten");
            allocator.dealloc(self.0, self.1);
        }
    }
}

/// One of a thread's places for blocks.
type Slots = Vec<Option<Block>>;

fn slots(count: usize) -> Slots {
    (0..count).map(|_| None).collect()
}

/// Frees a block and allocates another, `pairs` times.
fn churn(allocator: Allocator, random: &mut Random, slots: &mut Slots, pairs: usize) {
    for _ in 0..pairs {
        let (slot, most) = (random.below(slots.len()), 16 << random.below(6));
        let size = 16 + random.below(most);
        if let Some(block) = slots[slot].take() {
            block.free(allocator);
        }
        slots[slot] = Some(Block::new(allocator, size));
    }
}

fn empty(allocator: Allocator, slots: &mut Slots) {
    slots.iter_mut().filter_map(Option::take).for_each(|block| block.free(allocator));
}

fn nanoseconds(spent: Duration, pairs: usize) -> f64 {
    spent.as_nanos() as f64 / pairs as f64
}

fn scaled(work: usize, percent: usize) -> usize {
    (work * percent / 100).max(1)
}

fn alone(allocator: Allocator, percent: usize) -> f64 {
    let (pairs, mut random, mut slots) = (scaled(200_000, percent), Random::new(1), slots(1000));
    churn(allocator, &mut random, &mut slots, pairs / 10);
    let begin = Instant::now();
    churn(allocator, &mut random, &mut slots, pairs);
    let spent = begin.elapsed();
    empty(allocator, &mut slots);
    nanoseconds(spent, pairs)
}

fn together(allocator: Allocator, percent: usize) -> f64 {
    const THREADS: u64 = 4;
    let (pairs, barrier) = (scaled(100_000, percent), Barrier::new(THREADS as usize));
    let work = |thread| {
        let (mut random, mut slots) = (Random::new(thread), slots(1000));
        churn(allocator, &mut random, &mut slots, pairs / 10);
        barrier.wait();
        let begin = Instant::now();
        churn(allocator, &mut random, &mut slots, pairs);
        let end = Instant::now();
        barrier.wait(); // what is freed now is nobody's work
        empty(allocator, &mut slots);
        (begin, end)
    };
    let work = &work;
    // From the first to begin to the last to end. Another thread would not do for a clock: it may wake up late.
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let begin = times.iter().map(|(begin, _)| *begin).min().expect("a thread");
    let end = times.iter().map(|(_, end)| *end).max().expect("a thread");
    nanoseconds(end - begin, pairs * THREADS as usize)
}

fn passing(allocator: Allocator, percent: usize) -> f64 {
    const IN_ONE: usize = 100;
    let messages = scaled(3000, percent);
    let (send, receive) = sync_channel::<Vec<Block>>(4);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            receive.iter().flatten().for_each(|block: Block| block.free(allocator));
        });
        for message in 0..messages {
            let blocks = (0..IN_ONE).map(|_| Block::new(allocator, 64 << (message % 3))).collect();
            send.send(blocks).expect("the other thread receives");
        }
        drop(send);
    });
    nanoseconds(begin.elapsed(), messages * IN_ONE)
}

fn bytes_since(before: usize) -> f64 {
    // A page at least, so that there is a ratio.
    kernel::resident_bytes().saturating_sub(before).max(4096) as f64
}

fn phases(allocator: Allocator, percent: usize) -> f64 {
    let bytes = scaled(4 << 20, percent);
    let mut kept = Vec::with_capacity(bytes / 512 + 512);
    let mut blocks = Vec::with_capacity(bytes / 64 + 1);
    touch(&mut kept);
    touch(&mut blocks);
    let before = kernel::resident_bytes();
    for size in [64, 96, 160, 400, 1000] {
        blocks.extend((0..bytes / size).map(|_| Some(Block::new(allocator, size))));
        for (index, block) in blocks.drain(..).enumerate() {
            // What lives long was allocated at the same time: 64 neighbours of each 2048.
            match block {
                Some(block) if index / 64 % 32 != 0 => block.free(allocator),
                other => kept.push(other),
            }
        }
    }
    let held = bytes_since(before);
    empty(allocator, &mut kept);
    held
}

/// Makes a list's own memory resident, so that it is not counted as the allocator's.
fn touch(list: &mut Slots) {
    list.resize_with(list.capacity(), || None);
    black_box(&*list);
    list.clear();
}

fn sleepers(allocator: Allocator, percent: usize) -> f64 {
    const THREADS: u64 = 64;
    let (pairs, barrier) = (scaled(4000, percent), Barrier::new(THREADS as usize + 1));
    let work = |thread| {
        let (mut random, mut slots) = (Random::new(thread), slots(500));
        black_box([0_u8; 64 << 10]); // of the stack, more than will be used
        barrier.wait(); // all are there
        barrier.wait(); // what is resident was noted
        churn(allocator, &mut random, &mut slots, pairs);
        empty(allocator, &mut slots);
        barrier.wait(); // all are done
        barrier.wait(); // and all may end
    };
    let work = &work;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || work(thread));
        }
        barrier.wait();
        let before = kernel::resident_bytes();
        barrier.wait();
        barrier.wait();
        let held = bytes_since(before);
        barrier.wait();
        held
    })
}

fn burst(allocator: Allocator, percent: usize) -> f64 {
    const SIZE: usize = 1000;
    let count = scaled(32 << 20, percent) / SIZE;
    let mut blocks = Vec::with_capacity(count);
    touch(&mut blocks);
    let (mut random, mut slots) = (Random::new(1), slots(1000));
    let before = kernel::resident_bytes();
    blocks.extend((0..count).map(|_| Some(Block::new(allocator, SIZE))));
    empty(allocator, &mut blocks);
    // Time: what is to happen meanwhile goes by the clock. And what fits into it where nobody else wants the CPU: a
    // process that did not run had no occasion.
    let (begin, mut rounds) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_millis(330) || rounds < 300 {
        churn(allocator, &mut random, &mut slots, 100);
        std::thread::sleep(Duration::from_millis(1));
        rounds += 1;
    }
    let held = bytes_since(before);
    empty(allocator, &mut slots);
    held
}
