//! Patterns of batches: many objects at once, then all of them freed.

use super::lanes::side_by_side;
use super::object::{Object, Tally};
use super::setting::{Outcome, Setting};

/// threadtest: nothing is shared, so time per thread should not grow with the threads.
pub fn threadtest(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 10_000;
    let rounds = setting.rounds(1200);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut objects = vec![Object::NONE; OBJECTS];
        for _ in 0..rounds {
            objects.iter_mut().for_each(|slot| *slot = Object::new(64, &mut tally));
            objects.iter().for_each(|object| object.free(&mut tally));
        }
        tally
    })
    .into()
}

/// shbench: waves of growing sizes. Of each wave's objects a tenth stays until the wave after the next.
pub fn shbench(setting: &Setting) -> Outcome {
    const OBJECTS: usize = 1000;
    let waves = setting.rounds(6000);
    side_by_side(setting.threads, |number| {
        let mut tally = Tally::new(number);
        let mut wave = vec![Object::NONE; OBJECTS];
        let mut kept = [vec![Object::NONE; OBJECTS / 10], vec![Object::NONE; OBJECTS / 10]];
        for round in 0..waves as usize {
            for (index, slot) in wave.iter_mut().enumerate() {
                // Small sizes more often: a wave climbs to 1000 bytes, most waves only to a part of it.
                let top = 125 << (round % 4);
                *slot = Object::new(16 + (index * 7 + round) % top, &mut tally);
            }
            for (index, old) in kept[round % 2].iter_mut().enumerate() {
                old.free(&mut tally);
                *old = std::mem::replace(&mut wave[index * 10], Object::NONE);
            }
            if round % 2 == 0 {
                wave.iter().for_each(|object| object.free(&mut tally));
            } else {
                wave.iter().rev().for_each(|object| object.free(&mut tally));
            }
        }
        kept.iter().flatten().for_each(|object| object.free(&mut tally));
        tally
    })
    .into()
}
