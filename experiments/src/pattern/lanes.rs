//! Threads that work side by side, and the patterns in which each replaces random objects of its own.

use super::block::{Block, Written};
use super::object::{Random, Tally};
use super::setting::{Outcome, Setting};
use std::sync::Barrier;

/// Runs `work` on that many threads, which start together, and adds up their sums.
pub fn side_by_side(threads: usize, work: impl Fn(usize) -> Tally + Sync) -> Tally {
    let start = Barrier::new(threads);
    let outcomes: Vec<Tally> = std::thread::scope(|scope| {
        let start_one = |number| {
            let (work, start) = (&work, &start);
            scope.spawn(move || {
                start.wait();
                work(number)
            })
        };
        let handles: Vec<_> = (0..threads).map(start_one).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| panicked())).collect()
    });
    outcomes.into_iter().fold(Tally::default(), Tally::and)
}

fn panicked() -> ! {
    super::object::fatal("a thread panicked")
}

/// larson: 5000 objects to a lane, replaced at random by one thread after another.
pub fn larson(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 5000;
    const GENERATION: u64 = 100 * OBJECTS as u64;
    const SIZES: (usize, usize) = (8, 1000);
    let total = setting.each(3_000_000);
    let generation = (total / 2).clamp(1, GENERATION);
    // The first thread of the process makes the objects that the first generation frees, and replaces them for a while.
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    let make =
        |random: &mut Random, tally: &mut Tally| Block::new(random.between(SIZES.0, SIZES.1), Written::Ends, tally);
    let mut all: Vec<Block> = (0..setting.threads * OBJECTS).map(|_| make(&mut random, &mut tally)).collect();
    for _ in 0..setting.rounds(4 * all.len() as u64) {
        let slot = random.below(all.len());
        all[slot].free(&mut tally);
        all[slot] = make(&mut random, &mut tally);
    }
    let lanes = side_by_side(setting.threads, |lane| {
        let mut objects = all[lane * OBJECTS..][..OBJECTS].to_vec();
        let mut tally = Tally::new(lane + 1);
        let mut random = Random::new(setting.seed, lane + 1);
        let mut left = total;
        while left > 0 {
            let replaced = left.min(generation);
            left -= replaced;
            let generation = || {
                for _ in 0..replaced {
                    let slot = random.below(OBJECTS);
                    objects[slot].free(&mut tally);
                    objects[slot] = make(&mut random, &mut tally);
                }
            };
            std::thread::scope(|scope| scope.spawn(generation).join()).unwrap_or_else(|_| panicked());
        }
        objects.iter().for_each(|object| object.free(&mut tally));
        tally
    });
    tally.and(lanes).into()
}

/// glibc-thread: a working set of 1024, small blocks far more often than large ones, and every byte written.
pub fn glibc_thread(setting: &Setting) -> Outcome {
    const BLOCKS: usize = 1024;
    let replaced = setting.each(4_000_000);
    let sizes = inverse_square(4, 32_768);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut random = Random::new(setting.seed, number);
        let mut blocks = vec![Block::NONE; BLOCKS];
        for _ in 0..replaced {
            let slot = random.below(BLOCKS);
            blocks[slot].free(&mut tally);
            blocks[slot] = Block::new(sizes[random.below(sizes.len())] as usize, Written::All, &mut tally);
        }
        blocks.iter().for_each(|block| block.free(&mut tally));
        tally
    })
    .into()
}

