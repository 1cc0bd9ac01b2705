//! Allocates and frees in the mode that the environment asks for, on several threads, and says what it saw of it.

use std::sync::mpsc::channel;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Blocks of many sizes, each full of its number.
fn blocks(seed: usize) -> Vec<Vec<u8>> {
    (0..2000).map(|number| vec![(number + seed) as u8; 1 + (number * 37 + seed) % 5000]).collect()
}

fn main() {
    std::thread::scope(|scope| {
        let (give, take) = channel();
        for seed in 0..4 {
            let give = give.clone();
            scope.spawn(move || {
                for _ in 0..5 {
                    drop(blocks(seed));
                    give.send((seed, blocks(seed))).expect("the other side is there");
                }
            });
        }
        drop(give);
        for (seed, blocks) in take {
            // Freed here, where they were not allocated, and whole.
            for (number, block) in blocks.iter().enumerate() {
                assert!(block.iter().all(|byte| *byte == (number + seed) as u8));
            }
        }
    });
    let perseq::ActiveMode { requested, active, .. } = perseq::active_mode();
    let mut owner = "nobody";
    perseq::for_each_cache(&mut |cache| owner = cache.owner.kind());
    let stats = perseq::stats();
    let drained = perseq::drain();
    println!(
        "{requested} runs as {active}: caches are of {owner}, filled: {}, drained: {}, uncached: {}, lends: {}",
        stats.refilled_objects > 0,
        drained > 0,
        stats.uncached_allocs > 1000,
        active.lends(),
    );
}
