//! `realloc` and `calloc`.

use super::object::{Object, Random, Tally, block, release, resized, zeroed};
use super::setting::{Outcome, Setting};

/// realloc: the words at both ends of the old size are checked after each step, then written anew, and each page that is
/// new is written to, as by who makes a buffer larger to fill it.
pub fn realloc(setting: &Setting) -> Outcome {
    const BUFFERS: usize = 64;
    const LARGEST: usize = 1 << 20;
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    for _ in 0..setting.rounds(60) {
        let mut buffers: Vec<_> = (0..BUFFERS).map(|_| Object::new(32, &mut tally)).collect();
        while !buffers.is_empty() {
            let chosen = random.below(buffers.len());
            let old = buffers[chosen].size();
            if old >= LARGEST {
                buffers.swap_remove(chosen).free(&mut tally);
                continue;
            }
            let moved = resized(buffers[chosen].block(), old + old / 2);
            // `realloc` keeps what was there, so the block is still the object it was, with room behind it.
            let kept = Object::at(moved.expose_provenance()).unsign(&mut tally);
            buffers[chosen] = Object::sign(kept, old + old / 2, &mut tally);
            buffers[chosen].touch(old);
        }
    }
    tally.into()
}

/// calloc: zero is what is read back, so every block is filled with something else before it is freed.
pub fn calloc(setting: &Setting) -> Outcome {
    const LIVE: usize = 256;
    let mut tally = Tally::new(0);
    let mut random = Random::new(setting.seed, 0);
    let mut blocks: Vec<(*mut u8, usize)> = vec![(std::ptr::null_mut(), 0); LIVE];
    for _ in 0..setting.rounds(150_000) {
        let size = 64 << random.below(11);
        let fresh = zeroed(size);
        // SAFETY: `size` bytes, allocated just now; every size is a multiple of 8 and malloc aligns to 8 at least.
        let words = unsafe { std::slice::from_raw_parts_mut(fresh.cast::<u64>(), size / 8) };
        let dirt: u64 = words.iter().fold(0, |all, word| all | *word);
        tally.read(dirt); // expected: 0
        words.fill(u64::MAX);
        tally.operations += 1;
        let slot = &mut blocks[random.below(LIVE)];
        let (old, _) = std::mem::replace(slot, (fresh, size));
        if !old.is_null() {
            release(old);
        }
    }
    blocks.iter().filter(|(block, _)| !block.is_null()).for_each(|(block, _)| release(*block));
    // The sums must not be equal only because both are nothing.
    let proof = Object::sign(block(64), 64, &mut tally);
    proof.free(&mut tally);
    tally.into()
}
