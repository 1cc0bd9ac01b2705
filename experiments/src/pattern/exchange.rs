//! Patterns in which one thread frees what another allocated.

use super::block::{Block, Written};
use super::lanes::side_by_side;
use super::object::{Object, Random, Tally, fatal, zeroed};
use super::setting::{Outcome, Setting};
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError};

/// Objects of a batch of xmalloc.
const BATCH: usize = 4096;
/// Batches that may wait: 410 thousand objects.
const WAITING: usize = 100;

/// Batches between those that fill them and those that free them: the newest is taken first.
struct Stack {
    batches: Mutex<Vec<Vec<Object>>>,
    room: Condvar,
    ready: Condvar,
}

impl Stack {
    fn locked(&self) -> MutexGuard<'_, Vec<Vec<Object>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, batch: Vec<Object>) {
        let waits = |batches: &mut Vec<_>| batches.len() >= WAITING;
        let batches = self.room.wait_while(self.locked(), waits);
        batches.unwrap_or_else(PoisonError::into_inner).push(batch);
        self.ready.notify_one();
    }

    fn take(&self) -> Vec<Object> {
        let batches = self.ready.wait_while(self.locked(), |batches| batches.is_empty());
        let batch = batches.unwrap_or_else(PoisonError::into_inner).pop();
        self.room.notify_one();
        batch.unwrap_or_else(|| fatal("a batch was lost"))
    }
}

/// xmalloc: half of the threads fill batches, the other half free them, and the blocks that hold the batches with them.
pub fn xmalloc(setting: &Setting) -> Outcome {
    const BYTES: usize = 64;
    let pairs = (setting.threads / 2).max(1);
    let each = setting.each(800);
    let stack = Stack { batches: Mutex::new(Vec::with_capacity(WAITING)), room: Condvar::new(), ready: Condvar::new() };
    side_by_side(pairs * 2, |number| {
        let mut tally = Tally::new(number);
        for _ in 0..each {
            if number % 2 == 0 {
                let mut batch = Vec::with_capacity(BATCH);
                batch.extend((0..BATCH).map(|_| Object::full(BYTES, &mut tally)));
                stack.put(batch);
            } else {
                stack.take().iter().for_each(|object| object.free(&mut tally));
            }
        }
        tally
    })
    .into()
}

/// mstress: objects and large ones that stay, all written and read whole; a quarter of the turns swaps an object against
/// whatever lies in a shared table. New threads each time.
pub fn mstress(setting: &Setting) -> Outcome {
    const TABLE: usize = 1000;
    const WHOLE: u64 = 6;
    let table: Vec<AtomicUsize> = (0..TABLE).map(|_| AtomicUsize::new(0)).collect();
    // Some threads do more: the threads of a CPU 3000 together.
    let weights: usize = (0..setting.threads).map(|thread| thread % 8 + 1).sum();
    let share = 3000.0 * setting.threads as f64 / (setting.per_cpu.max(1) as f64 * weights as f64);
    // Whole generations, and of less than one a part.
    let (generations, percent) = match setting.percent * WHOLE / 100 {
        0 => (1, setting.percent * WHOLE),
        several => (several, 100),
    };
    let mut tally = Tally::new(0);
    for generation in 0..generations {
        let sums = side_by_side(setting.threads, |thread| {
            let number = 1 + thread + setting.threads * generation as usize;
            let objects = share * (thread % 8 + 1) as f64 * percent as f64 / 100.0;
            stress(&table, (objects as usize).max(2), Random::new(setting.seed, number), Tally::new(number))
        });
        tally = tally.and(sums);
    }
    table.iter().for_each(|slot| Object::at(slot.swap(0, AcqRel)).free_full(&mut tally));
    tally.into()
}

fn stress(table: &[AtomicUsize], objects: usize, mut random: Random, mut tally: Tally) -> Tally {
    const WORDS: usize = 128;
    let make = |words: usize, random: &mut Random, tally: &mut Tally| {
        // Of a hundred, two are a hundred times as large.
        let words = if random.below(100) < 2 { words * 100 } else { words };
        Object::full(words * size_of::<u64>(), tally)
    };
    let (mut left, mut to_keep) = (objects, objects / 2);
    let (mut data, mut kept) = (Vec::new(), Vec::with_capacity(to_keep));
    while left > 0 || to_keep > 0 {
        if to_keep == 0 || (left > 0 && random.below(100) <= 50) {
            left -= 1;
            data.push(make(random.between(1, WORDS), &mut random, &mut tally));
        } else {
            to_keep -= 1;
            kept.push(make(10 * random.between(1, 10 * WORDS), &mut random, &mut tally));
        }
        if !data.is_empty() && random.below(100) <= 66 {
            let slot = random.below(data.len());
            std::mem::replace(&mut data[slot], Object::NONE).free_full(&mut tally);
        }
        if !data.is_empty() && random.below(100) <= 25 {
            let slot = random.below(data.len());
            // Release hands our writes over, acquire takes those of the object we get.
            let address = table[random.below(table.len())].swap(data[slot].address(), AcqRel);
            data[slot] = Object::at(address);
        }
    }
    kept.iter().chain(&data).for_each(|object| object.free_full(&mut tally));
    tally
}

