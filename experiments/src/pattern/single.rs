//! Patterns of one thread.

use super::block::{Block, Written};
use super::object::{Object, Random, Tally};
use super::setting::{Outcome, Setting};

/// glibc-simple: batches of one size, every byte written, half of them freed oldest first and half newest first. In the
/// first thread, then in a second one, then in the first again, which by then knows that there are threads.
pub fn glibc_simple(setting: &Setting) -> Outcome {
    let mut tally = Tally::new(0);
    for size in [16, 32, 64] {
        batches(setting, size, &mut tally);
        let second = || {
            let mut tally = Tally::new(size);
            batches(setting, size, &mut tally);
            tally
        };
        let second = std::thread::scope(|scope| scope.spawn(second).join());
        tally = tally.and(second.unwrap_or_else(|_| super::object::fatal("a thread panicked")));
        batches(setting, size, &mut tally);
    }
    tally.into()
}

fn batches(setting: &Setting, size: usize, tally: &mut Tally) {
    let mut blocks = vec![Block::NONE; 1600];
    for count in [25, 100, 400, 1600] {
        for _ in 0..setting.rounds(800_000 / count as u64) {
            let blocks = &mut blocks[..count];
            blocks.iter_mut().for_each(|slot| *slot = Block::new(size, Written::All, tally));
            let (first, second) = blocks.split_at(count / 2);
            first.iter().for_each(|block| block.free(tally));
            second.iter().rev().for_each(|block| block.free(tally));
        }
    }
}

/// churn: a large live set, so that the allocator's own data and the objects do not fit into a cache.
pub fn churn(setting: &Setting) -> Outcome {
    const LIVE: usize = 50_000;
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    let mut objects = vec![Object::NONE; LIVE];
    for _ in 0..setting.rounds(4_000_000) {
        let slot = random.below(LIVE);
        objects[slot].free(&mut tally);
        objects[slot] = Object::new(server_size(&mut random), &mut tally);
    }
    objects.iter().for_each(|object| object.free(&mut tally));
    tally.into()
}

/// In 1000 objects: 550 up to 64 bytes, 250 up to 128, 140 up to 512, 50 up to 4 KiB, 10 up to 32 KiB.
fn server_size(random: &mut Random) -> usize {
    match random.below(1000) {
        0..550 => random.between(16, 64),
        550..800 => random.between(65, 128),
        800..940 => random.between(129, 512),
        940..990 => random.between(513, 4096),
        _ => random.between(4097, 32_768),
    }
}

/// large: what the kernel does for fresh pages is part of the time, so keeping blocks pays and costs memory.
pub fn large(setting: &Setting) -> Outcome {
    const LIVE: usize = 16;
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    let mut objects = [Object::NONE; LIVE];
    for _ in 0..setting.rounds(2500) {
        let slot = random.below(LIVE);
        objects[slot].free(&mut tally);
        let size = random.between(256 << 10, 4 << 20);
        let object = Object::new(size, &mut tally);
        object.touch(0);
        objects[slot] = object;
    }
    objects.iter().for_each(|object| object.free(&mut tally));
    tally.into()
}
