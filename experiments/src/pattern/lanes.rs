//! Threads that work side by side, and the patterns in which each replaces random objects of its own.

use super::object::{Object, Random, Tally};
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

/// larson: 1000 objects to a lane, replaced at random by one thread after another.
pub fn larson(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 1000;
    const REPLACED: usize = 20_000;
    let generations = setting.rounds(150);
    // The first thread of the process makes the objects that the first generation frees, as in the original.
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    let first: Vec<Vec<Object>> = (0..setting.threads)
        .map(|_| (0..OBJECTS).map(|_| Object::new(random.between(16, 1000), &mut tally)).collect())
        .collect();
    let lanes = side_by_side(setting.threads, |lane| {
        let mut objects = first[lane].clone();
        let mut tally = Tally::new(lane + 1);
        let mut random = Random::new(setting.seed, lane + 1);
        for _ in 0..generations {
            let generation = || {
                for _ in 0..REPLACED {
                    let slot = random.below(OBJECTS);
                    objects[slot].free(&mut tally);
                    objects[slot] = Object::new(random.between(16, 1000), &mut tally);
                }
            };
            std::thread::scope(|scope| scope.spawn(generation).join()).unwrap_or_else(|_| panicked());
        }
        objects.iter().for_each(|object| object.free(&mut tally));
        tally
    });
    tally.and(lanes).into()
}

/// glibc-thread: a working set of 1024, and small objects far more often than large ones.
pub fn glibc_thread(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 1024;
    let replaced = setting.rounds(4_000_000);
    let sizes = inverse_square(16, 32_768);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut random = Random::new(setting.seed, number);
        let mut objects = vec![Object::NONE; OBJECTS];
        for _ in 0..replaced {
            let slot = random.below(OBJECTS);
            objects[slot].free(&mut tally);
            objects[slot] = Object::new(sizes[random.below(sizes.len())] as usize, &mut tally);
        }
        objects.iter().for_each(|object| object.free(&mut tally));
        tally
    })
    .into()
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
        let sizes = inverse_square(16, 32_768);
        assert!(sizes.iter().all(|size| (16..=32_768).contains(size)));
        let small = sizes.iter().filter(|size| **size <= 32).count() as f64 / sizes.len() as f64;
        assert!((0.49..0.53).contains(&small), "{small}");
    }
}