/// rptest: each thread frees and replaces blocks of its own in strides, and in every other turn makes as many for another
/// thread, which frees them and the block that held them.
pub fn rptest(setting: &Setting) -> Outcome {
    const BLOCKS: usize = 1000;
    // The first primes that do not divide the number of blocks.
    const STRIDES: (usize, usize) = (7, 11);
    let threads = setting.threads;
    let inboxes: Vec<Mutex<Vec<Vec<Block>>>> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
    let inbox = |number: usize| inboxes[number].lock().unwrap_or_else(PoisonError::into_inner);
    let turns = setting.each(8000);
    let done = Barrier::new(threads);
    side_by_side(threads, |number| {
        let mut tally = Tally::new(number);
        let mut random = Random::new(setting.seed, number);
        let mut blocks = vec![Block::NONE; BLOCKS];
        let (mut made, mut freed, mut other) = (0, 0, number);
        let read_mail = |tally: &mut Tally| {
            let batches = std::mem::take(&mut *inbox(number));
            batches.iter().flatten().for_each(|block| block.free(tally));
        };
        for turn in 0..turns {
            for _ in 0..random.between(24, 79) {
                std::mem::replace(&mut blocks[freed], Block::NONE).free(&mut tally);
                freed = (freed + STRIDES.1) % BLOCKS;
            }
            read_mail(&mut tally);
            let count = random.between(30, 99);
            for _ in 0..count {
                blocks[made].free(&mut tally);
                blocks[made] = Block::new(falling(&mut random), Written::Pages, &mut tally);
                made = (made + STRIDES.0) % BLOCKS;
            }
            if threads > 1 && turn % 2 == 0 {
                let make = |_| Block::new(falling(&mut random), Written::Pages, &mut tally);
                let batch: Vec<_> = (0..count).map(make).collect();
                other = (other + 1) % threads;
                if other == number {
                    other = (other + 1) % threads;
                }
                inbox(other).push(batch);
            }
        }
        done.wait();
        read_mail(&mut tally);
        blocks.iter().for_each(|block| block.free(&mut tally));
        tally
    })
    .into()
}

/// A size of 8 to 16 000 bytes, the smaller the more often.
fn falling(random: &mut Random) -> usize {
    const SIZES: (usize, usize) = (8, 16_000);
    let mut share = || random.below(1 << 20) as f64 / f64::from(1 << 20);
    let weight = (1.0 - share() + 1.0 - share() - 1.0).abs();
    SIZES.0 + (share() * weight * (SIZES.1 - SIZES.0) as f64) as usize
}

/// mleak: ten threads that live for one block each, which stays until another comes to its place.
pub fn mleak(setting: &Setting) -> Outcome {
    const THREADS: usize = 10;
    const PLACES: usize = 1000;
    const WORDS: usize = 16;
    let places: Vec<AtomicUsize> = (0..PLACES).map(|_| AtomicUsize::new(0)).collect();
    let mut tally = Tally::new(0);
    for round in 0..setting.rounds(500) {
        let life = |thread: usize| {
            let number = 1 + thread + THREADS * round as usize;
            let mut tally = Tally::new(number);
            let fresh = zeroed(WORDS * size_of::<u64>());
            let object = Object::sign(fresh, WORDS * size_of::<u64>(), &mut tally);
            let place = Random::new(setting.seed, number).below(PLACES);
            Object::at(places[place].swap(object.address(), AcqRel)).free(&mut tally);
            tally
        };
        let lives = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || life(thread))).collect();
            let join = |handle: std::thread::ScopedJoinHandle<'_, Tally>| {
                handle.join().unwrap_or_else(|_| fatal("a thread panicked"))
            };
            handles.into_iter().map(join).fold(Tally::default(), Tally::and)
        });
        tally = tally.and(lives);
    }
    places.iter().for_each(|place| Object::at(place.swap(0, Relaxed)).free(&mut tally));
    tally.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sizes_of_rptest_are_frequent_and_large_ones_come() {
        let mut random = Random::new(1, 1);
        let sizes: Vec<_> = (0..10_000).map(|_| falling(&mut random)).collect();
        assert!(sizes.iter().all(|size| (8..=16_000).contains(size)));
        let below = |limit: usize| sizes.iter().filter(|size| **size < limit).count();
        assert!(below(4000) > 7000 && below(8000) < 9900, "{} {}", below(4000), below(8000));
    }

    /// No batch is lost or freed twice by those that fill and those that free, however many wait.
    #[test]
    fn as_many_batches_are_freed_as_were_filled() {
        for (threads, percent) in [(1, 1), (2, 20), (8, 4)] {
            let outcome = xmalloc(&Setting { threads, per_cpu: 1, percent, seed: 1 });
            let batches = 800 * percent / 100 * (threads as u64 / 2).max(1);
            assert_eq!(outcome.operations, batches * BATCH as u64);
            assert_eq!(outcome.found, outcome.expected);
        }
    }
}