/// alloc-test: slots that are chosen by how hot they are. A full one is read and freed, an empty one is filled.
pub fn alloc_test(setting: &Setting) -> Outcome {
    const SLOTS: usize = 1 << 18;
    let slots = (SLOTS / setting.threads).max(1);
    let turns = setting.each(3_000_000);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut random = Random::new(setting.seed, number);
        let size = |random: &mut Random| halving(random.next());
        let fill = |random: &mut Random, tally: &mut Tally| Block::new(size(random), Written::All, tally);
        let half = |random: &mut Random, tally: &mut Tally| {
            if random.below(2) == 0 { fill(random, tally) } else { Block::NONE }
        };
        let mut blocks: Vec<_> = (0..slots).map(|_| half(&mut random, &mut tally)).collect();
        for _ in 0..turns {
            let slot = &mut blocks[pareto(&mut random, slots)];
            if slot.is_some() {
                std::mem::replace(slot, Block::NONE).free_after_reading(&mut tally);
            } else {
                *slot = fill(&mut random, &mut tally);
            }
        }
        blocks.into_iter().for_each(|block| block.free_after_reading(&mut tally));
        tally
    })
    .into()
}

/// A size of 5 to 1024 bytes: each power of two half as often as the one below it, and even in between.
fn halving(random: u64) -> usize {
    const STEPS: u32 = 7;
    let step = (((random & ((1 << STEPS) - 1)) + 1).trailing_zeros() + 2) as usize;
    (((random >> STEPS) as usize) & ((1 << step) - 1)) + 1 + (1 << step)
}

/// A slot: 80 % of the choices fall on 20 % of the slots, six times over, so a tenth of them gets nearly all.
fn pareto(random: &mut Random, slots: usize) -> usize {
    // Share of the choices, and of the slots, of each level: the binomial of 80 to 20 over six.
    const CHOICES: [f64; 7] = [0.262144, 0.393216, 0.24576, 0.08192, 0.01536, 0.001536, 0.000064];
    let (mut level, mut below) = (0, random.next() as f64 / u64::MAX as f64);
    while level < 6 && below >= CHOICES[level] {
        below -= CHOICES[level];
        level += 1;
    }
    let first: f64 = CHOICES[7 - level..].iter().sum();
    let (first, count) = ((first * slots as f64) as usize, (CHOICES[6 - level] * slots as f64) as usize);
    (first + random.below(count.max(1))).min(slots - 1)
}

/// A table of sizes in which each is as frequent as the inverse of its square, by inverting the distribution.
fn inverse_square(least: usize, most: usize) -> Vec<u32> {
    const ENTRIES: usize = 1 << 14;
    let (least, most) = (least as f64, most as f64);
    let size = |entry: usize| {
        let share = (entry as f64 + 0.5) / ENTRIES as f64;
        1.0 / (1.0 / least - share * (1.0 / least - 1.0 / most))
    };
    (0..ENTRIES).map(|entry| size(entry) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_objects_are_at_most_twice_the_smallest() {
        let sizes = inverse_square(4, 32_768);
        assert!(sizes.iter().all(|size| (4..=32_768).contains(size)));
        let small = sizes.iter().filter(|size| **size < 8).count() as f64 / sizes.len() as f64;
        assert!((0.49..0.53).contains(&small), "{small}");
    }

    #[test]
    fn half_of_the_sizes_of_alloc_test_are_at_most_eight_and_a_tenth_of_its_slots_gets_nearly_all() {
        let mut random = Random::new(1, 1);
        let sizes: Vec<_> = (0..100_000).map(|_| halving(random.next())).collect();
        assert!(sizes.iter().all(|size| (5..=1024).contains(size)));
        let share = |limit: usize| sizes.iter().filter(|size| **size <= limit).count() as f64 / 1e5;
        assert!((share(8) - 0.5).abs() < 0.01 && (share(16) - 0.75).abs() < 0.01, "{} {}", share(8), share(16));

        let mut hits = vec![0u32; 10_000];
        (0..200_000).for_each(|_| hits[pareto(&mut random, 10_000)] += 1);
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = hits[..1000].iter().sum();
        assert!((0.97..0.995).contains(&(f64::from(hot) / 2e5)), "{hot}");
        assert!(hits.iter().filter(|hits| **hits > 0).count() > 3000, "cold ones are chosen as well");
    }
}
