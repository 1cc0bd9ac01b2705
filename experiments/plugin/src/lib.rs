//! A plugin as a program loads it: everything it allocates is perseq's, in a heap of its own, also what it keeps for a
//! thread until that ends.

use std::cell::RefCell;
use std::collections::BTreeMap;

#[global_allocator]
static PERSEQ: perseq::Perseq = perseq::Perseq::new();

thread_local! {
    /// What the last play of this thread left, which goes when the thread ends.
    static KEPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Allocates and frees `count` blocks of many sizes, in this thread and in one of its own. Returns how many of them did
/// not hold what was written.
#[unsafe(no_mangle)]
pub extern "C" fn perseq_plugin_play(seed: u64, count: u64) -> u64 {
    let other = std::thread::Builder::new().stack_size(256 << 10).spawn(move || play(seed ^ 0x55, count / 2));
    let wrong = play(seed, count);
    // No thread to be had is no fault of the heap.
    wrong + other.map_or(0, |other| other.join().unwrap_or(1))
}

fn play(seed: u64, count: u64) -> u64 {
    let mut blocks = BTreeMap::new();
    let mut wrong = 0;
    for index in 0..count {
        let word = (seed ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let size = if index % 64 == 0 { 1 << 17 } else { (word >> 54) as usize + 1 };
        blocks.insert(word, vec![word as u8; size]);
        if index % 3 == 2
            && let Some((word, block)) = blocks.pop_first()
        {
            wrong += u64::from(block.iter().any(|byte| *byte != word as u8));
        }
    }
    wrong += blocks.iter().filter(|(word, block)| block.iter().any(|byte| *byte != **word as u8)).count() as u64;
    KEPT.with_borrow_mut(|kept| *kept = (0..10).map(|index| format!("{seed} {index}")).collect());
    wrong
}
