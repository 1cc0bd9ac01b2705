//! The last rung as the allocator of a whole program: this one.

use std::collections::BTreeMap;
use std::thread;

use perseq_guide::giving_back::GivingBack;
use perseq_guide::kernel;

#[global_allocator]
static ALLOCATOR: GivingBack = GivingBack::empty();

#[test]
fn a_program_runs_on_the_last_rung() {
    for round in 0..3_usize {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                thread::spawn(move || (0..5_000).map(|n| (n, format!("{worker}.{n}"))).collect::<BTreeMap<_, _>>())
            })
            .collect();
        // What one thread made another reads and drops.
        let maps: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        for (worker, map) in maps.iter().enumerate() {
            assert_eq!(map.len(), 5_000);
            assert!(map.iter().all(|(n, text)| *text == format!("{worker}.{n}")), "round {round}");
        }
    }
}

#[test]
fn what_is_free_goes_back_at_once_when_asked() {
    const BYTES: usize = 64 << 20;
    let blocks: Vec<Vec<u8>> = (0..BYTES / 1000).map(|n| vec![n as u8; 1000]).collect();
    let full = kernel::resident_bytes();
    assert!(blocks.iter().enumerate().all(|(n, block)| block.iter().all(|byte| *byte == n as u8)));
    drop(blocks);
    let released = ALLOCATOR.release();
    let left = kernel::resident_bytes();
    // The other test of this program may hold some of it.
    assert!(released > BYTES / 2, "{released} bytes went back");
    assert!(left + BYTES / 2 < full, "{left} bytes of {full} stayed");
}
