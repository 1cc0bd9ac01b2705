//! Patterns of batches: many objects at once, then all of them freed.

use super::block::{Block, Written};
use super::lanes::side_by_side;
use super::object::{Random, Tally};
use super::setting::{Outcome, Setting};
use std::sync::Mutex;

/// threadtest: nothing is shared, so time per thread should not grow with the threads.
pub fn threadtest(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 100_000;
    let objects = (OBJECTS / setting.threads).max(1);
    let rounds = (setting.each(10_000_000) / objects as u64).max(1);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut blocks = vec![Block::NONE; objects];
        for _ in 0..rounds {
            blocks.iter_mut().for_each(|slot| *slot = Block::new(8, Written::All, &mut tally));
            blocks.iter().for_each(|block| block.free(&mut tally));
        }
        tally
    })
    .into()
}

/// Objects of a wave.
const WAVE: usize = 1000;

/// Waves of growing sizes, each freed newest first or oldest first. Of each wave's blocks a tenth stays until the wave
/// after the next.
struct Waves {
    wave: Vec<Block>,
    kept: [Vec<Block>; 2],
}

impl Waves {
    fn new() -> Waves {
        let kept = || vec![Block::NONE; WAVE / 10];
        Waves { wave: vec![Block::NONE; WAVE], kept: [kept(), kept()] }
    }

    /// Makes the blocks of one wave and frees what was kept for its time.
    fn rise(&mut self, round: usize, tally: &mut Tally) {
        for (index, slot) in self.wave.iter_mut().enumerate() {
            // Small sizes more often: a wave climbs to 1000 bytes, most waves only to a part of it.
            let top = 125 << (round % 4);
            *slot = Block::new(1 + (index * 7 + round) % top, Written::Ends, tally);
        }
        for (index, old) in self.kept[round % 2].iter_mut().enumerate() {
            old.free(tally);
            *old = std::mem::replace(&mut self.wave[index * 10], Block::NONE);
        }
    }

    fn fall(&self, round: usize, tally: &mut Tally) {
        if round.is_multiple_of(2) {
            self.wave.iter().for_each(|block| block.free(tally));
        } else {
            self.wave.iter().rev().for_each(|block| block.free(tally));
        }
    }

    fn end(&self, tally: &mut Tally) {
        self.kept.iter().flatten().for_each(|block| block.free(tally));
    }
}

/// sh6bench: every thread for itself.
pub fn sh6bench(setting: &Setting) -> Outcome {
    let rounds = setting.each(4000) as usize;
    side_by_side(setting.threads, |number| {
        let (mut tally, mut waves) = (Tally::new(number), Waves::new());
        for round in 0..rounds {
            waves.rise(round, &mut tally);
            waves.fall(round, &mut tally);
        }
        waves.end(&mut tally);
        tally
    })
    .into()
}

/// sh8bench: sizes at random, and each third wave is left to whichever thread comes next.
pub fn sh8bench(setting: &Setting) -> Outcome {
    let rounds = setting.each(4000) as usize;
    let left: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let tally = side_by_side(setting.threads, |number| {
        let (mut tally, mut waves) = (Tally::new(number), Waves::new());
        let mut random = Random::new(setting.seed, number);
        for round in 0..rounds {
            waves.rise(random.below(4) + 4 * round, &mut tally);
            if round % 3 == 2 {
                let mine = std::mem::take(&mut waves.wave);
                let theirs = std::mem::replace(&mut *left.lock().unwrap_or_else(|broken| broken.into_inner()), mine);
                theirs.iter().for_each(|block| block.free(&mut tally));
                waves.wave = vec![Block::NONE; WAVE];
            } else {
                waves.fall(round, &mut tally);
            }
        }
        waves.end(&mut tally);
        tally
    });
    let mut rest = Tally::default();
    left.into_inner().unwrap_or_else(|broken| broken.into_inner()).iter().for_each(|block| block.free(&mut rest));
    tally.and(rest).into()
}
